//! What the scheduler can be told.

/// Above this, bindings in flight only fill the API server's queue.
const MAX_BINDS_IN_FLIGHT: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Pods with this `spec.schedulerName` are placed.
    pub scheduler_name: String,
    /// Decides between nodes of equal score; the same seed and events give the same choices.
    pub seed: u64,
    /// Writes to the API server at a time: bindings, and reports of pods that wait.
    pub max_binds_in_flight: usize,
}

impl Default for Config {
    fn default() -> Self {
        // 64 writes share one fdatasync of the store without hiding a slow disk.
        Self { scheduler_name: "default-scheduler".into(), seed: 0, max_binds_in_flight: 64 }
    }
}

impl Config {
    /// Every fault at once.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut faults = Vec::new();
        if self.scheduler_name.is_empty() {
            faults.push("scheduler_name: must not be empty".to_owned());
        }
        if !(1..=MAX_BINDS_IN_FLIGHT).contains(&self.max_binds_in_flight) {
            faults.push(format!(
                "max_binds_in_flight: must be between 1 and {MAX_BINDS_IN_FLIGHT}, not {}",
                self.max_binds_in_flight
            ));
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn validation_tells_every_fault() {
        assert_eq!(Config::default().validate(), Ok(()));
        let broken = Config { scheduler_name: String::new(), seed: 0, max_binds_in_flight: 0 };
        let faults = broken.validate().expect_err("two faults");
        assert_eq!(
            faults,
            [
                "scheduler_name: must not be empty",
                "max_binds_in_flight: must be between 1 and 1024, not 0",
            ]
        );
    }
}

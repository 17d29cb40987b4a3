//! Where work that blocks is done: on threads, or, in a simulation, in the simulated time of
//! the one thread that there is.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;

/// Says how long a piece of work takes, by its name.
pub type Pace = Arc<dyn Fn(&'static str) -> Duration + Send + Sync>;

#[derive(Clone, Default)]
pub enum Background {
    #[default]
    Threads,
    /// On the caller's runtime, after as long as the pace says. The same order every time.
    Simulated(Pace),
}

impl Background {
    /// Does work that blocks without holding the runtime up.
    pub async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        match self {
            Self::Threads => tokio::task::spawn_blocking(work).await,
            Self::Simulated(_) => {
                self.take_time(name).await;
                Ok(work())
            }
        }
    }

    /// In a simulation, waits as long as the work would take.
    pub async fn take_time(&self, name: &'static str) {
        if let Self::Simulated(pace) = self {
            let time = pace(name);
            if !time.is_zero() {
                tokio::time::sleep(time).await;
            }
        }
    }
}

impl std::fmt::Debug for Background {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Threads => "Threads",
            Self::Simulated(_) => "Simulated",
        })
    }
}

//! When a probe asks, and what its answers amount to: thresholds, delays, holds. Pure; follows
//! upstream's `prober/worker.go`.

use std::time::{Duration, SystemTime};

use skiff_proto::model::Probe;

use super::Kind;

const DEFAULT_PERIOD_SECS: u64 = 10;
const DEFAULT_TIMEOUT_SECS: u64 = 1;
const DEFAULT_FAILURES: u32 = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    kind: Kind,
    initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    successes_needed: u32,
    failures_needed: u32,
    /// The last answer, and how often it came in a row.
    last: Option<bool>,
    run: u32,
    over: bool,
}

impl Machine {
    pub fn new(kind: Kind, probe: &Probe) -> Self {
        let or = |given: i32, default: u64| {
            u64::try_from(given).ok().filter(|n| *n > 0).unwrap_or(default)
        };
        Self {
            kind,
            initial_delay: Duration::from_secs(or(probe.initial_delay_seconds, 0)),
            period: Duration::from_secs(or(probe.period_seconds, DEFAULT_PERIOD_SECS)),
            timeout: Duration::from_secs(or(probe.timeout_seconds, DEFAULT_TIMEOUT_SECS)),
            successes_needed: or(probe.success_threshold, 1) as u32,
            failures_needed: or(probe.failure_threshold, u64::from(DEFAULT_FAILURES)) as u32,
            last: None,
            run: 0,
            over: false,
        }
    }

    /// The first question. A container that has long been running, which a restarted kubelet
    /// finds, is asked somewhere within one period (`jitter` in 0..1), so that not all are
    /// asked at once.
    pub fn first_ask(&self, started_at: SystemTime, now: SystemTime, jitter: f64) -> SystemTime {
        let due = started_at + self.initial_delay;
        if due + self.period < now { now + self.period.mul_f64(jitter) } else { due.max(now) }
    }

    /// Takes an answer; `None` is one that says nothing. Returns a verdict when a threshold is
    /// reached.
    pub fn answer(&mut self, success: Option<bool>) -> Option<bool> {
        let success = success?;
        if self.last == Some(success) {
            self.run += 1;
        } else {
            (self.last, self.run) = (Some(success), 1);
        }
        let needed = if success { self.successes_needed } else { self.failures_needed };
        if self.run < needed {
            return None;
        }
        self.over = match self.kind {
            Kind::Startup => true,
            // The container is to be restarted; nothing it says now counts.
            Kind::Liveness => !success,
            Kind::Readiness => false,
        };
        Some(success)
    }

    /// Nothing more is asked of this container.
    pub fn is_over(&self) -> bool {
        self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(kind: Kind, json: serde_json::Value) -> Machine {
        Machine::new(kind, &serde_json::from_value(json).expect("a probe"))
    }

    #[test]
    fn liveness_fails_after_its_threshold_and_then_holds() {
        let mut probe = machine(Kind::Liveness, serde_json::json!({"failureThreshold": 3}));
        assert_eq!(probe.answer(Some(true)), Some(true));
        assert_eq!(probe.answer(Some(false)), None);
        assert_eq!(probe.answer(Some(false)), None);
        assert_eq!(probe.answer(None), None);
        assert_eq!(probe.answer(Some(false)), Some(false));
        assert!(probe.is_over());
    }

    #[test]
    fn one_success_breaks_a_run_of_failures() {
        let mut probe = machine(Kind::Liveness, serde_json::json!({"failureThreshold": 2}));
        assert_eq!(probe.answer(Some(false)), None);
        assert_eq!(probe.answer(Some(true)), Some(true));
        assert_eq!(probe.answer(Some(false)), None);
    }

    #[test]
    fn readiness_counts_both_ways_and_never_ends() {
        let mut probe = machine(
            Kind::Readiness,
            serde_json::json!({"successThreshold": 2, "failureThreshold": 1}),
        );
        assert_eq!(probe.answer(Some(true)), None);
        assert_eq!(probe.answer(Some(true)), Some(true));
        assert_eq!(probe.answer(Some(false)), Some(false));
        assert!(!probe.is_over());
    }

    #[test]
    fn startup_ends_with_its_first_verdict() {
        let mut probe = machine(Kind::Startup, serde_json::json!({"failureThreshold": 30}));
        assert_eq!(probe.answer(Some(false)), None);
        assert_eq!(probe.answer(Some(true)), Some(true));
        assert!(probe.is_over());
    }

    #[test]
    fn fresh_containers_are_asked_after_their_delay_and_old_ones_spread() {
        let probe = machine(
            Kind::Liveness,
            serde_json::json!({"initialDelaySeconds": 5, "periodSeconds": 10}),
        );
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let secs = |s| Duration::from_secs(s);
        assert_eq!(probe.first_ask(start, start, 0.5), start + secs(5));
        assert_eq!(probe.first_ask(start, start + secs(7), 0.5), start + secs(7));
        assert_eq!(probe.first_ask(start, start + secs(900), 0.5), start + secs(905));
    }
}

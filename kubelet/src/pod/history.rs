//! How containers ended before, and how long the next start waits for it. Pure.
//!
//! The waiting time travels with the container itself, as an annotation in the runtime: it
//! is what must pass between this container's end and its next start. So the curve goes on
//! over a restart of the kubelet.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use skiff_proto::model::{ContainerStatus, PodStatus};

use crate::ports::{ContainerState, Phase};

pub const FIRST_BACKOFF: Duration = Duration::from_secs(10);
pub const LAST_BACKOFF: Duration = Duration::from_secs(300);
/// A container that ran for longer begins the curve again.
pub const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// Annotation: seconds that must pass after this container's end before the next starts.
pub const BACKOFF_ANNOTATION: &str = "skiff.io/backoff-seconds";
/// Annotation: the image as the pod's spec named it.
pub const IMAGE_ANNOTATION: &str = "skiff.io/spec-image";
/// Annotation: file on the host that takes the termination message.
pub const MESSAGE_ANNOTATION: &str = "skiff.io/termination-message-file";

/// The end of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    pub attempt: u32,
    pub id: String,
    pub exit_code: i32,
    pub signal: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
    pub reason: String,
    pub message: String,
    pub started_at: Option<SystemTime>,
    pub finished_at: SystemTime,
    pub backoff: Duration,
}

/// Ends that the runtime no longer knows: its record went with a sandbox or a reboot, or
/// the container never came to life.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    pub exits: BTreeMap<String, Exit>,
}

impl Exit {
    /// `None` while it is not over.
    pub fn of(container: &ContainerState, message: &str) -> Option<Self> {
        if container.phase != Phase::Exited {
            return None;
        }
        let exit_code = container.exit_code.unwrap_or(137);
        let reason = match (container.oom_killed, exit_code) {
            (true, _) => "OOMKilled",
            (false, 0) => "Completed",
            _ => "Error",
        };
        Some(Self {
            attempt: container.attempt,
            id: container.id.clone(),
            exit_code,
            signal: container.signal.unwrap_or(0),
            reason: reason.into(),
            message: message.into(),
            started_at: container.started_at,
            finished_at: container.finished_at.unwrap_or(container.created_at),
            backoff: backoff_of(container),
        })
    }

    pub fn succeeded(&self) -> bool {
        self.exit_code == 0
    }

    fn forgiven(&self) -> bool {
        let ran = self.started_at.and_then(|s| self.finished_at.duration_since(s).ok());
        ran.is_some_and(|ran| ran > FORGIVEN_AFTER)
    }

    /// When the next one may start.
    pub fn next_start(&self) -> SystemTime {
        if self.forgiven() { self.finished_at } else { self.finished_at + self.backoff }
    }

    /// What the next one carries as its own waiting time.
    pub fn next_backoff(&self) -> Duration {
        if self.forgiven() || self.backoff.is_zero() {
            FIRST_BACKOFF
        } else {
            (self.backoff * 2).min(LAST_BACKOFF)
        }
    }
}

fn backoff_of(container: &ContainerState) -> Duration {
    let written = container.annotations.get(BACKOFF_ANNOTATION);
    Duration::from_secs(written.and_then(|text| text.parse().ok()).unwrap_or(0))
}

impl History {
    /// What the API still tells about a pod whose containers the runtime may have lost:
    /// `lost` is when that was noticed.
    pub fn from_status(status: &PodStatus, lost: SystemTime) -> Self {
        let all = status.init_container_statuses.iter().chain(&status.container_statuses);
        let exits = all.filter_map(|c| Some((c.name.clone(), exit_of_status(c, lost)?))).collect();
        Self { exits }
    }

    /// Keeps the newer end of a container that is about to be forgotten.
    pub fn remember(&mut self, name: &str, exit: Exit) {
        match self.exits.get(name) {
            Some(known) if known.attempt > exit.attempt => {}
            _ => {
                self.exits.insert(name.to_owned(), exit);
            }
        }
    }
}

fn exit_of_status(status: &ContainerStatus, lost: SystemTime) -> Option<Exit> {
    let attempt = u32::try_from(status.restart_count).unwrap_or(0);
    if let Some(ended) = status.state.terminated.as_ref().or(status.last_state.terminated.as_ref())
        && status.state.running.is_none()
    {
        return Some(Exit {
            attempt,
            id: id_of(&ended.container_id),
            exit_code: ended.exit_code,
            signal: ended.signal,
            reason: ended.reason.clone(),
            message: ended.message.clone(),
            started_at: ended.started_at.map(|t| t.system_time()),
            finished_at: ended.finished_at.map_or(lost, |t| t.system_time()),
            backoff: Duration::ZERO,
        });
    }
    let running = status.state.running.as_ref()?;
    // Upstream's words for a container that was there and is not any more.
    Some(Exit {
        attempt,
        id: id_of(&status.container_id),
        exit_code: 137,
        signal: 0,
        reason: "ContainerStatusUnknown".into(),
        message: "The container could not be located when the pod was terminated".into(),
        started_at: running.started_at.map(|t| t.system_time()),
        finished_at: lost,
        backoff: Duration::ZERO,
    })
}

fn id_of(container_id: &str) -> String {
    container_id.rsplit("://").next().unwrap_or_default().to_owned()
}

/// The newest container of this name.
pub fn latest<'a>(containers: &'a [ContainerState], name: &str) -> Option<&'a ContainerState> {
    containers.iter().filter(|c| c.name == name).max_by_key(|c| (c.attempt, c.created_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(ran_secs: u64, backoff_secs: u64) -> Exit {
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        Exit {
            attempt: 0,
            id: "c".into(),
            exit_code: 1,
            signal: 0,
            reason: "Error".into(),
            message: String::new(),
            started_at: Some(started),
            finished_at: started + Duration::from_secs(ran_secs),
            backoff: Duration::from_secs(backoff_secs),
        }
    }

    #[test]
    fn the_curve_doubles_to_five_minutes_and_begins_again_after_ten_good_ones() {
        let mut waits = Vec::new();
        let mut backoff = 0;
        for _ in 0..8 {
            let exit = exit(1, backoff);
            let wait = exit.next_start().duration_since(exit.finished_at).expect("later");
            waits.push(wait.as_secs());
            backoff = exit.next_backoff().as_secs();
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        let good = exit(601, 300);
        assert_eq!(good.next_start(), good.finished_at);
        assert_eq!(good.next_backoff(), FIRST_BACKOFF);
    }

    #[test]
    fn a_running_status_becomes_an_unknown_end() {
        let status: PodStatus = serde_json::from_value(serde_json::json!({"containerStatuses": [
            {"name": "a", "restartCount": 3, "containerID": "containerd://x", "state": {"running": {}}},
            {"name": "b", "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
             "lastState": {"terminated": {"exitCode": 2, "reason": "Error"}}},
            {"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}}
        ]}))
        .expect("a status");
        let history = History::from_status(&status, SystemTime::UNIX_EPOCH);
        let seen: Vec<_> =
            history.exits.iter().map(|(n, e)| (n.as_str(), e.attempt, e.exit_code)).collect();
        assert_eq!(seen, [("a", 3, 137), ("b", 1, 2)]);
        assert_eq!(history.exits["a"].id, "x");
    }
}

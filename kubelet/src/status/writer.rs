//! Writes one pod's status to the API: only when it changed, the newest only, and again
//! with growing delays until it is there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use skiff_client::{Api, Patch, Target, WriteOptions};
use skiff_kit::backoff::Backoff;
use skiff_proto::model::{Pod, PodStatus};
use skiff_proto::resource;
use tokio::sync::watch;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// The top-level fields that the kubelet owns; absent ones are removed by a `null`.
const OWNED: &[&str] = &[
    "phase",
    "conditions",
    "message",
    "reason",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "startTime",
    "initContainerStatuses",
    "containerStatuses",
    "qosClass",
    "observedGeneration",
];

/// The body of the merge patch, or nothing if nothing changed.
pub fn patch(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    if old == new {
        return None;
    }
    let old = serde_json::to_value(old).ok()?;
    let new = serde_json::to_value(new).ok()?;
    let mut changed = serde_json::Map::new();
    for field in OWNED {
        match (old.get(field), new.get(field)) {
            (before, Some(after)) if before != Some(after) => {
                changed.insert((*field).into(), after.clone());
            }
            (Some(_), None) => {
                changed.insert((*field).into(), Value::Null);
            }
            _ => {}
        }
    }
    // The uid makes it a precondition: a new pod of this name keeps its own status.
    Some(json!({"metadata": {"uid": uid}, "status": changed}))
}

/// A handle on the task that writes. The task ends when the handle is dropped.
pub struct Writer {
    wanted: watch::Sender<Arc<PodStatus>>,
    written: watch::Receiver<Arc<PodStatus>>,
}

impl Writer {
    pub fn start(api: Arc<dyn Api>, pod: &Pod) -> Self {
        let begin = Arc::new(pod.status.clone());
        let (wanted, wishes) = watch::channel(begin.clone());
        let (done, written) = watch::channel(begin);
        let mut target = Target::one(&resource::PODS, &pod.metadata.namespace, &pod.metadata.name);
        target.subresource = "status".into();
        let task = Task { api, target, uid: pod.metadata.uid.clone(), wishes, done };
        tokio::spawn(task.run());
        Self { wanted, written }
    }

    /// What was asked to be written last.
    pub fn last(&self) -> Arc<PodStatus> {
        self.wanted.borrow().clone()
    }

    pub fn write(&self, status: PodStatus) {
        self.wanted.send_if_modified(|last| {
            if **last == status {
                return false;
            }
            *last = Arc::new(status);
            true
        });
    }

    /// Returns once everything asked for is in the API, or can never be.
    pub async fn flush(&self) {
        let wanted = self.last();
        let mut written = self.written.clone();
        let _ = written.wait_for(|status| **status == *wanted).await;
    }
}

struct Task {
    api: Arc<dyn Api>,
    target: Target,
    uid: String,
    wishes: watch::Receiver<Arc<PodStatus>>,
    done: watch::Sender<Arc<PodStatus>>,
}

impl Task {
    async fn run(mut self) {
        while self.wishes.changed().await.is_ok() {
            self.write().await;
        }
    }

    async fn write(&mut self) {
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        loop {
            let wanted = self.wishes.borrow_and_update().clone();
            let old = self.done.borrow().clone();
            let Some(body) = patch(&self.uid, &old, &wanted) else { return };
            let body = Patch::Merge(Bytes::from(body.to_string()));
            match self.api.patch(&self.target, body, &WriteOptions::default()).await {
                Ok(_) => {
                    self.done.send_replace(wanted);
                    return;
                }
                Err(status) if status.is_not_found() || status.is_conflict() => {
                    tracing::debug!(
                        pod = self.target.name,
                        "status not written, pod is gone: {status}"
                    );
                    self.done.send_replace(wanted);
                    return;
                }
                Err(status) => {
                    let wait = backoff.next();
                    tracing::warn!(
                        pod = self.target.name,
                        ?wait,
                        "status not written, trying again: {status}"
                    );
                    // Newer wishes do not wait longer for an old failure than the last retry.
                    tokio::time::sleep(wait).await;
                    if self.wishes.has_changed().is_err() {
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_written_and_what_went_is_nulled() {
        let old = PodStatus {
            phase: "Pending".into(),
            message: "m".into(),
            qos_class: "BestEffort".into(),
            ..Default::default()
        };
        let new = PodStatus {
            phase: "Running".into(),
            qos_class: "BestEffort".into(),
            ..Default::default()
        };
        assert_eq!(
            patch("u", &old, &new),
            Some(
                json!({"metadata": {"uid": "u"}, "status": {"phase": "Running", "message": null}})
            )
        );
        assert_eq!(patch("u", &new, &new), None);
    }
}

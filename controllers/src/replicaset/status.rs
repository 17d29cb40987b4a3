//! A ReplicaSet's status from its pods. Pure.

use std::time::{Duration, SystemTime};

use skiff_client::cache::Entry;
use skiff_proto::Timestamp;
use skiff_proto::model::{ReplicaSet, ReplicaSetStatus};

use crate::caches::pod::Pod;
use crate::conditions;

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Counts the active pods; conditions stay as they are.
pub fn observed(set: &Entry<ReplicaSet>, pods: &[Pod], now: SystemTime) -> ReplicaSetStatus {
    let min_ready = min_ready(set);
    let count = |keep: &dyn Fn(&Pod) -> bool| {
        i32::try_from(pods.iter().filter(|pod| keep(pod)).count()).unwrap_or(i32::MAX)
    };
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: count(&|pod| carries_template_labels(set, pod)),
        ready_replicas: count(&|pod| pod.value.ready),
        available_replicas: count(&|pod| pod.value.is_available(min_ready, now)),
        observed_generation: set.object.index.metadata.generation,
        conditions: set.value.status.conditions.clone(),
    }
}

fn carries_template_labels(set: &Entry<ReplicaSet>, pod: &Pod) -> bool {
    let wanted = set.value.spec.template["metadata"]["labels"].as_object();
    wanted.is_none_or(|wanted| {
        let labels = pod.object.labels();
        wanted.iter().all(|(k, v)| labels.get(k).map(String::as_str) == v.as_str())
    })
}

/// The shortest wait until another ready pod becomes available.
pub fn next_availability(
    set: &Entry<ReplicaSet>,
    pods: &[Pod],
    now: SystemTime,
) -> Option<Duration> {
    let min_ready = min_ready(set);
    let waits = pods.iter().filter_map(|pod| pod.value.available_in(min_ready, now));
    waits.filter(|wait| !wait.is_zero()).min()
}

fn min_ready(set: &Entry<ReplicaSet>) -> Duration {
    Duration::from_secs(u64::try_from(set.value.spec.min_ready_seconds).unwrap_or(0))
}

/// Tells in the status what kept pods from being made (`FailedCreate`) or removed
/// (`FailedDelete`), or that nothing does any more.
pub fn report_failure(
    status: &mut ReplicaSetStatus,
    failure: Option<(&str, String)>,
    now: SystemTime,
) {
    match failure {
        None => conditions::remove(&mut status.conditions, REPLICA_FAILURE),
        // The first failure stays until all is well again, as upstream keeps it.
        Some(_) if conditions::find(&status.conditions, REPLICA_FAILURE).is_some() => {}
        Some((reason, message)) => {
            let now = Timestamp::seconds(now);
            let failure = conditions::condition(REPLICA_FAILURE, "True", reason, &message, now);
            status.conditions.push(failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{entry, pod};
    use serde_json::json;

    #[test]
    fn counts_ready_available_and_labelled() {
        let set: Entry<ReplicaSet> = entry(json!({
            "metadata": {"name": "web", "generation": 7},
            "spec": {"minReadySeconds": 10, "template": {"metadata": {"labels": {"app": "web", "v": "2"}}}}
        }));
        let member = |ready: Option<&str>, v: &str| {
            let mut json = json!({"metadata": {"name": "p", "labels": {"app": "web", "v": v}}, "status": {"phase": "Running"}});
            if let Some(since) = ready {
                json["status"]["conditions"] =
                    json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]);
            }
            pod(json)
        };
        let pods = [
            member(None, "1"),
            member(Some("2024-01-01T00:00:00Z"), "2"),
            member(Some("2024-01-01T00:00:15Z"), "2"),
        ];
        let now = Timestamp::parse("2024-01-01T00:00:18Z").expect("parses").system_time();
        assert_eq!(
            observed(&set, &pods, now),
            ReplicaSetStatus {
                replicas: 3,
                fully_labeled_replicas: 2,
                ready_replicas: 2,
                available_replicas: 1,
                observed_generation: 7,
                conditions: vec![],
            }
        );
        assert_eq!(next_availability(&set, &pods, now), Some(Duration::from_secs(7)));
    }

    #[test]
    fn failures_come_and_go() {
        let mut status = ReplicaSetStatus::default();
        let now = SystemTime::UNIX_EPOCH;
        report_failure(&mut status, Some(("FailedCreate", "quota".into())), now);
        report_failure(&mut status, Some(("FailedCreate", "another".into())), now);
        assert_eq!(status.conditions.len(), 1);
        assert_eq!(status.conditions[0].message, "quota");
        report_failure(&mut status, None, now);
        assert_eq!(status.conditions, []);
    }
}

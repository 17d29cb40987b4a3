//! Which pods go first when there are too many: upstream's `ActivePodsWithRanks`. Pure.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::SystemTime;

use skiff_proto::Timestamp;

use crate::caches::pod::{Phase, Pod, is_active};

/// Sorts so that the pods to remove first come first. `related` are the pods of all sets
/// with the same controller: a node that has several of them is relieved first.
pub fn first_to_go(mut pods: Vec<Pod>, related: &[Pod], now: SystemTime) -> Vec<Pod> {
    let mut per_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| is_active(pod)) {
        *per_node.entry(&pod.value.node_name).or_default() += 1;
    }
    let neighbours = |pod: &Pod| per_node.get(&*pod.value.node_name).copied().unwrap_or(0);
    pods.sort_by(|a, b| {
        unassigned_first(a, b)
            .then_with(|| progress(a).cmp(&progress(b)))
            .then_with(|| a.value.ready.cmp(&b.value.ready))
            .then_with(|| a.value.deletion_cost.cmp(&b.value.deletion_cost))
            .then_with(|| neighbours(b).cmp(&neighbours(a)))
            .then_with(|| ready_for_less_time_first(a, b, now))
            .then_with(|| b.value.restarts.cmp(&a.value.restarts))
            .then_with(|| newer_first(a, b, created(a), created(b), now))
    });
    pods
}

fn unassigned_first(a: &Pod, b: &Pod) -> Ordering {
    a.value.node_name.is_empty().cmp(&b.value.node_name.is_empty()).reverse()
}

fn progress(pod: &Pod) -> u8 {
    match pod.value.phase {
        Phase::Pending => 0,
        Phase::Unknown => 1,
        Phase::Running | Phase::Succeeded | Phase::Failed => 2,
    }
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.object.index.metadata.creation_timestamp
}

fn ready_for_less_time_first(a: &Pod, b: &Pod, now: SystemTime) -> Ordering {
    if !(a.value.ready && b.value.ready) {
        return Ordering::Equal;
    }
    newer_first(a, b, a.value.ready_since, b.value.ready_since, now)
}

/// Newer goes first, but ages of the same order of magnitude count as equal and the uid
/// decides: otherwise a scale-down would always undo the last scale-up.
fn newer_first(
    a: &Pod,
    b: &Pod,
    since_a: Option<Timestamp>,
    since_b: Option<Timestamp>,
    now: SystemTime,
) -> Ordering {
    if since_a == since_b {
        return Ordering::Equal;
    }
    let (Some(since_a), Some(since_b)) = (since_a, since_b) else {
        // The unknown one counts as newest.
        return since_a.is_some().cmp(&since_b.is_some());
    };
    magnitude(since_a, now)
        .cmp(&magnitude(since_b, now))
        .then_with(|| a.object.uid().cmp(b.object.uid()))
}

/// The binary logarithm of an age in nanoseconds, -1 for none.
fn magnitude(since: Timestamp, now: SystemTime) -> i64 {
    since.elapsed_at(now).as_nanos().checked_ilog2().map_or(-1, i64::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use serde_json::{Value, json};

    const NOW: i64 = 1_704_067_200;

    fn at(ago: i64) -> String {
        Timestamp::from_unix(NOW - ago).expect("valid").to_string()
    }

    fn running(name: &str, patch: Value) -> Pod {
        let mut json = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": at(1000)},
            "spec": {"nodeName": format!("node-{name}")},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": at(1000)}]}
        });
        merge(&mut json, &patch);
        pod(json)
    }

    fn merge(into: &mut Value, patch: &Value) {
        match (into, patch) {
            (Value::Object(into), Value::Object(patch)) => {
                for (key, value) in patch {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, patch) => *into = patch.clone(),
        }
    }

    /// The first of the two goes first, whatever the order they come in.
    #[track_caller]
    fn check(what: &str, first: &Pod, second: &Pod, related: &[Pod]) {
        let now = Timestamp::from_unix(NOW).expect("valid").system_time();
        for pods in [vec![first.clone(), second.clone()], vec![second.clone(), first.clone()]] {
            let order = first_to_go(pods, related, now);
            assert_eq!(order[0].object.name(), first.object.name(), "{what}");
        }
    }

    #[test]
    fn every_rule_of_the_ranking() {
        let plain = running("z", json!({}));
        let ready = |ago: i64| json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at(ago)}]}});
        for (what, patch) in [
            ("unassigned before assigned", json!({"spec": {"nodeName": ""}})),
            ("pending before running", json!({"status": {"phase": "Pending"}})),
            ("unknown before running", json!({"status": {"phase": "Unknown"}})),
            ("not ready before ready", json!({"status": {"conditions": []}})),
            (
                "low deletion cost first",
                json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-1"}}}),
            ),
            ("ready for less time first", ready(10)),
            (
                "more restarts first",
                json!({"status": {"containerStatuses": [{"restartCount": 2}]}}),
            ),
            ("younger first", json!({"metadata": {"creationTimestamp": at(10)}})),
            (
                "alike ages: by uid",
                json!({"metadata": {"uid": "a", "creationTimestamp": at(1001)}}),
            ),
        ] {
            check(what, &running("y", patch), &plain, &[]);
        }
    }

    #[test]
    fn earlier_rules_win() {
        let costly = running(
            "a",
            json!({"status": {"phase": "Pending"}, "metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "100"}}}),
        );
        check("phase before cost", &costly, &running("b", json!({})), &[]);
        let cheap_and_old = running(
            "c",
            json!({"metadata": {"creationTimestamp": at(90000), "annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}}}),
        );
        check("cost before age", &cheap_and_old, &running("d", json!({})), &[]);
    }

    #[test]
    fn a_crowded_node_is_relieved() {
        let alone = running("alone", json!({}));
        let crowded = running("crowded", json!({}));
        let neighbour = running("neighbour", json!({"spec": {"nodeName": "node-crowded"}}));
        let related = [alone.clone(), crowded.clone(), neighbour];
        check("doubled up first", &crowded, &alone, &related);
    }
}

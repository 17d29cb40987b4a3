//! Which taints a node's conditions call for. Pure.

use skiff_proto::model::{Node, Taint};
use skiff_proto::{Condition, Timestamp};

use crate::conditions;

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const NO_SCHEDULE: &str = "NoSchedule";
pub const NO_EXECUTE: &str = "NoExecute";

/// Conditions that are bad when true.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// The node's taints as they should be: those of others stay untouched, ours follow the
/// conditions. `evict`: whether pods are to leave a node that is not ready.
pub fn wanted(node: &Node, conditions: &[Condition], evict: bool, now: Timestamp) -> Vec<Taint> {
    let mut ours: Vec<(&str, &str)> = Vec::new();
    let status = |type_| conditions::find(conditions, type_).map(|c| c.status.as_str());
    match status("Ready") {
        Some("True") => {}
        Some("Unknown") => {
            ours.push((UNREACHABLE, NO_SCHEDULE));
            ours.extend(evict.then_some((UNREACHABLE, NO_EXECUTE)));
        }
        Some(_) => {
            ours.push((NOT_READY, NO_SCHEDULE));
            ours.extend(evict.then_some((NOT_READY, NO_EXECUTE)));
        }
        // A node that has just come: nothing is placed there until it says it is ready.
        None => ours.push((NOT_READY, NO_SCHEDULE)),
    }
    let pressures = PRESSURES.iter().filter(|(type_, _)| status(type_) == Some("True"));
    ours.extend(pressures.map(|(_, taint)| (*taint, NO_SCHEDULE)));
    if node.spec.unschedulable {
        ours.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let mut taints: Vec<Taint> = Vec::new();
    for taint in &node.spec.taints {
        let known = ours.iter().position(|(k, e)| taint.key == *k && taint.effect == *e);
        match known {
            Some(at) => {
                ours.remove(at);
                taints.push(taint.clone());
            }
            None if is_managed(taint) => {}
            None => taints.push(taint.clone()),
        }
    }
    taints.extend(ours.into_iter().map(|(key, effect)| Taint {
        key: key.into(),
        effect: effect.into(),
        // Tolerations count from here.
        time_added: (effect == NO_EXECUTE).then_some(now),
        ..Taint::default()
    }));
    taints
}

fn is_managed(taint: &Taint) -> bool {
    match taint.effect.as_str() {
        NO_EXECUTE => [NOT_READY, UNREACHABLE].contains(&&*taint.key),
        NO_SCHEDULE => {
            [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&&*taint.key)
                || PRESSURES.iter().any(|(_, key)| taint.key == *key)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(node: Value, evict: bool, expected: &[&str]) {
        let node: Node = serde_json::from_value(node).expect("a node");
        let now = Timestamp::from_unix(100).expect("valid");
        let taints = wanted(&node, &node.status.conditions, evict, now);
        let short = |t: &Taint| {
            let key = t.key.trim_start_matches("node.kubernetes.io/");
            let at = t.time_added.map(|t| format!("@{}", t.unix())).unwrap_or_default();
            format!("{key}:{}{at}", t.effect)
        };
        assert_eq!(taints.iter().map(short).collect::<Vec<_>>(), expected);
    }

    fn ready(status: &str, taints: Value) -> Value {
        json!({"spec": {"taints": taints}, "status": {"conditions": [{"type": "Ready", "status": status}]}})
    }

    #[test]
    fn taints_follow_the_ready_condition() {
        check(ready("True", json!([])), true, &[]);
        check(
            ready("False", json!([])),
            true,
            &["not-ready:NoSchedule", "not-ready:NoExecute@100"],
        );
        check(
            ready("Unknown", json!([])),
            true,
            &["unreachable:NoSchedule", "unreachable:NoExecute@100"],
        );
        check(ready("Unknown", json!([])), false, &["unreachable:NoSchedule"]);
        check(json!({}), true, &["not-ready:NoSchedule"]);
    }

    #[test]
    fn known_taints_keep_their_time_and_foreign_ones_their_place() {
        let before = json!([
            {"key": "team", "value": "red", "effect": "NoExecute"},
            {"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": "1970-01-01T00:00:50Z"},
            {"key": NOT_READY, "effect": "NoSchedule"}
        ]);
        check(
            ready("Unknown", before.clone()),
            true,
            &["team:NoExecute", "unreachable:NoExecute@50", "unreachable:NoSchedule"],
        );
        check(ready("True", before), true, &["team:NoExecute"]);
    }

    #[test]
    fn pressures_and_cordons_keep_new_pods_away() {
        let node = json!({
            "spec": {"unschedulable": true},
            "status": {"conditions": [
                {"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"},
                {"type": "MemoryPressure", "status": "False"}, {"type": "PIDPressure", "status": "Unknown"}]}
        });
        check(node, true, &["disk-pressure:NoSchedule", "unschedulable:NoSchedule"]);
    }
}

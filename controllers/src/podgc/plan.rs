//! When the pods of a missing node go. Pure.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use skiff_proto::{ObjectKey, Timestamp};

use crate::caches::pod::Pod;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The node may yet come back.
    Wait(Duration),
    /// Ask the server whether the node is gone, and then remove these at once.
    Remove(Vec<ObjectKey>),
}

/// `missing_for`: how long the node has not been there.
pub fn plan(missing_for: Duration, quarantine: Duration, pods: &[Pod]) -> Option<Action> {
    if pods.is_empty() {
        return None;
    }
    if missing_for < quarantine {
        return Some(Action::Wait(quarantine - missing_for));
    }
    Some(Action::Remove(pods.iter().map(|pod| pod.object.key()).collect()))
}

/// Tells in a pod's status that it was not its own fault.
pub fn disruption_target(pod: &mut Value, reason: &str, message: &str) {
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": Timestamp::seconds(SystemTime::now()),
    });
    let conditions = &mut pod["status"]["conditions"];
    match conditions.as_array_mut() {
        Some(conditions) => {
            conditions.retain(|c| c["type"] != "DisruptionTarget");
            conditions.push(condition);
        }
        None => *conditions = json!([condition]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn pods_wait_out_the_quarantine() {
        let quarantine = Duration::from_secs(40);
        let pods = [pod(json!({"metadata": {"name": "a", "namespace": "shop"}}))];
        let at = |s| plan(Duration::from_secs(s), quarantine, &pods);
        assert_eq!(at(0), Some(Action::Wait(quarantine)));
        assert_eq!(at(39), Some(Action::Wait(Duration::from_secs(1))));
        assert_eq!(at(40), Some(Action::Remove(vec![ObjectKey::new("shop", "a")])));
        assert_eq!(plan(quarantine, quarantine, &[]), None);
    }
}

//! What to do about one node and its pods. Pure.

use std::time::{Duration, SystemTime};

use skiff_proto::model::{Node, Taint};
use skiff_proto::{Condition, ObjectKey, Timestamp};

use super::eviction::{Eviction, Since, eviction};
use super::taints::{self, NO_EXECUTE};
use crate::caches::pod::Pod;
use crate::conditions;

pub struct Observed<'a> {
    pub node: &'a Node,
    /// How long until the node counts as silent; zero: it does.
    pub silent_in: Duration,
    /// Whether any other node is ready. When none is, the fault is rather here: evicting
    /// everything everywhere would help nobody.
    pub others_ready: bool,
    /// When a taint without `timeAdded` was first seen.
    pub first_seen: &'a dyn Fn(&Taint) -> SystemTime,
    pub now: SystemTime,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    SetConditions(Vec<Condition>),
    SetTaints(Vec<Taint>),
    MarkPodNotReady(ObjectKey),
    EvictPod(ObjectKey),
}

#[derive(Debug, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub recheck: Option<Duration>,
}

/// What a kubelet reports; all unknown when it falls silent.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// `pods` are those of the node, asked for only when they matter.
pub fn plan(observed: &Observed<'_>, pods: impl FnOnce() -> Vec<Pod>) -> Plan {
    let node = observed.node;
    let now = Timestamp::seconds(observed.now);
    let mut actions = Vec::new();
    let silent = observed.silent_in.is_zero();
    let mut conditions = node.status.conditions.clone();
    if silent {
        fall_silent(&mut conditions, now);
        if conditions != node.status.conditions {
            actions.push(Action::SetConditions(conditions.clone()));
        }
    }
    let taints = taints::wanted(node, &conditions, observed.others_ready, now);
    if taints != node.spec.taints {
        actions.push(Action::SetTaints(taints.clone()));
    }
    let unknown = conditions::find(&conditions, "Ready").is_some_and(|c| c.status == "Unknown");
    let evicting = taints.iter().any(|taint| taint.effect == NO_EXECUTE);
    // A silent node is looked at again when its Lease or status speaks.
    let mut recheck = (!silent).then_some(observed.silent_in);
    if unknown || evicting {
        let mut dated: Vec<Since<'_>> = Vec::new();
        for taint in &taints {
            let added = taint.time_added.map(|at| at.system_time());
            let since = added.unwrap_or_else(|| (observed.first_seen)(taint));
            dated.push(Since { taint, since });
        }
        for pod in pods() {
            let next = judge(&pod, unknown, &dated, observed.now, &mut actions);
            recheck = recheck.into_iter().chain(next).min();
        }
    }
    Plan { actions, recheck }
}

fn judge(
    pod: &Pod,
    unknown: bool,
    taints: &[Since<'_>],
    now: SystemTime,
    actions: &mut Vec<Action>,
) -> Option<Duration> {
    if unknown && pod.value.ready {
        actions.push(Action::MarkPodNotReady(pod.object.key()));
    }
    if pod.object.is_terminating() {
        return None;
    }
    match eviction(taints, &pod.value.tolerations, now) {
        Eviction::Never => None,
        Eviction::After(left) => Some(left),
        Eviction::Now => {
            actions.push(Action::EvictPod(pod.object.key()));
            None
        }
    }
}

fn fall_silent(conditions: &mut Vec<Condition>, now: Timestamp) {
    for type_ in REPORTED {
        let silent =
            |reason, message| conditions::condition(type_, "Unknown", reason, message, now);
        match conditions.iter_mut().find(|c| c.type_ == type_) {
            None => {
                conditions
                    .push(silent("NodeStatusNeverUpdated", "Kubelet never posted node status."));
            }
            Some(known) if known.status == "Unknown" => {}
            Some(known) => {
                let heartbeat = known.last_heartbeat_time;
                *known = silent("NodeStatusUnknown", "Kubelet stopped posting node status.");
                known.last_heartbeat_time = heartbeat;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use serde_json::{Value, json};

    const NOW: u64 = 1_704_067_200;

    fn node(ready: &str, taints: Value) -> Node {
        let condition = |type_: &str, status: &str| json!({"type": type_, "status": status, "lastHeartbeatTime": "2023-12-31T23:59:00Z"});
        serde_json::from_value(json!({
            "spec": {"taints": taints},
            "status": {"conditions": [
                condition("MemoryPressure", "False"), condition("DiskPressure", "False"),
                condition("PIDPressure", "False"), condition("Ready", ready)]}
        }))
        .expect("a node")
    }

    fn run(node: &Node, silent_in: u64, others_ready: bool, pods: Vec<Pod>) -> Plan {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        let observed = Observed {
            node,
            silent_in: Duration::from_secs(silent_in),
            others_ready,
            first_seen: &|_| now,
            now,
        };
        plan(&observed, || pods)
    }

    fn tenant(name: &str, tolerations: Value) -> Pod {
        pod(json!({
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"nodeName": "n1", "tolerations": tolerations},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}
        }))
    }

    #[test]
    fn a_healthy_node_is_only_looked_at_again() {
        let plan = run(&node("True", json!([])), 15, true, vec![tenant("a", json!([]))]);
        assert_eq!(plan, Plan { actions: vec![], recheck: Some(Duration::from_secs(15)) });
    }

    #[test]
    fn a_silent_node_is_unknown_tainted_and_its_pods_not_ready() {
        let stays = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]);
        let pods = vec![tenant("stays", stays), tenant("leaves", json!([]))];
        let Plan { actions, recheck } = run(&node("True", json!([])), 0, true, pods);
        let [Action::SetConditions(conditions), Action::SetTaints(taints), rest @ ..] =
            &actions[..]
        else {
            panic!("{actions:?}")
        };
        let ready = conditions::find(conditions, "Ready").expect("there");
        assert_eq!(
            serde_json::to_value(ready).expect("json"),
            json!({"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
                "lastHeartbeatTime": "2023-12-31T23:59:00Z", "lastTransitionTime": "2024-01-01T00:00:00Z"})
        );
        assert!(conditions.iter().all(|c| c.status == "Unknown"), "{conditions:?}");
        assert_eq!(taints.len(), 2);
        let key = |name: &str| ObjectKey::new("shop", name);
        assert_eq!(
            rest,
            [
                Action::MarkPodNotReady(key("stays")),
                Action::MarkPodNotReady(key("leaves")),
                Action::EvictPod(key("leaves"))
            ]
        );
        assert_eq!(recheck, Some(Duration::from_secs(300)), "when the tolerated time is over");
    }

    #[test]
    fn when_no_node_is_ready_nothing_is_evicted() {
        let plan = run(&node("True", json!([])), 0, false, vec![tenant("a", json!([]))]);
        assert!(
            !plan.actions.iter().any(|a| matches!(a, Action::EvictPod(_))),
            "{:?}",
            plan.actions
        );
        assert_eq!(plan.recheck, None);
    }

    #[test]
    fn a_node_that_returns_is_freed_of_its_taints() {
        let taints = json!([
            {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"},
            {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": "2023-12-31T23:00:00Z"}]);
        let plan = run(&node("True", taints), 40, true, vec![tenant("a", json!([]))]);
        assert_eq!(plan.actions, [Action::SetTaints(vec![])]);
    }

    #[test]
    fn a_users_taint_evicts_from_a_healthy_node() {
        let taints = json!([{"key": "maintenance", "effect": "NoExecute"}]);
        let stays = json!([{"key": "maintenance", "operator": "Exists", "tolerationSeconds": 10}]);
        let plan =
            run(&node("True", taints), 40, true, vec![tenant("a", json!([])), tenant("b", stays)]);
        assert_eq!(plan.actions, [Action::EvictPod(ObjectKey::new("shop", "a"))]);
        assert_eq!(plan.recheck, Some(Duration::from_secs(10)));
    }

    #[test]
    fn a_node_that_never_spoke_says_so() {
        let Plan { actions, .. } = run(&Node::default(), 0, true, vec![]);
        let [Action::SetConditions(conditions), ..] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(conditions[0].reason, "NodeStatusNeverUpdated");
    }
}

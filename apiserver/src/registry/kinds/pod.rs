//! Pods.

use serde_json::{Value, json};

use crate::registry::defaults::pod::pod as defaults;
use crate::registry::strategy::{Rules, put};
use crate::registry::tables::pod::POD;
use crate::registry::validation::{list, number, pod, text};
use crate::registry::{Kind, lookup};

pub static POD_KIND: Kind = Kind {
    resource: skiff_proto::resource::PODS,
    kind: "Pod",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    namespaced: true,
    subresources: &["status", "binding", "eviction", "log", "exec"],
    fields: &POD,
    defaults,
    strategy: &RULES,
    selectable: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ],
};

static RULES: Rules = Rules {
    has_status: true,
    prepare_create,
    validate: pod::validate,
    validate_change: pod::validate_change,
    validate_status: pod::validate_status,
    grace_seconds,
    ..Rules::NAMESPACED
};

fn prepare_create(pod: &mut Value) {
    let qos = qos_class(pod);
    put(pod, "status", Some(json!({"phase": "Pending", "qosClass": qos})));
}

/// A pod that no node has, or that is done, goes at once; a negative time counts as one second.
fn grace_seconds(pod: &Value, asked: Option<i64>) -> Option<i64> {
    let own = || number(&pod["spec"], "terminationGracePeriodSeconds");
    let scheduled = !text(&pod["spec"], "nodeName").is_empty();
    let phase = lookup(pod, "status.phase").and_then(Value::as_str).unwrap_or("");
    if !scheduled || matches!(phase, "Succeeded" | "Failed") {
        return None;
    }
    match asked.or_else(own).unwrap_or(0) {
        0 => None,
        seconds if seconds < 0 => Some(1),
        seconds => Some(seconds),
    }
}

/// Guaranteed: every container has limits of both cpu and memory, and requests the same.
/// BestEffort: none asks for anything.
fn qos_class(pod: &Value) -> &'static str {
    let spec = &pod["spec"];
    let containers = list(spec, "initContainers").iter().chain(list(spec, "containers"));
    let (mut any, mut guaranteed, mut count) = (false, true, 0);
    for container in containers {
        count += 1;
        let resources = &container["resources"];
        for name in ["cpu", "memory"] {
            let request = text(&resources["requests"], name);
            let limit = text(&resources["limits"], name);
            let set = |quantity: &str| !matches!(quantity, "" | "0");
            any |= set(request) || set(limit);
            guaranteed &= set(limit) && (request == limit || request.is_empty());
        }
    }
    match (any, guaranteed && count > 0) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace() {
        let pod = |node: &str, phase: &str| {
            json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": 30},
                   "status": {"phase": phase}})
        };
        for (pod, asked, expected) in [
            (pod("n1", "Running"), None, Some(30)),
            (pod("n1", "Running"), Some(5), Some(5)),
            (pod("n1", "Running"), Some(0), None),
            (pod("n1", "Running"), Some(-1), Some(1)),
            (pod("", "Pending"), None, None),
            (pod("n1", "Succeeded"), None, None),
            (pod("n1", "Failed"), Some(10), None),
        ] {
            assert_eq!(grace_seconds(&pod, asked), expected, "{pod} {asked:?}");
        }
    }

    #[test]
    fn quality_of_service() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        for (resources, expected) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}),
                "Burstable",
            ),
        ] {
            assert_eq!(qos_class(&pod(resources.clone())), expected, "{resources}");
        }
    }
}

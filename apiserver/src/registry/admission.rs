//! What upstream's admission plugins that are on by default do to a new pod:
//! DefaultTolerationSeconds, ServiceAccount and Priority.

use serde_json::{Map, Value, json};
use skiff_proto::{Status, resource};

use super::defaults::pod::same_service_account;

/// How long a pod stays bound to a node that is not ready or cannot be reached.
const TOLERATION_SECONDS: i64 = 300;

/// The priority classes every cluster has.
const BUILT_IN_PRIORITIES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// Completes a pod that is about to be created, after defaulting and before validation.
pub fn admit_pod(pod: &mut Value) -> Result<(), Status> {
    let name = super::lookup(pod, "metadata.name").and_then(Value::as_str).unwrap_or("").to_owned();
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    tolerate_lost_nodes(spec);
    super::defaults::text_or(spec, "serviceAccountName", "default");
    same_service_account(spec);
    prioritise(spec).map_err(|why| Status::forbidden(&resource::PODS, &name, &why))
}

fn tolerate_lost_nodes(spec: &mut Map<String, Value>) {
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Some(tolerations) = tolerations.as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = tolerations.iter().any(|toleration| {
            let text = |field| toleration.get(field).and_then(Value::as_str).unwrap_or("");
            ["", key].contains(&text("key")) && ["", "NoExecute"].contains(&text("effect"))
        });
        if !tolerated {
            tolerations.push(json!({
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": TOLERATION_SECONDS,
            }));
        }
    }
}

fn prioritise(spec: &mut Map<String, Value>) -> Result<(), String> {
    let class = spec.get("priorityClassName").and_then(Value::as_str).unwrap_or("");
    let priority = match class {
        "" => 0,
        class => match BUILT_IN_PRIORITIES.iter().find(|(name, _)| *name == class) {
            Some((_, priority)) => *priority,
            None => return Err(format!("no PriorityClass with name {class} was found")),
        },
    };
    if let Some(given) = spec.get("priority").and_then(Value::as_i64)
        && given != priority
    {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
        ));
    }
    spec.insert("priority".to_owned(), json!(priority));
    spec.entry("preemptionPolicy").or_insert_with(|| json!("PreemptLowerPriority"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completes_a_plain_pod() {
        let mut pod = json!({"metadata": {"name": "web"}, "spec": {}});
        admit_pod(&mut pod).expect("admitted");
        assert_eq!(
            pod["spec"],
            json!({
                "serviceAccount": "default",
                "serviceAccountName": "default",
                "priority": 0,
                "preemptionPolicy": "PreemptLowerPriority",
                "tolerations": [
                    {"key": "node.kubernetes.io/not-ready", "operator": "Exists",
                     "effect": "NoExecute", "tolerationSeconds": 300},
                    {"key": "node.kubernetes.io/unreachable", "operator": "Exists",
                     "effect": "NoExecute", "tolerationSeconds": 300},
                ],
            })
        );
    }

    #[test]
    fn keeps_what_the_pod_says() {
        let mut pod = json!({"metadata": {"name": "web"}, "spec": {
            "serviceAccountName": "builder",
            "priorityClassName": "system-node-critical",
            "tolerations": [{"operator": "Exists"}],
        }});
        admit_pod(&mut pod).expect("admitted");
        assert_eq!(pod["spec"]["tolerations"], json!([{"operator": "Exists"}]));
        assert_eq!(pod["spec"]["serviceAccount"], json!("builder"));
        assert_eq!(pod["spec"]["priority"], json!(2_000_001_000));
    }

    #[test]
    fn refuses_unknown_classes_and_own_numbers() {
        let mut pod = json!({"metadata": {"name": "web"}, "spec": {"priorityClassName": "vip"}});
        let error = admit_pod(&mut pod).expect_err("refused");
        assert_eq!(
            error.message,
            "pods \"web\" is forbidden: no PriorityClass with name vip was found"
        );
        let mut pod = json!({"metadata": {"name": "web"}, "spec": {"priority": 7}});
        assert_eq!(admit_pod(&mut pod).map_err(|e| e.code), Err(403));
    }
}

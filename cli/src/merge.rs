//! The three-way merge of `apply`: from what was applied last, and what is to be now, a
//! strategic merge patch for the server. Fields that only others set stay as they are.
//!
//! A field that was applied before and is missing now is removed; a list element, found by
//! its merge key, too. Merge keys are Kubernetes' own (`patchMergeKey` of the API types).

use serde_json::{Map, Value, json};

/// Where the last applied manifest is kept.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The merge key of a list field, by its name and the name of the object around it.
/// `None`: the list is replaced as a whole.
fn merge_key(parent: &str, field: &str) -> Option<&'static str> {
    Some(match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "env"
        | "volumes"
        | "imagePullSecrets" => "name",
        "secrets" => "name",
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        "hostAliases" => "ip",
        "topologySpreadConstraints" => "topologyKey",
        "conditions" => "type",
        "ownerReferences" => "uid",
        // A container's ports and a service's have different keys.
        "ports" if parent == "spec" => "port",
        "ports" => "containerPort",
        _ => return None,
    })
}

/// The patch that leads from `last` (the last applied manifest, or null) to `new`.
pub fn three_way(last: &Value, new: &Value) -> Value {
    let mut patch = object(last, new, "");
    patch.remove("status");
    Value::Object(patch)
}

fn object(last: &Value, new: &Value, name: &str) -> Map<String, Value> {
    let mut patch = Map::new();
    let empty = Map::new();
    let new = new.as_object().unwrap_or(&empty);
    for (key, value) in new {
        let before = last.get(key).unwrap_or(&Value::Null);
        patch.insert(key.clone(), field(before, value, name, key));
    }
    for key in last.as_object().unwrap_or(&empty).keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    patch
}

fn field(last: &Value, new: &Value, parent: &str, name: &str) -> Value {
    match (new, merge_key(parent, name)) {
        (Value::Object(_), _) => Value::Object(object(last, new, name)),
        (Value::Array(elements), Some(key)) if elements.iter().all(|e| e.get(key).is_some()) => {
            Value::Array(list(last, elements, key))
        }
        _ => new.clone(),
    }
}

fn list(last: &Value, new: &[Value], key: &str) -> Vec<Value> {
    let empty = Vec::new();
    let last = last.as_array().unwrap_or(&empty);
    let same = |a: &Value, b: &Value| a.get(key) == b.get(key);
    let mut patch: Vec<Value> = new
        .iter()
        .map(|element| {
            let before = last.iter().find(|l| same(l, element)).unwrap_or(&Value::Null);
            Value::Object(object(before, element, ""))
        })
        .collect();
    let gone = last.iter().filter(|l| l.get(key).is_some() && !new.iter().any(|n| same(l, n)));
    patch.extend(gone.map(|l| json!({"$patch": "delete", key: l[key]})));
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_applied_and_is_missing_now_is_removed() {
        let last = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"replicas": 3}});
        let new = json!({"metadata": {"labels": {"a": "1"}}, "spec": {}});
        assert_eq!(
            three_way(&last, &new),
            json!({"metadata": {"labels": {"a": "1", "b": null}}, "spec": {"replicas": null}})
        );
    }

    #[test]
    fn list_elements_are_found_by_their_key() {
        let last = json!({"spec": {"containers": [{"name": "a", "image": "x", "env": [{"name": "E", "value": "1"}]}, {"name": "b"}]}});
        let new = json!({"spec": {"containers": [{"name": "a", "image": "y"}]}});
        assert_eq!(
            three_way(&last, &new),
            json!({"spec": {"containers": [
                {"name": "a", "image": "y", "env": null},
                {"$patch": "delete", "name": "b"}]}})
        );
    }

    #[test]
    fn lists_without_a_key_are_replaced() {
        let last = json!({"spec": {"args": ["a", "b"]}});
        let new = json!({"spec": {"args": ["c"]}});
        assert_eq!(three_way(&last, &new), json!({"spec": {"args": ["c"]}}));
    }

    #[test]
    fn ports_of_services_and_containers_have_their_own_keys() {
        let last = json!({"spec": {"ports": [{"port": 80}, {"port": 443}]}});
        let new = json!({"spec": {"ports": [{"port": 80}]}});
        assert_eq!(
            three_way(&last, &new),
            json!({"spec": {"ports": [{"port": 80}, {"$patch": "delete", "port": 443}]}})
        );
    }
}

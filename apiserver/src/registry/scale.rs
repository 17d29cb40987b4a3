//! The `scale` subresource: a workload seen as its number of replicas.

use serde_json::{Value, json};
use skiff_client::FieldValidation;
use skiff_proto::status::{Cause, Details, reason};
use skiff_proto::{LabelSelector, Status};

use super::decode::{Identity, decode_as};
use super::strategic_merge;
use super::tables::workload::SCALE;
use super::validation::{number, text};

/// The `Scale` of a Deployment or a ReplicaSet.
pub fn of(object: &Value) -> Value {
    let mut metadata = json!({});
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(key) {
            metadata[key] = value.clone();
        }
    }
    let mut status = json!({"replicas": number(&object["status"], "replicas").unwrap_or(0)});
    let selector: Option<LabelSelector> =
        serde_json::from_value(object["spec"]["selector"].clone()).ok();
    if let Some(selector) = selector.and_then(|s| s.compile().ok()).filter(|s| !s.is_empty()) {
        status["selector"] = json!(selector.to_string());
    }
    json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": metadata,
        "spec": {"replicas": number(&object["spec"], "replicas").unwrap_or(0)},
        "status": status,
    })
}

/// Reads a client's `Scale`. Its resourceVersion, if any, is for the caller to compare.
pub fn decode(json: &[u8], validation: FieldValidation) -> Result<(Value, Vec<String>), Status> {
    let identity = Identity { group: "autoscaling", version: "v1", kind: "Scale" };
    decode_as(identity, &SCALE, json, validation)
}

/// A strategic merge patch of a `Scale`.
pub fn strategic_merge(scale: &mut Value, patch: &Value) -> Result<(), Status> {
    strategic_merge::apply(&SCALE, scale, patch)
        .map_err(|error| Status::bad_request(error.to_string()))
}

/// Sets the replicas of `object` to those of `scale`. An absent number means none, as zero.
pub fn apply(object: &mut Value, scale: &Value) -> Result<(), Status> {
    let replicas = number(&scale["spec"], "replicas").unwrap_or(0);
    if replicas < 0 {
        let name = text(&scale["metadata"], "name");
        let message = format!("Invalid value: {replicas}: must be greater than or equal to 0");
        let mut status = Status::new(
            reason::INVALID,
            format!("Scale.autoscaling {name:?} is invalid: spec.replicas: {message}"),
        );
        status.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: "autoscaling".to_owned(),
            kind: "Scale".to_owned(),
            causes: vec![Cause {
                reason: "FieldValueInvalid".to_owned(),
                message,
                field: "spec.replicas".to_owned(),
            }],
            ..Details::default()
        }));
        return Err(status);
    }
    object["spec"]["replicas"] = json!(replicas);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_seen_as_its_scale() {
        let mut deployment = json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7",
                         "labels": {"a": "b"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}},
            "status": {"replicas": 2},
        });
        let scale = of(&deployment);
        assert_eq!(
            scale,
            json!({
                "apiVersion": "autoscaling/v1", "kind": "Scale",
                "metadata": {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7"},
                "spec": {"replicas": 3},
                "status": {"replicas": 2, "selector": "app=web"},
            })
        );
        let (read, _) =
            decode(scale.to_string().as_bytes(), FieldValidation::Strict).expect("reads");
        assert_eq!(read, scale);
        apply(&mut deployment, &json!({"spec": {"replicas": 5}})).expect("scales");
        assert_eq!(deployment["spec"]["replicas"], 5);
    }

    #[test]
    fn not_below_zero() {
        let scale = json!({"metadata": {"name": "web"}, "spec": {"replicas": -1}});
        let error = apply(&mut json!({"spec": {}}), &scale).expect_err("refused");
        assert_eq!(
            error.message,
            "Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
        );
    }
}

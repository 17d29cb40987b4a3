//! `pods/NAME/binding`: how a scheduler gives a pod to a node.

use serde_json::{Map, Value, json};
use skiff_client::FieldValidation;
use skiff_proto::status::{Cause, Details, reason};
use skiff_proto::{Resource, Status, Timestamp};

use super::decode::{Identity, decode_as};
use super::tables::pod::BINDING;
use super::validation::text;

const RESOURCE: Resource = Resource::new("", "v1", "pods/binding");

/// What a scheduler asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    pub node: String,
    /// Empty: any pod of that name.
    pub uid: String,
    annotations: Map<String, Value>,
}

impl Binding {
    /// Reads and validates the body of the request.
    pub fn decode(json: &[u8], validation: FieldValidation) -> Result<Self, Status> {
        let identity = Identity { group: "", version: "v1", kind: "Binding" };
        let (body, _) = decode_as(identity, &BINDING, json, validation)?;
        let (metadata, target) = (&body["metadata"], &body["target"]);
        let kind = text(target, "kind");
        if !matches!(kind, "" | "Node") {
            let message =
                format!("Unsupported value: {kind:?}: supported values: \"Node\", \"<empty>\"");
            return Err(invalid(metadata, "target.kind", "FieldValueNotSupported", message));
        }
        if text(target, "name").is_empty() {
            let message = "Required value".to_owned();
            return Err(invalid(metadata, "target.name", "FieldValueRequired", message));
        }
        Ok(Self {
            node: text(target, "name").to_owned(),
            uid: text(metadata, "uid").to_owned(),
            annotations: metadata
                .get("annotations")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default(),
        })
    }

    /// Gives `pod` to the node; a conflict if it has one, ends, or is gated.
    pub fn apply(&self, pod: &mut Value, now: Timestamp) -> Result<(), Status> {
        let name = text(&pod["metadata"], "name").to_owned();
        let conflict = |why: String| Err(Status::conflict(&RESOURCE, &name, &why));
        let uid = text(&pod["metadata"], "uid");
        if !self.uid.is_empty() && self.uid != uid {
            return conflict(format!(
                "Precondition failed: UID in precondition: {}, UID in object meta: {uid}",
                self.uid
            ));
        }
        if pod["metadata"].get("deletionTimestamp").is_some() {
            return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
        }
        let bound = text(&pod["spec"], "nodeName");
        if !bound.is_empty() {
            return conflict(format!("pod {name} is already assigned to node {bound:?}"));
        }
        if !super::validation::list(&pod["spec"], "schedulingGates").is_empty() {
            return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
        }
        pod["spec"]["nodeName"] = json!(self.node);
        for (key, value) in &self.annotations {
            pod["metadata"]["annotations"][key] = value.clone();
        }
        set_scheduled(&mut pod["status"], now);
        Ok(())
    }
}

fn invalid(metadata: &Value, field: &str, cause: &str, message: String) -> Status {
    let name = text(metadata, "name");
    let mut status =
        Status::new(reason::INVALID, format!("Binding {name:?} is invalid: {field}: {message}"));
    status.details = Some(Box::new(Details {
        name: name.to_owned(),
        kind: "Binding".to_owned(),
        causes: vec![Cause { reason: cause.to_owned(), message, field: field.to_owned() }],
        ..Details::default()
    }));
    status
}

fn set_scheduled(status: &mut Value, now: Timestamp) {
    if !status.is_object() {
        *status = json!({});
    }
    let condition =
        json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": now.to_string()});
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|c| c["type"] == "PodScheduled") {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::parse("2024-05-01T10:00:00Z").expect("a time")
    }

    fn binding() -> Binding {
        let body = br#"{"metadata":{"name":"web"},"target":{"kind":"Node","name":"n1"}}"#;
        Binding::decode(body, FieldValidation::Strict).expect("decodes")
    }

    #[test]
    fn binds_once() {
        let mut pod = json!({"metadata": {"name": "web"}, "spec": {}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"},
        ]}});
        binding().apply(&mut pod, now()).expect("binds");
        assert_eq!(pod["spec"]["nodeName"], "n1");
        assert_eq!(
            pod["status"]["conditions"],
            json!([{"type": "PodScheduled", "status": "True",
                    "lastTransitionTime": "2024-05-01T10:00:00Z"}])
        );
        let error = binding().apply(&mut pod, now()).expect_err("bound already");
        assert_eq!(
            (error.code, error.message.as_str()),
            (
                409,
                "Operation cannot be fulfilled on pods/binding \"web\": pod web is already assigned to node \"n1\""
            )
        );
    }

    #[test]
    fn leaves_pods_that_end_or_wait() {
        for pod in [
            json!({"metadata": {"name": "web", "deletionTimestamp": "2024-05-01T10:00:00Z"}, "spec": {}}),
            json!({"metadata": {"name": "web"}, "spec": {"schedulingGates": [{"name": "quota"}]}}),
        ] {
            let mut changed = pod.clone();
            assert!(binding().apply(&mut changed, now()).is_err_and(|e| e.is_conflict()));
            assert_eq!(changed, pod);
        }
    }

    #[test]
    fn needs_a_node() {
        for (body, expected) in [
            ("{\"target\":{}}", "Binding \"\" is invalid: target.name: Required value"),
            (
                "{\"target\":{\"kind\":\"Rack\",\"name\":\"n1\"}}",
                "Binding \"\" is invalid: target.kind: Unsupported value: \"Rack\": supported values: \"Node\", \"<empty>\"",
            ),
        ] {
            let error = Binding::decode(body.as_bytes(), FieldValidation::Strict).expect_err(body);
            assert_eq!(error.message, expected);
        }
    }
}

//! What only pods have: binding to a node, and eviction.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};
use skiff_client::{DeleteOptions, Deleted, Propagation, WriteOptions};
use skiff_proto::{Object, Status, Timestamp};

use super::service::Claims;
use super::stored::{Next, Place};
use super::update::wrong_uid;
use super::{Core, meta};

impl Core {
    /// `pods/NAME/binding`: the scheduler's decision. Answers with the pod.
    pub(super) async fn bind(
        &self,
        place: Place<'_>,
        json: &[u8],
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let body = decode(json)?;
        let changed = self.change(place, options.dry_run, |seen| {
            let uid = meta::text(&body, "uid");
            if !uid.is_empty() && uid != seen.entry.object.uid() {
                return Err(wrong_uid(place.kind, place.name, uid, seen.entry.object.uid()));
            }
            let mut pod = seen.value.clone();
            assign_node(place, &mut pod, &body)?;
            Ok(Next::Put(pod, Claims::default()))
        });
        Ok(changed.await?.object)
    }

    /// `pods/NAME/eviction`: a delete that budgets may refuse. Answers with the pod.
    pub(super) async fn evict(
        &self,
        place: Place<'_>,
        json: &[u8],
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let body = decode(json)?;
        let asked = body.get("deleteOptions").cloned().unwrap_or_else(|| json!({}));
        let text = |pointer: &str| {
            asked.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let delete = DeleteOptions {
            grace_period_seconds: asked.get("gracePeriodSeconds").and_then(Value::as_i64),
            propagation: Propagation::Default,
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            dry_run: options.dry_run || asked.get("dryRun") == Some(&json!(["All"])),
        };
        let (Deleted::Gone(pod) | Deleted::Terminating(pod)) = self.delete(place, &delete).await?;
        Ok(pod)
    }
}

/// Puts the pod on the binding's node, unless it has one or must not have one yet.
fn assign_node(place: Place<'_>, pod: &mut Value, binding: &Value) -> Result<(), Status> {
    let target = binding.get("target").unwrap_or(&Value::Null);
    let kind = target.get("kind").and_then(Value::as_str).unwrap_or("");
    let node = target.get("name").and_then(Value::as_str).unwrap_or("");
    if node.is_empty() || !matches!(kind, "" | "Node") {
        return Err(place.kind.invalid(place.name, &[crate::registry::FieldError {
            field: "target.name".into(),
            reason: "FieldValueRequired",
            message: "Required value".into(),
        }]));
    }
    let conflict = |why: &str| {
        let message =
            format!("Operation cannot be fulfilled on pods/binding {:?}: {why}", place.name);
        Status { message, ..Status::conflict(&place.kind.resource, place.name, why) }
    };
    let name = place.name;
    if meta::has(pod, "deletionTimestamp") {
        return Err(conflict(&format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let bound = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or("");
    if !bound.is_empty() {
        return Err(conflict(&format!("pod {name} is already assigned to node {bound:?}")));
    }
    let gates = pod.pointer("/spec/schedulingGates").and_then(Value::as_array);
    if gates.is_some_and(|gates| !gates.is_empty()) {
        return Err(conflict(&format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    pod["spec"]["nodeName"] = node.into();
    if let Some(annotations) = meta::of(binding).and_then(|m| m.get("annotations")).and_then(Value::as_object) {
        let metadata = meta::of_mut(pod);
        let own = metadata.entry("annotations").or_insert_with(|| json!({}));
        for (key, value) in annotations {
            own[key] = value.clone();
        }
    }
    let now = Timestamp::seconds(SystemTime::now()).to_string();
    let scheduled =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    if !pod.get("status").is_some_and(Value::is_object) {
        pod["status"] = json!({});
    }
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|c| c.get("type") != Some(&json!("PodScheduled")));
        conditions.push(scheduled);
    }
    Ok(())
}

fn decode(json: &[u8]) -> Result<Value, Status> {
    let body: Value = serde_json::from_slice(json)
        .map_err(|error| Status::bad_request(format!("error decoding the request body: {error}")))?;
    if body.is_object() {
        Ok(body)
    } else {
        Err(Status::bad_request("the request body must be an object"))
    }
}

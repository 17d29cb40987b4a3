//! The scale subresource: how many replicas a workload shall have, in the same shape for all.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use skiff_client::{Patch, WriteOptions};
use skiff_proto::{LabelSelector, Object, Status};

use super::patch::Parsed;
use super::stored::{Next, Place, Seen};
use super::update::settle;
use super::service::Claims;
use super::{Core, meta};

impl Core {
    pub(super) async fn get_scale(&self, place: Place<'_>) -> Result<Arc<Object>, Status> {
        scale_object(&self.read(place).await?.object)
    }

    pub(super) async fn update_scale(
        &self,
        place: Place<'_>,
        json: &[u8],
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let scale: Value = serde_json::from_slice(json)
            .map_err(|e| Status::bad_request(format!("error decoding the Scale: {e}")))?;
        let changed =
            self.change(place, options.dry_run, |seen| set_replicas(place, seen, &scale));
        scale_object(&changed.await?.object)
    }

    pub(super) async fn patch_scale(
        &self,
        place: Place<'_>,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        // A Scale has no lists to merge: a strategic patch means what a merge patch means.
        let patch = match patch {
            Patch::Strategic(json) => Patch::Merge(json.clone()),
            other => other.clone(),
        };
        let patch = Parsed::new(&patch)?;
        let changed = self.change(place, options.dry_run, |seen| {
            let mut scale = scale_value(&seen.value, seen.entry.object.resource_version());
            patch.apply(place.kind, &mut scale)?;
            set_replicas(place, seen, &scale)
        });
        scale_object(&changed.await?.object)
    }
}

fn set_replicas(place: Place<'_>, seen: &Seen, scale: &Value) -> Result<Next, Status> {
    let version = meta::text(scale, "resourceVersion");
    if !version.is_empty() && version != seen.entry.object.resource_version() {
        return Err(Status::modified(&place.kind.resource, place.name));
    }
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    let mut new = seen.value.clone();
    new["spec"]["replicas"] = replicas.into();
    let errors = place.kind.strategy.validate_update(&new, &seen.value);
    if !errors.is_empty() {
        return Err(place.kind.invalid(place.name, &errors));
    }
    if place.kind.strategy.bumps_generation(&new, &seen.value) {
        let generation = meta::number(&seen.value, "generation").unwrap_or(0);
        meta::set(&mut new, "generation", generation + 1);
    }
    Ok(settle(place.kind, new, &seen.value, Claims::default()))
}

fn scale_object(object: &Object) -> Result<Arc<Object>, Status> {
    let value: Value = object.parse().map_err(Status::internal)?;
    let scale = scale_value(&value, object.resource_version());
    let json = Bytes::from(serde_json::to_vec(&scale).map_err(Status::internal)?);
    Object::from_json(json).map(Arc::new).map_err(Status::internal)
}

/// `autoscaling/v1`, as upstream shows a workload's scale.
fn scale_value(object: &Value, resource_version: &str) -> Value {
    let mut metadata = json!({"resourceVersion": resource_version});
    for key in ["name", "namespace", "uid", "creationTimestamp"] {
        metadata[key] = meta::text(object, key).into();
    }
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let mut scale = json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata,
        "spec": {"replicas": number("/spec/replicas")},
        "status": {"replicas": number("/status/replicas")},
    });
    let selector = object.pointer("/spec/selector").cloned().unwrap_or_default();
    if let Ok(selector) = serde_json::from_value::<LabelSelector>(selector)
        && let Ok(selector) = selector.compile()
        && !selector.is_empty()
    {
        scale["status"]["selector"] = selector.to_string().into();
    }
    scale
}

//! The scale subresource: how many replicas a workload shall have, in the same shape for all.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use skiff_client::{Patch, WriteOptions};
use skiff_proto::{Object, Status};

use super::patch::Parsed;
use super::service::Claims;
use super::stored::{Next, Place, Seen};
use super::update::{log_warnings, settle};
use super::{Core, meta};
use crate::registry::scale;

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
        let (scale, warnings) = scale::decode(json, options.field_validation)?;
        log_warnings(place.kind, &warnings);
        let changed = self.change(place, options.dry_run, |seen| set_replicas(place, seen, &scale));
        scale_object(&changed.await?.object)
    }

    pub(super) async fn patch_scale(
        &self,
        place: Place<'_>,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let patch = Parsed::new(patch)?;
        let changed = self.change(place, options.dry_run, |seen| {
            let mut scale = scale::of(&seen.value);
            meta::set(&mut scale, "resourceVersion", seen.entry.object.resource_version());
            match &patch {
                Parsed::Strategic(patch) => scale::strategic_merge(&mut scale, patch)?,
                other => other.apply(place.kind, &mut scale)?,
            }
            let json = serde_json::to_vec(&scale).map_err(Status::internal)?;
            let (scale, _) = scale::decode(&json, options.field_validation)?;
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
    let mut new = seen.value.clone();
    scale::apply(&mut new, scale)?;
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
    let json = serde_json::to_vec(&scale::of(&value)).map_err(Status::internal)?;
    let json = Bytes::from(json);
    Object::from_json(json).map(Arc::new).map_err(Status::internal)
}

//! Replacing objects: the whole, or their status.

use std::sync::Arc;

use serde_json::Value;
use skiff_client::WriteOptions;
use skiff_proto::{Object, Status};

use super::service::{self, Claims, Taken, is_service};
use super::stored::{Next, Place, Seen};
use super::{Core, create, meta};
use crate::registry::{Kind, keep_immutable_meta};

/// Which part of the object a request may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    Main,
    Status,
    /// `namespaces/NAME/finalize`: the namespace's `spec.finalizers` alone.
    Finalize,
}

impl Core {
    pub(super) async fn update(
        &self,
        place: Place<'_>,
        face: Face,
        json: &[u8],
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let (object, warnings) = place.kind.decode(json, options.field_validation)?;
        log_warnings(place.kind, &warnings);
        let taken = self.taken_for(place.kind).await?;
        let mut first = Some(object);
        let changed = self.change(place, options.dry_run, |seen| {
            let new = match first.take() {
                Some(object) => object,
                // Somebody was faster: from the request again.
                None => place.kind.decode(json, options.field_validation)?.0,
            };
            self.replace(place, face, new, seen, &taken)
        });
        Ok(changed.await?.object)
    }

    /// The pure part of an update: what to write for `new` over what was seen.
    pub(super) fn replace(
        &self,
        place: Place<'_>,
        face: Face,
        mut new: Value,
        seen: &Seen,
        taken: &Taken,
    ) -> Result<Next, Status> {
        let (kind, old) = (place.kind, &seen.value);
        create::check_namespace(kind, &mut new, place.namespace)?;
        check_identity(place, &mut new, seen)?;
        let errors = match face {
            Face::Main => {
                kind.apply_defaults(&mut new);
                kind.strategy.prepare_for_update(&mut new, old);
                let claims = self.assign(place, &mut new, old, taken)?;
                if kind.strategy.bumps_generation(&new, old) {
                    let generation = meta::number(old, "generation").unwrap_or(0);
                    meta::set(&mut new, "generation", generation + 1);
                }
                let errors = kind.strategy.validate_update(&new, old);
                if errors.is_empty() {
                    return Ok(settle(kind, new, old, claims));
                }
                errors
            }
            Face::Status => {
                kind.strategy.prepare_for_status_update(&mut new, old);
                kind.strategy.validate_status_update(&new, old)
            }
            Face::Finalize => {
                let mut kept = old.clone();
                kept["spec"]["finalizers"] = new
                    .pointer("/spec/finalizers")
                    .cloned()
                    .unwrap_or_else(|| Value::Array(vec![]));
                new = kept;
                Vec::new()
            }
        };
        if !errors.is_empty() {
            return Err(kind.invalid(place.name, &errors));
        }
        Ok(settle(kind, new, old, Claims::default()))
    }

    fn assign(
        &self,
        place: Place<'_>,
        new: &mut Value,
        old: &Value,
        taken: &Taken,
    ) -> Result<Claims, Status> {
        if !is_service(place.kind) {
            return Ok(Claims::default());
        }
        service::drop_type_dependent(new, old);
        let assigned = self.addresses().assign(new, Some(old), taken);
        assigned.map_err(|refusal| refusal.status(place.kind, place.name))
    }

    /// What a Service must know before it may change.
    pub(super) async fn taken_for(&self, kind: &Kind) -> Result<Taken, Status> {
        if is_service(kind) { self.taken().await } else { Ok(Taken::new()) }
    }
}

/// The request must be about the object it names, in the state it has seen.
fn check_identity(place: Place<'_>, new: &mut Value, seen: &Seen) -> Result<(), Status> {
    let (kind, old) = (place.kind, &seen.value);
    match meta::text(new, "name") {
        "" => meta::set(new, "name", place.name),
        name if name == place.name => {}
        name => {
            return Err(Status::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                place.name
            )));
        }
    }
    let uid = meta::text(new, "uid");
    if !uid.is_empty() && uid != meta::text(old, "uid") {
        return Err(wrong_uid(kind, place.name, uid, meta::text(old, "uid")));
    }
    let version = meta::remove(new, "resourceVersion");
    let version = version.as_ref().and_then(Value::as_str).unwrap_or("");
    if !version.is_empty() && version != seen.entry.object.resource_version() {
        return Err(Status::modified(&kind.resource, place.name));
    }
    keep_immutable_meta(new, old);
    meta::keep(new, old, "managedFields");
    Ok(())
}

/// Upstream's words for a uid that is another object's.
pub fn wrong_uid(kind: &Kind, name: &str, wanted: &str, found: &str) -> Status {
    let why =
        format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}");
    Status::conflict(&kind.resource, name, &why)
}

/// Writes, leaves alone what is the same, or removes what only waited for this change.
pub fn settle(kind: &Kind, new: Value, old: &Value, claims: Claims) -> Next {
    if is_released(kind, &new) {
        return Next::Remove;
    }
    if new == *old { Next::Keep } else { Next::Put(new, claims) }
}

/// Whether nothing holds an object back that was asked to go.
fn is_released(kind: &Kind, object: &Value) -> bool {
    let waits = meta::number(object, "deletionGracePeriodSeconds").unwrap_or(0) > 0;
    let namespace = kind.resource == skiff_proto::resource::NAMESPACES;
    meta::has(object, "deletionTimestamp")
        && !waits
        && meta::finalizers(object).is_empty()
        && !(namespace && meta::spec_finalizers(object))
}

pub fn log_warnings(kind: &Kind, warnings: &[String]) {
    for warning in warnings {
        tracing::debug!(kind = kind.kind, "accepted with a warning: {warning}");
    }
}

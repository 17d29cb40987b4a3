//! Patches: the patch is put on the newest state, and what comes out is an update like any
//! other. A writer who was overtaken starts again from the new state.

use std::sync::Arc;

use serde_json::Value;
use skiff_client::{FieldValidation, Patch, WriteOptions};
use skiff_proto::status::{Cause, Details, reason};
use skiff_proto::{Object, Status};

use super::stored::{Next, Place};
use super::update::Face;
use super::{Core, meta};
use crate::registry::Kind;

/// As upstream: more operations in one JSON patch are refused.
const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;

/// A patch, read once for all tries.
pub enum Parsed {
    Json(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
}

impl Core {
    pub(super) async fn patch(
        &self,
        place: Place<'_>,
        face: Face,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let patch = Parsed::new(patch)?;
        let taken = self.taken_for(place.kind).await?;
        let changed = self.change(place, options.dry_run, |seen| {
            let mut patched = seen.value.clone();
            let version = seen.entry.object.resource_version();
            meta::set(&mut patched, "resourceVersion", version);
            patch.apply(place.kind, &mut patched)?;
            let new = reread(place.kind, &mut patched, &seen.value, options.field_validation)?;
            match new {
                Some(new) => self.replace(place, face, new, seen, &taken),
                None => Ok(Next::Keep),
            }
        });
        Ok(changed.await?.object)
    }
}

/// The patched object as the kind's own decoder sees it; `None` when the patch changed nothing.
fn reread(
    kind: &Kind,
    patched: &mut Value,
    old: &Value,
    validation: FieldValidation,
) -> Result<Option<Value>, Status> {
    let json = serde_json::to_vec(patched).map_err(Status::internal)?;
    meta::remove(patched, "resourceVersion");
    if patched == old {
        return Ok(None);
    }
    let (new, warnings) = kind.decode(&json, validation)?;
    super::update::log_warnings(kind, &warnings);
    Ok(Some(new))
}

impl Parsed {
    pub fn new(patch: &Patch) -> Result<Self, Status> {
        let broken = |error: serde_json::Error| {
            Status::bad_request(format!("error decoding patch: {error}"))
        };
        match patch {
            Patch::Json(json) => {
                let patch: json_patch::Patch = serde_json::from_slice(json).map_err(broken)?;
                if patch.0.len() > MAX_JSON_PATCH_OPERATIONS {
                    let message = format!(
                        "The allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_OPERATIONS}, got {}",
                        patch.0.len()
                    );
                    return Err(Status::new(("RequestEntityTooLarge", 413), message));
                }
                Ok(Self::Json(patch))
            }
            Patch::Merge(json) => Ok(Self::Merge(serde_json::from_slice(json).map_err(broken)?)),
            Patch::Strategic(json) => {
                Ok(Self::Strategic(serde_json::from_slice(json).map_err(broken)?))
            }
        }
    }

    pub fn apply(&self, kind: &Kind, object: &mut Value) -> Result<(), Status> {
        match self {
            Self::Json(patch) => json_patch::patch(object, patch).map_err(|e| unprocessable(&e)),
            Self::Merge(patch) => {
                json_patch::merge(object, patch);
                Ok(())
            }
            Self::Strategic(patch) => kind.strategic_merge(object, patch),
        }?;
        if object.is_object() {
            Ok(())
        } else {
            Err(Status::bad_request("the patch leaves no object behind"))
        }
    }
}

/// Upstream's answer to a JSON patch that does not fit the object.
fn unprocessable(error: &json_patch::PatchError) -> Status {
    let message = "the server rejected our request due to an error in our request";
    let mut status = Status::new(reason::INVALID, message);
    let cause = Cause {
        reason: "UnexpectedServerResponse".into(),
        message: error.to_string(),
        field: String::new(),
    };
    status.details = Some(Box::new(Details { causes: vec![cause], ..Details::default() }));
    status
}

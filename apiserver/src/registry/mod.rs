//! The kinds served: for each its names, its field table and its rules. Pure: JSON in, JSON
//! or errors out. A new kind is one file here and one line in `kinds`.

pub mod admission;
pub mod binding;
pub mod decode;
mod defaults;
pub mod field_table;
mod invalid;
mod kinds;
mod path;
pub mod scale;
mod strategic_merge;
pub mod strategy;
pub mod tables;
mod validation;

use std::borrow::Cow;

use serde_json::Value;
use skiff_client::FieldValidation;
use skiff_proto::{Resource, Status};

pub use field_table::FieldTable;
pub use validation::meta::{keep_immutable_meta, validate_meta, validate_meta_update};

/// Everything the API server knows of one kind.
pub struct Kind {
    pub resource: Resource,
    pub kind: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    /// `status`, `scale`, `binding`, `eviction`, `log`, `exec`.
    pub subresources: &'static [&'static str],
    /// The field table: feeds decoding, defaulting, validation and strategic merge.
    pub fields: &'static FieldTable,
    /// Defaults that depend on other fields; runs after those of the table.
    pub defaults: fn(&mut Value),
    pub strategy: &'static dyn Strategy,
    /// Field selector paths beyond `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [&'static str],
}

/// What a kind does beyond its field table. Called after decoding and defaulting; common
/// metadata (name, uid, resourceVersion, timestamps, generation) is the caller's.
pub trait Strategy: Send + Sync {
    /// Drops what a client may not set on create (such as `status`), sets what follows.
    fn prepare_for_create(&self, object: &mut Value);
    fn validate_create(&self, object: &Value) -> Vec<FieldError>;
    /// `new` is about to replace `old`: keeps what this face may not change (such as `status`).
    fn prepare_for_update(&self, new: &mut Value, old: &Value);
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError>;
    /// The same for the status subresource: everything but `status` stays as it was.
    fn prepare_for_status_update(&self, new: &mut Value, old: &Value);
    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError>;
    /// Whether `metadata.generation` counts at all: 1 on create when it does.
    fn tracks_generation(&self) -> bool;
    /// Whether the change from `old` to `new` raises `metadata.generation`.
    fn bumps_generation(&self, new: &Value, old: &Value) -> bool;
    /// Seconds between the request to delete and the removal, `None`: at once.
    fn deletion_grace_seconds(&self, object: &Value, asked: Option<i64>) -> Option<i64>;
}

/// One broken rule, as upstream's `field.Error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// `spec.containers[0].name`
    pub field: String,
    /// Upstream's cause: `FieldValueRequired`, `FieldValueInvalid`, `FieldValueNotSupported`,
    /// `FieldValueForbidden`, `FieldValueDuplicate`, `FieldValueTooLong`, `FieldValueNotFound`.
    pub reason: &'static str,
    /// `Required value`, `Invalid value: "A": a lowercase RFC 1123 label must ...`
    pub message: String,
}

/// Every kind served, in discovery order.
pub fn kinds() -> &'static [&'static Kind] {
    kinds::KINDS
}

/// The kind of a resource; an empty version means the preferred one.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    kinds().iter().copied().find(|k| {
        k.resource.group == group
            && (version.is_empty() || k.resource.version == version)
            && k.resource.plural == plural
    })
}

/// The verbs that every kind here serves, as discovery lists them.
pub const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

impl Kind {
    /// Reads a client's JSON: wrong types and, when strict, unknown and duplicate fields are
    /// a `BadRequest` in upstream's words. Returns the object and the warnings.
    pub fn decode(
        &self,
        json: &[u8],
        validation: FieldValidation,
    ) -> Result<(Value, Vec<String>), Status> {
        decode::decode(self, json, validation)
    }

    /// Fills in upstream's defaults.
    pub fn apply_defaults(&self, object: &mut Value) {
        if let Some(object) = object.as_object_mut() {
            defaults::apply(self.fields, object);
        }
        (self.defaults)(object);
    }

    /// A strategic merge patch by the field table's merge keys and list types.
    pub fn strategic_merge(&self, object: &mut Value, patch: &Value) -> Result<(), Status> {
        strategic_merge::apply(self.fields, object, patch)
            .map_err(|error| Status::bad_request(error.to_string()))
    }

    /// `Invalid` with its causes, in upstream's words.
    pub fn invalid(&self, name: &str, errors: &[FieldError]) -> Status {
        invalid::status(self, name, errors)
    }

    /// The value of a selectable field path in an object, if it is a text.
    pub fn field<'a>(&self, object: &'a Value, path: &str) -> Option<&'a str> {
        lookup(object, path)?.as_str()
    }

    /// The value of a selectable field path as upstream compares it: numbers and booleans in
    /// their text form, what is absent as the text of its zero value. `None`: the kind cannot
    /// be selected by that field.
    pub fn field_text<'a>(&self, object: &'a Value, path: &str) -> Option<Cow<'a, str>> {
        let known = matches!(path, "metadata.name" | "metadata.namespace")
            || self.selectable.contains(&path);
        known.then(|| kinds::field_text(object, path))
    }
}

fn lookup<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |value, key| value.get(key))
}

#[cfg(test)]
mod tests;

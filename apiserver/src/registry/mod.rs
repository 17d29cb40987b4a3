//! The kinds served: for each its names, its field table and its rules. Pure: JSON in, JSON
//! or errors out. A new kind is one file here and one line in `kinds`.

use serde_json::Value;
use skiff_client::FieldValidation;
use skiff_proto::{Resource, Status};

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
    pub strategy: &'static dyn Strategy,
    /// Field selector paths beyond `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [&'static str],
}

/// Placeholder for the table of a type's fields; see `field_table`.
pub struct FieldTable;

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
    &[]
}

/// The kind of a resource; an empty version means the preferred one.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    kinds().iter().copied().find(|k| {
        k.resource.group == group
            && (version.is_empty() || k.resource.version == version)
            && k.resource.plural == plural
    })
}

impl Kind {
    /// Reads a client's JSON: wrong types and, when strict, unknown and duplicate fields are
    /// a `BadRequest` in upstream's words. Returns the object and the warnings.
    pub fn decode(
        &self,
        _json: &[u8],
        _validation: FieldValidation,
    ) -> Result<(Value, Vec<String>), Status> {
        Err(Status::internal("no kinds yet"))
    }

    /// Fills in upstream's defaults.
    pub fn apply_defaults(&self, _object: &mut Value) {}

    /// A strategic merge patch by the field table's merge keys and list types.
    pub fn strategic_merge(&self, _object: &mut Value, _patch: &Value) -> Result<(), Status> {
        Err(Status::internal("no kinds yet"))
    }

    /// `Invalid` with its causes, in upstream's words.
    pub fn invalid(&self, name: &str, errors: &[FieldError]) -> Status {
        let _ = (name, errors);
        Status::internal("no kinds yet")
    }

    /// The value of a selectable field path in an object.
    pub fn field<'a>(&self, object: &'a Value, path: &str) -> Option<&'a str> {
        path.split('.').try_fold(object, |value, key| value.get(key))?.as_str()
    }
}

//! Upstream's rules and its words for breaking them.

pub(super) mod config;
mod container;
pub(super) mod endpoints;
mod env;
pub(super) mod ingress;
pub(super) mod meta;
pub(super) mod names;
pub(super) mod node;
pub(super) mod pod;
mod pod_change;
mod pod_security;
mod probe;
mod resources;
mod scheduling;
mod selector;
pub(super) mod service;
mod volume;
pub(super) mod workload;

use serde_json::{Map, Value};

use super::FieldError;
use super::path::Path;

/// The broken rules found so far.
#[derive(Default)]
pub(super) struct Errors(Vec<FieldError>);

impl Errors {
    pub(super) fn into_vec(self) -> Vec<FieldError> {
        self.0
    }

    fn add(&mut self, path: &Path<'_>, reason: &'static str, message: String) {
        self.0.push(FieldError { field: path.to_string(), reason, message });
    }

    /// `why` may be empty.
    pub(super) fn required(&mut self, path: &Path<'_>, why: &str) {
        let colon = if why.is_empty() { "" } else { ": " };
        self.add(path, "FieldValueRequired", format!("Required value{colon}{why}"));
    }

    pub(super) fn invalid(&mut self, path: &Path<'_>, value: impl Into<Value>, why: &str) {
        let value = value.into();
        self.add(path, "FieldValueInvalid", format!("Invalid value: {value}: {why}"));
    }

    pub(super) fn not_supported(&mut self, path: &Path<'_>, value: &str, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let supported = supported.join(", ");
        let message = format!("Unsupported value: {value:?}: supported values: {supported}");
        self.add(path, "FieldValueNotSupported", message);
    }

    pub(super) fn forbidden(&mut self, path: &Path<'_>, why: &str) {
        self.add(path, "FieldValueForbidden", format!("Forbidden: {why}"));
    }

    pub(super) fn duplicate(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        let value = value.into();
        self.add(path, "FieldValueDuplicate", format!("Duplicate value: {value}"));
    }

    pub(super) fn not_found(&mut self, path: &Path<'_>, value: &str) {
        self.add(path, "FieldValueNotFound", format!("Not found: {value:?}"));
    }

    pub(super) fn too_long(&mut self, path: &Path<'_>, bytes: usize) {
        let message = format!("Too long: may not be more than {bytes} bytes");
        self.add(path, "FieldValueTooLong", message);
    }

    pub(super) fn too_many(&mut self, path: &Path<'_>, actual: usize, max: usize) {
        let message = format!("Too many: {actual}: must have at most {max} items");
        self.add(path, "FieldValueTooMany", message);
    }

    /// Each fault that a name check found is an `Invalid value` of its own.
    pub(super) fn faults(&mut self, path: &Path<'_>, value: &str, faults: Vec<String>) {
        for fault in faults {
            self.invalid(path, value, &fault);
        }
    }

    /// A text that must be one of `supported`; absent is another rule's matter.
    pub(super) fn one_of(&mut self, path: &Path<'_>, value: &str, supported: &[&str]) {
        if !supported.contains(&value) {
            self.not_supported(path, value, supported);
        }
    }

    pub(super) fn non_negative(&mut self, path: &Path<'_>, value: i64) {
        if value < 0 {
            self.invalid(path, value, "must be greater than or equal to 0");
        }
    }

    pub(super) fn immutable(&mut self, path: &Path<'_>, new: Option<&Value>, old: Option<&Value>) {
        if new != old {
            let shown = new.cloned().unwrap_or(Value::Null);
            self.invalid(path, shown, "field is immutable");
        }
    }
}

/// The text at `key`; empty if there is none.
pub(super) fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or("")
}

pub(super) fn number(object: &Value, key: &str) -> Option<i64> {
    object.get(key).and_then(Value::as_i64)
}

pub(super) fn flag(object: &Value, key: &str) -> bool {
    object.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// The elements of the list at `key`; none if there is none.
pub(super) fn list<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    object.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(super) fn map<'a>(object: &'a Value, key: &str) -> Option<&'a Map<String, Value>> {
    object.get(key).and_then(Value::as_object)
}

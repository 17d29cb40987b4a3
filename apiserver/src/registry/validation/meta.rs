//! Metadata: names, labels, annotations, owners, finalizers, and what of it never changes.

use serde_json::{Map, Value};

use super::names::{self, Faults};
use super::{Errors, flag, list, map, text};
use crate::registry::FieldError;
use crate::registry::path::Path;

/// Upstream's limit on all annotations of an object together.
const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;

/// What the name of a kind's objects must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    Subdomain,
    /// RFC 1123: namespaces.
    Label,
    /// RFC 1035: services.
    Label1035,
    /// Anything a URL path can hold.
    PathSegment,
}

impl NameRule {
    fn check(self, name: &str) -> Faults {
        match self {
            Self::Subdomain => names::subdomain(name),
            Self::Label => names::dns_label(name),
            Self::Label1035 => names::dns_1035_label(name),
            Self::PathSegment => names::path_segment(name),
        }
    }

    /// A `generateName` may end with a dash, since letters follow.
    fn check_prefix(self, prefix: &str) -> Faults {
        let masked = match prefix.strip_suffix('-') {
            Some(rest) if !rest.is_empty() => format!("{rest}a"),
            _ => prefix.to_owned(),
        };
        self.check(&masked)
    }
}

/// The rules of `metadata` that hold on create and update.
pub fn validate_meta(object: &Value, namespaced: bool, rule: NameRule) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let empty = Value::Null;
    let meta = object.get("metadata").unwrap_or(&empty);
    let root = Path::ROOT;
    let path = root.field("metadata");
    names_of(&mut errors, &path, meta, namespaced, rule);
    if text(meta, "generation").starts_with('-') || super::number(meta, "generation") < Some(0) {
        let generation = super::number(meta, "generation").unwrap_or_default();
        if generation < 0 {
            errors.non_negative(&path.field("generation"), generation);
        }
    }
    labels(&mut errors, &path.field("labels"), map(meta, "labels"));
    annotations(&mut errors, &path.field("annotations"), map(meta, "annotations"));
    owners(&mut errors, &path.field("ownerReferences"), list(meta, "ownerReferences"));
    finalizers(&mut errors, &path.field("finalizers"), list(meta, "finalizers"));
    errors.into_vec()
}

fn names_of(errors: &mut Errors, path: &Path<'_>, meta: &Value, namespaced: bool, rule: NameRule) {
    let (name, prefix) = (text(meta, "name"), text(meta, "generateName"));
    if !prefix.is_empty() {
        errors.faults(&path.field("generateName"), prefix, rule.check_prefix(prefix));
    }
    if name.is_empty() {
        // A prefix alone is completed before it is stored.
        if prefix.is_empty() {
            errors.required(&path.field("name"), "name or generateName is required");
        }
    } else {
        errors.faults(&path.field("name"), name, rule.check(name));
    }
    let namespace = text(meta, "namespace");
    match (namespaced, namespace) {
        (true, "") => errors.required(&path.field("namespace"), ""),
        (true, name) => errors.faults(&path.field("namespace"), name, names::dns_label(name)),
        (false, "") => {}
        (false, _) => errors.forbidden(&path.field("namespace"), "not allowed on this type"),
    }
}

pub(in crate::registry) fn labels(
    errors: &mut Errors,
    path: &Path<'_>,
    labels: Option<&Map<String, Value>>,
) {
    for (key, value) in labels.into_iter().flatten() {
        errors.faults(path, key, names::qualified_name(key));
        let value = value.as_str().unwrap_or("");
        errors.faults(path, value, names::label_value(value));
    }
}

pub(in crate::registry) fn annotations(
    errors: &mut Errors,
    path: &Path<'_>,
    annotations: Option<&Map<String, Value>>,
) {
    let mut bytes = 0;
    for (key, value) in annotations.into_iter().flatten() {
        // The key's case is free, unlike a label's prefix.
        let faults = names::qualified_name(&key.to_ascii_lowercase());
        errors.faults(path, key, faults);
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATIONS_MAX_BYTES {
        errors.too_long(path, ANNOTATIONS_MAX_BYTES);
    }
}

fn owners(errors: &mut Errors, path: &Path<'_>, owners: &[Value]) {
    let mut controller: Option<&str> = None;
    for (at, owner) in owners.iter().enumerate() {
        let here = path.index(at);
        let api_version = text(owner, "apiVersion");
        let (group, version) = match api_version.split_once('/') {
            Some((group, version)) => (group, version),
            None => ("", api_version),
        };
        if version.is_empty() {
            errors.invalid(&here.field("apiVersion"), version, "version must not be empty");
        }
        for (key, message) in [
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if text(owner, key).is_empty() {
                errors.invalid(&here.field(key), "", message);
            }
        }
        if (group, version, text(owner, "kind")) == ("", "v1", "Event") {
            let message = "/v1, Kind=Event is disallowed from being an owner";
            errors.invalid(&here, owner.clone(), message);
        }
        if !flag(owner, "controller") {
            continue;
        }
        match controller {
            None => controller = Some(text(owner, "name")),
            Some(first) => {
                let message = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                    text(owner, "name")
                );
                errors.invalid(path, Value::Array(owners.to_vec()), &message);
            }
        }
    }
}

fn finalizers(errors: &mut Errors, path: &Path<'_>, finalizers: &[Value]) {
    for finalizer in finalizers.iter().filter_map(Value::as_str) {
        errors.faults(path, finalizer, names::qualified_name(finalizer));
        let standard = ["kubernetes", "orphan", "foregroundDeletion"].contains(&finalizer);
        if !finalizer.contains('/') && !standard {
            let message = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(path, finalizer, message);
        }
    }
    let has = |name: &str| finalizers.iter().any(|f| f.as_str() == Some(name));
    if has("orphan") && has("foregroundDeletion") {
        let message = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.invalid(path, Value::Array(finalizers.to_vec()), message);
    }
}

/// Takes over from `old` what the server owns and a client may leave out: uid, creation time,
/// deletion time and grace. Call it before validating an update.
pub fn keep_immutable_meta(new: &mut Value, old: &Value) {
    let (Some(Value::Object(new)), Some(old)) = (new.get_mut("metadata"), old.get("metadata"))
    else {
        return;
    };
    // A client that says nothing means no change; one that says otherwise is told so.
    if let Some(uid) = old.get("uid") {
        new.entry("uid").or_insert_with(|| uid.clone());
    }
    for key in
        ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"]
    {
        match old.get(key) {
            Some(value) => drop(new.insert(key.to_owned(), value.clone())),
            None => drop(new.remove(key)),
        }
    }
    new.remove("selfLink");
    if let Some(prefix) = old.get("generateName") {
        new.entry("generateName").or_insert_with(|| prefix.clone());
    }
}

/// The rules between the old and the new metadata.
pub fn validate_meta_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let empty = Value::Null;
    let (new, old) = (new.get("metadata").unwrap_or(&empty), old.get("metadata").unwrap_or(&empty));
    let root = Path::ROOT;
    let path = root.field("metadata");
    if old.get("deletionTimestamp").is_some() {
        let known = list(old, "finalizers");
        let added: Vec<&str> = list(new, "finalizers")
            .iter()
            .filter(|f| !known.contains(f))
            .filter_map(Value::as_str)
            .collect();
        if !added.is_empty() {
            let message = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ")
            );
            errors.forbidden(&path.field("finalizers"), &message);
        }
    }
    for key in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        errors.immutable(&path.field(key), new.get(key), old.get(key));
    }
    errors.into_vec()
}

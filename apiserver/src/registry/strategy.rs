//! The rules of a kind as a plain table of functions, and the one `Strategy` made of it. A
//! kind names only what is special about it.

use serde_json::Value;

use super::validation::meta::{NameRule, validate_meta, validate_meta_update};
use super::{FieldError, Strategy};

pub struct Rules {
    pub namespaced: bool,
    pub name: NameRule,
    /// Clients write `spec`, controllers write `status`, each through its own face.
    pub has_status: bool,
    /// A node registers itself together with its first status.
    pub keeps_status_on_create: bool,
    /// `metadata.generation` counts changes of the spec.
    pub has_generation: bool,
    pub prepare_create: fn(&mut Value),
    pub prepare_update: fn(&mut Value, &Value),
    /// Rules of one object, on create and on update.
    pub validate: fn(&Value) -> Vec<FieldError>,
    /// Rules between the old and the new object.
    pub validate_change: fn(&Value, &Value) -> Vec<FieldError>,
    pub validate_status: fn(&Value, &Value) -> Vec<FieldError>,
    pub grace_seconds: fn(&Value, Option<i64>) -> Option<i64>,
}

impl Rules {
    pub const NAMESPACED: Rules = Rules {
        namespaced: true,
        name: NameRule::Subdomain,
        has_status: false,
        keeps_status_on_create: false,
        has_generation: false,
        prepare_create: |_| {},
        prepare_update: |_, _| {},
        validate: |_| Vec::new(),
        validate_change: |_, _| Vec::new(),
        validate_status: |_, _| Vec::new(),
        grace_seconds: |_, _| None,
    };

    pub const CLUSTER: Rules = Rules { namespaced: false, ..Self::NAMESPACED };
}

impl Strategy for Rules {
    fn prepare_for_create(&self, object: &mut Value) {
        if self.has_status && !self.keeps_status_on_create {
            put(object, "status", Some(Value::Object(serde_json::Map::new())));
        }
        (self.prepare_create)(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = validate_meta(object, self.namespaced, self.name);
        errors.extend((self.validate)(object));
        errors
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        if self.has_status {
            put(new, "status", old.get("status").cloned());
        }
        (self.prepare_update)(new, old);
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = validate_meta(new, self.namespaced, self.name);
        errors.extend(validate_meta_update(new, old));
        errors.extend((self.validate)(new));
        errors.extend((self.validate_change)(new, old));
        errors
    }

    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        let status = new.get("status").cloned();
        let metadata = new.get("metadata").cloned();
        let mut kept = old.clone();
        put(&mut kept, "status", status);
        put(&mut kept, "metadata", metadata);
        // Labels, owners and finalizers are the main face's.
        for key in ["labels", "annotations", "ownerReferences", "finalizers", "managedFields"] {
            let before = old.get("metadata").and_then(|m| m.get(key)).cloned();
            if let Some(metadata) = kept.get_mut("metadata") {
                put(metadata, key, before);
            }
        }
        *new = kept;
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = validate_meta_update(new, old);
        errors.extend((self.validate_status)(new, old));
        errors
    }

    fn tracks_generation(&self) -> bool {
        self.has_generation
    }

    fn bumps_generation(&self, new: &Value, old: &Value) -> bool {
        self.has_generation && !same_but_meta_and_status(new, old)
    }

    fn deletion_grace_seconds(&self, object: &Value, asked: Option<i64>) -> Option<i64> {
        (self.grace_seconds)(object, asked)
    }
}

/// Sets or, with `None`, removes a key of an object.
pub(super) fn put(object: &mut Value, key: &str, value: Option<Value>) {
    let Some(object) = object.as_object_mut() else { return };
    match value {
        Some(value) => drop(object.insert(key.to_owned(), value)),
        None => drop(object.remove(key)),
    }
}

fn same_but_meta_and_status(new: &Value, old: &Value) -> bool {
    let keys = |value: &Value| -> Vec<String> {
        let keys = value.as_object().into_iter().flat_map(|o| o.keys());
        keys.filter(|k| !matches!(k.as_str(), "metadata" | "status")).cloned().collect()
    };
    keys(new).iter().chain(&keys(old)).all(|key| new.get(key) == old.get(key))
}

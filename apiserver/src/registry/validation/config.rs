//! ConfigMaps, Secrets, Leases and Events.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::names::{config_key, dns_label, qualified_name};
use super::{Errors, flag, map, number, text};
use crate::registry::FieldError;
use crate::registry::path::Path;

/// Upstream's limit on the data of a ConfigMap or a Secret.
const DATA_MAX_BYTES: usize = 1024 * 1024;

pub(in crate::registry) fn config_map(object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    let (data, binary) = (map(object, "data"), map(object, "binaryData"));
    let mut bytes = 0;
    for (key, value) in data.into_iter().flatten() {
        let (path, here) = (root.field("data"), config_key(key));
        errors.faults(&path.key(key), key, here);
        if binary.is_some_and(|b| b.contains_key(key)) {
            let why = format!("duplicate of key present in {}", root.field("binaryData"));
            errors.invalid(&path.key(key), key.as_str(), &why);
        }
        bytes += value.as_str().map_or(0, str::len);
    }
    for (key, value) in binary.into_iter().flatten() {
        errors.faults(&root.field("binaryData").key(key), key, config_key(key));
        bytes += decoded_length(value.as_str().unwrap_or(""));
    }
    if bytes > DATA_MAX_BYTES {
        errors.too_long(&root.field(""), DATA_MAX_BYTES);
    }
    errors.into_vec()
}

/// The bytes that a base64 text stands for.
fn decoded_length(text: &str) -> usize {
    text.len() / 4 * 3 - text.bytes().rev().take_while(|b| *b == b'=').count().min(text.len() / 4)
}

pub(in crate::registry) fn secret(object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    let path = root.field("data");
    let data = map(object, "data");
    let mut bytes = 0;
    for (key, value) in data.into_iter().flatten() {
        errors.faults(&path.key(key), key, config_key(key));
        bytes += decoded_length(value.as_str().unwrap_or(""));
    }
    if bytes > DATA_MAX_BYTES {
        errors.too_long(&path, DATA_MAX_BYTES);
    }
    let has = |key: &str| data.is_some_and(|d| d.contains_key(key));
    let needed: &[&str] = match text(object, "type") {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            &["username", "password"]
        }
        _ => &[],
    };
    for key in needed.iter().filter(|key| !has(key)) {
        errors.required(&path.key(key), "");
    }
    docker_config(&mut errors, &path, object);
    if text(object, "type") == "kubernetes.io/service-account-token" {
        let key = "kubernetes.io/service-account.name";
        if text(&object["metadata"]["annotations"], key).is_empty() {
            errors.required(&root.field("metadata").field("annotations").key(key), "");
        }
    }
    errors.into_vec()
}

fn docker_config(errors: &mut Errors, path: &Path<'_>, object: &Value) {
    let key = match text(object, "type") {
        "kubernetes.io/dockerconfigjson" => ".dockerconfigjson",
        "kubernetes.io/dockercfg" => ".dockercfg",
        _ => return,
    };
    let Some(value) = object["data"].get(key).and_then(Value::as_str) else { return };
    let read = STANDARD.decode(value).ok().map(|bytes| serde_json::from_slice::<Value>(&bytes));
    if let Some(Err(error)) = read {
        errors.invalid(&path.key(key), "<secret contents redacted>", &error.to_string());
    }
}

/// An immutable ConfigMap or Secret stays so, and so does what it holds.
pub(in crate::registry) fn immutable_data(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    if !flag(old, "immutable") {
        return Vec::new();
    }
    let why = "field is immutable when `immutable` is set";
    if !flag(new, "immutable") {
        errors.forbidden(&root.field("immutable"), why);
    }
    for key in ["data", "binaryData"] {
        if new.get(key) != old.get(key) {
            errors.forbidden(&root.field(key), why);
        }
    }
    errors.into_vec()
}

pub(in crate::registry) fn secret_change(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    errors.immutable(&root.field("type"), new.get("type"), old.get("type"));
    let mut errors = errors.into_vec();
    errors.extend(immutable_data(new, old));
    errors
}

pub(in crate::registry) fn lease(object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    let (spec, path) = (&object["spec"], root.field("spec"));
    if let Some(seconds) = number(spec, "leaseDurationSeconds").filter(|s| *s <= 0) {
        errors.invalid(&path.field("leaseDurationSeconds"), seconds, "must be greater than 0");
    }
    if let Some(transitions) = number(spec, "leaseTransitions").filter(|n| *n < 0) {
        let why = "must be greater than or equal to 0";
        errors.invalid(&path.field("leaseTransitions"), transitions, why);
    }
    errors.into_vec()
}

/// An event stands in the namespace of what it is about; about cluster-scoped objects, in
/// `default`. Events with an `eventTime` say who reports and what was done.
pub(in crate::registry) fn event(object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    let namespace = text(&object["metadata"], "namespace");
    let about = text(&object["involvedObject"], "namespace");
    let fits =
        namespace == about || (about.is_empty() && matches!(namespace, "default" | "kube-system"));
    if !fits {
        let path = root.field("involvedObject");
        errors.invalid(&path.field("namespace"), about, "does not match event.namespace");
    }
    if !namespace.is_empty() {
        errors.faults(&root.field("namespace"), namespace, dns_label(namespace));
    }
    if text(object, "eventTime").is_empty() {
        return errors.into_vec();
    }
    let controller = text(object, "reportingComponent");
    let path = root.field("reportingController");
    if controller.is_empty() {
        errors.required(&path, "");
    } else {
        errors.faults(&path, controller, qualified_name(controller));
    }
    for (key, value) in [
        ("reportingInstance", text(object, "reportingInstance")),
        ("action", text(object, "action")),
        ("reason", text(object, "reason")),
    ] {
        if value.is_empty() {
            errors.required(&root.field(key), "");
        }
    }
    if text(object, "message").len() > 1024 {
        errors.invalid(&root.field("message"), "", "can have at most 1024 characters");
    }
    errors.into_vec()
}

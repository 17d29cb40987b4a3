//! Environment variables and where their values come from.

use serde_json::Value;

use super::names::{config_key, env_name, subdomain};
use super::{Errors, list, text};
use crate::registry::path::Path;

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

pub(super) const VOLUME_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

pub(super) fn validate(errors: &mut Errors, path: &Path<'_>, container: &Value) {
    let env = path.field("env");
    for (at, variable) in list(container, "env").iter().enumerate() {
        let here = env.index(at);
        let name = text(variable, "name");
        if name.is_empty() {
            errors.required(&here.field("name"), "");
        } else {
            errors.faults(&here.field("name"), name, env_name(name));
        }
        if let Some(source) = variable.get("valueFrom") {
            value_from(errors, &here.field("valueFrom"), source, text(variable, "value"));
        }
    }
    let from = path.field("envFrom");
    for (at, source) in list(container, "envFrom").iter().enumerate() {
        env_from(errors, &from.index(at), source);
    }
}

fn env_from(errors: &mut Errors, path: &Path<'_>, source: &Value) {
    let prefix = text(source, "prefix");
    if !prefix.is_empty() {
        errors.faults(&path.field("prefix"), prefix, env_name(prefix));
    }
    let mut sources = 0;
    for key in ["configMapRef", "secretRef"] {
        let Some(reference) = source.get(key) else { continue };
        sources += 1;
        object_name(errors, &path.field(key), reference);
    }
    match sources {
        0 => errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
        1 => {}
        _ => errors.invalid(path, "", "may not have more than one field specified at a time"),
    }
}

/// The name of a ConfigMap or a Secret; nothing but its absence is told here by upstream.
fn object_name(errors: &mut Errors, path: &Path<'_>, reference: &Value) {
    let name = text(reference, "name");
    if name.is_empty() {
        errors.required(&path.field("name"), "");
    } else {
        errors.faults(&path.field("name"), name, subdomain(name));
    }
}

fn value_from(errors: &mut Errors, path: &Path<'_>, source: &Value, value: &str) {
    let mut sources = 0;
    if let Some(field) = source.get("fieldRef") {
        sources += 1;
        field_ref(errors, &path.field("fieldRef"), field, &ENV_FIELDS);
    }
    if let Some(resource) = source.get("resourceFieldRef") {
        sources += 1;
        resource_ref(errors, &path.field("resourceFieldRef"), resource, false);
    }
    for key in ["configMapKeyRef", "secretKeyRef"] {
        let Some(reference) = source.get(key) else { continue };
        sources += 1;
        let path = path.field(key);
        if text(reference, "name").is_empty() {
            errors.required(&path.field("name"), "");
        }
        let name = text(reference, "key");
        if name.is_empty() {
            errors.required(&path.field("key"), "");
        } else {
            errors.faults(&path.field("key"), name, config_key(name));
        }
    }
    match sources {
        0 => errors.invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        ),
        1 if !value.is_empty() => {
            errors.invalid(path, "", "may not be specified when `value` is not empty");
        }
        1 => {}
        _ => errors.invalid(path, "", "may not have more than one field specified at a time"),
    }
}

/// A field of the pod, as the downward API offers it.
pub(super) fn field_ref(errors: &mut Errors, path: &Path<'_>, field: &Value, supported: &[&str]) {
    if text(field, "apiVersion").is_empty() {
        errors.required(&path.field("apiVersion"), "");
    }
    let wanted = text(field, "fieldPath");
    let path = path.field("fieldPath");
    if wanted.is_empty() {
        errors.required(&path, "");
        return;
    }
    // One entry of a map: metadata.labels['app'].
    let entry = ["metadata.labels['", "metadata.annotations['"]
        .iter()
        .any(|map| wanted.starts_with(map) && wanted.ends_with("']"));
    let known = ENV_FIELDS.contains(&wanted) || VOLUME_FIELDS.contains(&wanted);
    if !entry && !known {
        let why = format!("error converting fieldPath: field label not supported: {wanted}");
        errors.invalid(&path, wanted, &why);
    } else if !entry && !supported.contains(&wanted) {
        errors.not_supported(&path, wanted, supported);
    }
}

/// A resource of a container. A volume must say of which.
pub(super) fn resource_ref(errors: &mut Errors, path: &Path<'_>, resource: &Value, volume: bool) {
    if volume && text(resource, "containerName").is_empty() {
        errors.required(&path.field("containerName"), "");
    }
    let name = text(resource, "resource");
    let huge = |prefix: &str| name.starts_with(prefix);
    if name.is_empty() {
        errors.required(&path.field("resource"), "");
    } else if !RESOURCES.contains(&name)
        && !huge("limits.hugepages-")
        && !huge("requests.hugepages-")
    {
        errors.not_supported(&path.field("resource"), name, &RESOURCES);
    }
}

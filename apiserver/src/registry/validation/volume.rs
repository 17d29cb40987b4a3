//! Volumes of a pod.

use std::collections::HashSet;

use serde_json::Value;

use super::container::local_path;
use super::env::{VOLUME_FIELDS, field_ref, resource_ref};
use super::names::dns_label;
use super::{Errors, list, number, text};
use crate::registry::path::Path;

const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// Checks the volumes and returns their names, which mounts refer to.
pub(super) fn validate_all<'a>(
    errors: &mut Errors,
    path: &Path<'_>,
    volumes: &'a [Value],
) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    for (at, volume) in volumes.iter().enumerate() {
        let here = path.index(at);
        let name = text(volume, "name");
        if name.is_empty() {
            errors.required(&here.field("name"), "");
        } else {
            let faults = dns_label(name);
            errors.faults(&here.field("name"), name, faults);
            if !names.insert(name) {
                errors.duplicate(&here.field("name"), name);
            }
        }
        source(errors, &here, volume);
    }
    names
}

fn source(errors: &mut Errors, path: &Path<'_>, volume: &Value) {
    let sources = volume.as_object().into_iter().flatten().filter(|(key, _)| *key != "name");
    let mut first = true;
    for (key, source) in sources {
        let here = path.field(key);
        if !first {
            errors.forbidden(&here, "may not specify more than 1 volume type");
            continue;
        }
        first = false;
        one(errors, &here, key, source);
    }
    if first {
        errors.required(path, "must specify a volume type");
    }
}

fn one(errors: &mut Errors, path: &Path<'_>, kind: &str, source: &Value) {
    let required: &[&str] = match kind {
        "hostPath" => &["path"],
        "secret" => &["secretName"],
        "configMap" => &["name"],
        "nfs" => &["server", "path"],
        "persistentVolumeClaim" => &["claimName"],
        "csi" => &["driver"],
        "gitRepo" => &["repository"],
        "iscsi" => &["targetPortal", "iqn"],
        "rbd" => &["image"],
        "glusterfs" => &["endpoints", "path"],
        "cinder" | "awsElasticBlockStore" | "portworxVolume" => &["volumeID"],
        "gcePersistentDisk" => &["pdName"],
        "azureFile" => &["secretName", "shareName"],
        "azureDisk" => &["diskName", "diskURI"],
        "flexVolume" => &["driver"],
        _ => &[],
    };
    for key in required {
        if text(source, key).is_empty() {
            errors.required(&path.field(key), "");
        }
    }
    match kind {
        "hostPath" => {
            let place = text(source, "path");
            if place.split('/').any(|part| part == "..") {
                errors.invalid(&path.field("path"), place, "must not contain '..'");
            }
            errors.one_of(&path.field("type"), text(source, "type"), &HOST_PATH_TYPES);
        }
        "emptyDir" => {
            let limit = text(source, "sizeLimit");
            if limit.starts_with('-') {
                let why = "SizeLimit field must be a valid resource quantity";
                errors.forbidden(&path.field("sizeLimit"), why);
            }
        }
        "secret" | "configMap" => files(errors, path, source),
        "downwardAPI" => downward(errors, path, source),
        "projected" => projected(errors, path, source),
        "ephemeral" if source.get("volumeClaimTemplate").is_none() => {
            errors.required(&path.field("volumeClaimTemplate"), "");
        }
        _ => {}
    }
}

fn mode(errors: &mut Errors, path: &Path<'_>, value: Option<i64>) {
    if let Some(value) = value.filter(|mode| !(0..=0o777).contains(mode)) {
        let why = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.invalid(path, value, why);
    }
}

/// The keys of a ConfigMap or a Secret that become files.
fn files(errors: &mut Errors, path: &Path<'_>, source: &Value) {
    mode(errors, &path.field("defaultMode"), number(source, "defaultMode"));
    let items = path.field("items");
    for (at, item) in list(source, "items").iter().enumerate() {
        let here = items.index(at);
        if text(item, "key").is_empty() {
            errors.required(&here.field("key"), "");
        }
        file_path(errors, &here.field("path"), text(item, "path"));
        mode(errors, &here.field("mode"), number(item, "mode"));
    }
}

fn file_path(errors: &mut Errors, path: &Path<'_>, value: &str) {
    if value.is_empty() {
        errors.required(path, "");
        return;
    }
    local_path(errors, path, value);
    if value.starts_with("..") && !value.starts_with("../") && value != ".." {
        errors.invalid(path, value, "must not start with '..'");
    }
}

fn downward(errors: &mut Errors, path: &Path<'_>, source: &Value) {
    mode(errors, &path.field("defaultMode"), number(source, "defaultMode"));
    // Upstream tells these without the list they stand in.
    for file in list(source, "items") {
        file_path(errors, &path.field("path"), text(file, "path"));
        match (file.get("fieldRef"), file.get("resourceFieldRef")) {
            (Some(_), Some(_)) => {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(path, "resource", why);
            }
            (Some(field), None) => {
                field_ref(errors, &path.field("fieldRef"), field, &VOLUME_FIELDS);
            }
            (None, Some(resource)) => {
                resource_ref(errors, &path.field("resourceFieldRef"), resource, true);
            }
            (None, None) => {
                errors.required(path, "one of fieldRef and resourceFieldRef is required");
            }
        }
        mode(errors, &path.field("mode"), number(file, "mode"));
    }
}

fn projected(errors: &mut Errors, path: &Path<'_>, source: &Value) {
    mode(errors, &path.field("defaultMode"), number(source, "defaultMode"));
    let sources = path.field("sources");
    for (at, projection) in list(source, "sources").iter().enumerate() {
        let here = sources.index(at);
        let mut first = true;
        for (kind, projection) in projection.as_object().into_iter().flatten() {
            let here = here.field(kind);
            if !first {
                errors.forbidden(&here, "may not specify more than 1 volume type per source");
                continue;
            }
            first = false;
            match kind.as_str() {
                "secret" | "configMap" => {
                    if text(projection, "name").is_empty() {
                        errors.required(&here.field("name"), "");
                    }
                    files(errors, &here, projection);
                }
                "downwardAPI" => downward(errors, &here, projection),
                "serviceAccountToken" => token(errors, &here, projection),
                _ => {}
            }
        }
        if first {
            errors.required(&here, "must specify a volume type");
        }
    }
}

fn token(errors: &mut Errors, path: &Path<'_>, token: &Value) {
    let seconds = number(token, "expirationSeconds").unwrap_or(3600);
    if seconds < 600 {
        let why = "may not specify a duration less than 10 minutes";
        errors.invalid(&path.field("expirationSeconds"), seconds, why);
    }
    if seconds > 1 << 32 {
        let why = "may not specify a duration larger than 2^32 seconds";
        errors.invalid(&path.field("expirationSeconds"), seconds, why);
    }
    file_path(errors, &path.field("path"), text(token, "path"));
}

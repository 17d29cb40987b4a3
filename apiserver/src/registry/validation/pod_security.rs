//! Security contexts.

use serde_json::Value;

use super::{Errors, list, number, text};
use crate::registry::path::Path;

pub(super) fn pod(errors: &mut Errors, path: &Path<'_>, context: &Value) {
    ids(errors, path, context, &["runAsUser", "runAsGroup", "fsGroup"]);
    let groups = path.field("supplementalGroups");
    for (at, group) in list(context, "supplementalGroups").iter().enumerate() {
        id(errors, &groups.index(at), group.as_i64().unwrap_or(0));
    }
    let change = text(context, "fsGroupChangePolicy");
    if !change.is_empty() {
        let path = path.field("fsGroupChangePolicy");
        errors.one_of(&path, change, &["Always", "OnRootMismatch"]);
    }
    seccomp(errors, &path.field("seccompProfile"), context.get("seccompProfile"));
}

pub(super) fn container(errors: &mut Errors, path: &Path<'_>, context: &Value) {
    ids(errors, path, context, &["runAsUser", "runAsGroup"]);
    seccomp(errors, &path.field("seccompProfile"), context.get("seccompProfile"));
    let escalation = context.get("allowPrivilegeEscalation").and_then(Value::as_bool);
    if escalation == Some(false) {
        if context.get("privileged") == Some(&Value::Bool(true)) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(path, context.clone(), why);
        }
        let added = list(&context["capabilities"], "add");
        if added.iter().any(|c| c.as_str() == Some("CAP_SYS_ADMIN")) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(path, context.clone(), why);
        }
    }
    let mount = text(context, "procMount");
    if !mount.is_empty() {
        errors.one_of(&path.field("procMount"), mount, &["Default", "Unmasked"]);
    }
}

fn ids(errors: &mut Errors, path: &Path<'_>, context: &Value, keys: &[&str]) {
    for key in keys {
        if let Some(value) = number(context, key) {
            id(errors, &path.field(key), value);
        }
    }
}

fn id(errors: &mut Errors, path: &Path<'_>, value: i64) {
    if !(0..=i64::from(i32::MAX)).contains(&value) {
        errors.invalid(path, value, "must be between 0 and 2147483647, inclusive");
    }
}

fn seccomp(errors: &mut Errors, path: &Path<'_>, profile: Option<&Value>) {
    let Some(profile) = profile else { return };
    let (kind, file) = (text(profile, "type"), profile.get("localhostProfile"));
    if kind.is_empty() {
        errors.required(&path.field("type"), "type is required when seccompProfile is set");
        return;
    }
    errors.one_of(&path.field("type"), kind, &["Localhost", "RuntimeDefault", "Unconfined"]);
    let path = path.field("localhostProfile");
    match (kind, file.and_then(Value::as_str)) {
        ("Localhost", None | Some("")) => {
            errors.required(&path, "must be set when seccomp type is Localhost");
        }
        ("Localhost", Some(file)) => super::container::local_path(errors, &path, file),
        (_, Some(file)) => {
            errors.invalid(&path, file, "can only be set when seccomp type is Localhost");
        }
        _ => {}
    }
}

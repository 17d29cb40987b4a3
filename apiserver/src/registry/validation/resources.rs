//! Requests and limits.

use serde_json::Value;
use skiff_proto::Quantity;

use super::names::qualified_name;
use super::{Errors, map};
use crate::registry::path::Path;

const STANDARD: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

pub(super) fn validate(errors: &mut Errors, path: &Path<'_>, resources: &Value) {
    let quantity = |value: &Value| value.as_str().and_then(Quantity::parse);
    let (limits, requests) = (map(resources, "limits"), map(resources, "requests"));
    for (key, entries) in [("limits", limits), ("requests", requests)] {
        let path = path.field(key);
        for (name, value) in entries.into_iter().flatten() {
            let here = path.key(name);
            resource_name(errors, &here, name);
            if let Some(value) = quantity(value).filter(Quantity::is_negative) {
                let why = "must be greater than or equal to 0";
                errors.invalid(&here, value.to_string(), why);
            }
        }
    }
    for (name, value) in requests.into_iter().flatten() {
        let limit = limits.and_then(|l| l.get(name));
        let (Some(request), limit) = (quantity(value), limit.and_then(quantity)) else { continue };
        let (path, limits_path) = (path.field("requests"), path.field("limits"));
        // What cannot be shared cannot be overcommitted.
        let whole = name.contains('/') || name.starts_with("hugepages-");
        match limit {
            Some(limit) if whole && request != limit => {
                let why = format!("must be equal to {name} limit of {limit}");
                errors.invalid(&path, request.to_string(), &why);
            }
            Some(limit) if request > limit => {
                let why = format!("must be less than or equal to {name} limit of {limit}");
                errors.invalid(&path, request.to_string(), &why);
            }
            None if whole => {
                errors.required(&limits_path, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
}

fn resource_name(errors: &mut Errors, path: &Path<'_>, name: &str) {
    let faults = qualified_name(name);
    if !faults.is_empty() {
        errors.faults(path, name, faults);
    } else if !name.contains('/') && !STANDARD.contains(&name) && !name.starts_with("hugepages-") {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
        errors.invalid(path, name, "must be a standard resource for containers");
    }
}

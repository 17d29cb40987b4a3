//! Nodes and Namespaces.

use std::collections::HashSet;

use serde_json::Value;

use super::names::{cidr, label_value, qualified_name};
use super::{Errors, list, text};
use crate::registry::FieldError;
use crate::registry::path::Path;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(in crate::registry) fn validate(node: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    let (spec, path) = (&node["spec"], root.field("spec"));
    taints(&mut errors, &path.field("taints"), list(spec, "taints"));
    let ranges = path.field("podCIDRs");
    for (at, range) in list(spec, "podCIDRs").iter().filter_map(Value::as_str).enumerate() {
        errors.faults(&ranges.index(at), range, cidr(range));
    }
    errors.into_vec()
}

fn taints(errors: &mut Errors, path: &Path<'_>, taints: &[Value]) {
    let mut seen = HashSet::new();
    for (at, taint) in taints.iter().enumerate() {
        let here = path.index(at);
        let (key, value, effect) =
            (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
        errors.faults(&here.field("key"), key, qualified_name(key));
        errors.faults(&here.field("value"), value, label_value(value));
        if effect.is_empty() {
            errors.required(&here.field("effect"), "");
        } else {
            errors.one_of(&here.field("effect"), effect, &EFFECTS);
        }
        if !seen.insert((key, effect)) {
            errors.duplicate(&here, taint.clone());
        }
    }
}

/// Pod ranges and the provider's name are given once.
pub(in crate::registry) fn validate_change(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    let path = root.field("spec");
    let (new, old) = (&new["spec"], &old["spec"]);
    let ranges = list(old, "podCIDRs");
    if !ranges.is_empty() && list(new, "podCIDRs") != ranges {
        let why = "node updates may not change podCIDR except from \"\" to valid";
        errors.forbidden(&path.field("podCIDRs"), why);
    }
    let provider = text(old, "providerID");
    if !provider.is_empty() && text(new, "providerID") != provider {
        let why = "node updates may not change providerID except from \"\" to valid";
        errors.forbidden(&path.field("providerID"), why);
    }
    errors.into_vec()
}

/// Finalizers of a namespace's spec.
pub(in crate::registry) fn namespace(object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    let path = root.field("spec");
    let path = path.field("finalizers");
    for finalizer in list(&object["spec"], "finalizers").iter().filter_map(Value::as_str) {
        errors.faults(&path, finalizer, qualified_name(finalizer));
        if !finalizer.contains('/') && finalizer != "kubernetes" {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(&path, finalizer, why);
        }
    }
    errors.into_vec()
}

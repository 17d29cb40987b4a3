//! What may change of a pod that exists: images, deadline, added tolerations, and little else.

use serde_json::{Map, Value};

use super::{Errors, list, number, text};
use crate::registry::FieldError;
use crate::registry::path::Path;

const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(in crate::registry) fn validate_change(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    let path = root.field("spec");
    let (new, old) = (&new["spec"], &old["spec"]);
    if new == old {
        return Vec::new();
    }
    for key in ["containers", "initContainers"] {
        if list(new, key).len() != list(old, key).len() {
            let why = "pod updates may not add or remove containers";
            errors.forbidden(&path.field(key), why);
            return errors.into_vec();
        }
    }
    deadline(&mut errors, &path, new, old);
    tolerations(&mut errors, &path, new, old);
    gates(&mut errors, &path, new, old);
    let changed = changed_fields(new, old);
    if !changed.is_empty() {
        let why = format!("{MAY_CHANGE}\nchanged: {}", changed.join(", "));
        errors.forbidden(&path, &why);
    }
    errors.into_vec()
}

/// A deadline may be set, and may come nearer.
fn deadline(errors: &mut Errors, path: &Path<'_>, new: &Value, old: &Value) {
    let path = path.field("activeDeadlineSeconds");
    let before = number(old, "activeDeadlineSeconds");
    match (number(new, "activeDeadlineSeconds"), before) {
        (Some(new), Some(old)) if new > old => {
            errors.invalid(&path, new, "must be less than or equal to previous value");
        }
        (None, Some(_)) => {
            let why = "must not update from a positive integer to nil value";
            errors.invalid(&path, Value::Null, why);
        }
        _ => {}
    }
}

/// Tolerations may be added; of those there only `tolerationSeconds` may change.
fn tolerations(errors: &mut Errors, path: &Path<'_>, new: &Value, old: &Value) {
    let bare = |toleration: &Value| {
        let mut bare = toleration.clone();
        crate::registry::strategy::put(&mut bare, "tolerationSeconds", None);
        bare
    };
    let kept: Vec<Value> = list(new, "tolerations").iter().map(bare).collect();
    if list(old, "tolerations").iter().any(|t| !kept.contains(&bare(t))) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        errors.forbidden(&path.field("tolerations"), why);
    }
}

/// Gates are only ever lifted.
fn gates(errors: &mut Errors, path: &Path<'_>, new: &Value, old: &Value) {
    let known = list(old, "schedulingGates");
    let path = path.field("schedulingGates");
    for (at, gate) in list(new, "schedulingGates").iter().enumerate() {
        if !known.contains(gate) {
            let name = text(gate, "name");
            let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.forbidden(&path.index(at), &why);
        }
    }
}

/// The names of the spec's fields that changed though they may not.
fn changed_fields(new: &Value, old: &Value) -> Vec<String> {
    let empty = Map::new();
    let fields = |spec: &'_ Value| spec.as_object().cloned().unwrap_or_else(|| empty.clone());
    let (new, old) = (fields(new), fields(old));
    let gated = old.contains_key("schedulingGates");
    let mut names: Vec<&String> = new.keys().chain(old.keys()).collect();
    names.sort();
    names.dedup();
    let may = |name: &str| match name {
        "activeDeadlineSeconds" | "tolerations" | "schedulingGates" => true,
        // Ephemeral containers have a face of their own upstream; they only grow here.
        "ephemeralContainers" => grown(new.get(name), old.get(name)),
        "terminationGracePeriodSeconds" => {
            let before = old.get(name).and_then(Value::as_i64);
            before.is_some_and(|n| n < 0) && new.get(name).and_then(Value::as_i64) == Some(1)
        }
        "containers" | "initContainers" => {
            without_images(new.get(name)) == without_images(old.get(name))
        }
        // A pod that waits at a gate may still be told where to run.
        "nodeSelector" => gated && grown_map(new.get(name), old.get(name)),
        _ => false,
    };
    let changed = |name: &&String| new.get(*name) != old.get(*name) && !may(name);
    names.into_iter().filter(changed).map(|name| format!("spec.{name}")).collect()
}

fn without_images(containers: Option<&Value>) -> Vec<Value> {
    let containers = containers.and_then(Value::as_array).into_iter().flatten();
    containers
        .map(|container| {
            let mut container = container.clone();
            // An empty image is told by the rules of the container itself.
            crate::registry::strategy::put(&mut container, "image", None);
            container
        })
        .collect()
}

fn grown(new: Option<&Value>, old: Option<&Value>) -> bool {
    let of = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    of(new).starts_with(&of(old))
}

fn grown_map(new: Option<&Value>, old: Option<&Value>) -> bool {
    let entries = old.and_then(Value::as_object).into_iter().flatten();
    entries.into_iter().all(|(key, value)| new.and_then(|n| n.get(key)) == Some(value))
}

//! Deployments and ReplicaSets.

use serde_json::Value;

use super::names::percent;
use super::{Errors, list, map, meta, number, pod, selector, text};
use crate::registry::FieldError;
use crate::registry::path::Path;

pub(in crate::registry) fn deployment(object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    let (spec, path) = (&object["spec"], root.field("spec"));
    common(&mut errors, &path, spec, "deployment");
    strategy(&mut errors, &path.field("strategy"), &spec["strategy"]);
    if let Some(limit) = number(spec, "revisionHistoryLimit") {
        errors.non_negative(&path.field("revisionHistoryLimit"), limit);
    }
    if let Some(seconds) = number(spec, "progressDeadlineSeconds") {
        let path = path.field("progressDeadlineSeconds");
        errors.non_negative(&path, seconds);
        if seconds <= number(spec, "minReadySeconds").unwrap_or(0) {
            errors.invalid(&path, seconds, "must be greater than minReadySeconds");
        }
    }
    errors.into_vec()
}

pub(in crate::registry) fn replica_set(object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    common(&mut errors, &root.field("spec"), &object["spec"], "ReplicaSet");
    errors.into_vec()
}

pub(in crate::registry) fn selector_is_immutable(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    let path = root.field("spec");
    let of = |object: &Value| object["spec"].get("selector").cloned();
    errors.immutable(&path.field("selector"), of(new).as_ref(), of(old).as_ref());
    errors.into_vec()
}

fn common(errors: &mut Errors, path: &Path<'_>, spec: &Value, kind: &str) {
    for key in ["replicas", "minReadySeconds"] {
        errors.non_negative(&path.field(key), number(spec, key).unwrap_or(0));
    }
    let (chosen, selector_path) = (spec.get("selector"), path.field("selector"));
    match chosen {
        None => errors.required(&selector_path, ""),
        Some(chosen) => {
            selector::validate(errors, &selector_path, chosen);
            let empty = map(chosen, "matchLabels").is_none_or(|labels| labels.is_empty())
                && list(chosen, "matchExpressions").is_empty();
            if empty {
                let why = format!("empty selector is invalid for {kind}");
                errors.invalid(&selector_path, chosen.clone(), &why);
            }
        }
    }
    template(errors, &path.field("template"), spec);
}

fn template(errors: &mut Errors, path: &Path<'_>, spec: &Value) {
    let template = &spec["template"];
    let metadata = path.field("metadata");
    // An empty or broken selector has been told.
    let compiled = spec.get("selector").and_then(selector::compile).filter(|s| !s.is_empty());
    if let Some(compiled) = compiled
        && !compiled.matches(&selector::labels_of(&template["metadata"]))
    {
        let labels = template["metadata"].get("labels").cloned().unwrap_or(Value::Null);
        let why = "`selector` does not match template `labels`";
        errors.invalid(&metadata.field("labels"), labels, why);
    }
    let meta = &template["metadata"];
    meta::labels(errors, &metadata.field("labels"), map(meta, "labels"));
    meta::annotations(errors, &metadata.field("annotations"), map(meta, "annotations"));
    let (pod_spec, path) = (&template["spec"], path.field("spec"));
    pod::spec(errors, &path, pod_spec, false);
    let restart = text(pod_spec, "restartPolicy");
    if matches!(restart, "OnFailure" | "Never") {
        errors.not_supported(&path.field("restartPolicy"), restart, &["Always"]);
    }
    if pod_spec.get("activeDeadlineSeconds").is_some() {
        let why = "activeDeadlineSeconds in ReplicaSet is not Supported";
        errors.forbidden(&path.field("activeDeadlineSeconds"), why);
    }
}

fn strategy(errors: &mut Errors, path: &Path<'_>, strategy: &Value) {
    let rolling = strategy.get("rollingUpdate");
    let rolling_path = path.field("rollingUpdate");
    match text(strategy, "type") {
        "Recreate" => {
            if rolling.is_some() {
                let why = "may not be specified when strategy `type` is 'Recreate'";
                errors.forbidden(&rolling_path, why);
            }
        }
        "RollingUpdate" => match rolling {
            None => {
                let why = "this should be defaulted and never be nil";
                errors.required(&rolling_path, why);
            }
            Some(rolling) => rolling_update(errors, &rolling_path, rolling),
        },
        other => errors.not_supported(&path.field("type"), other, &["Recreate", "RollingUpdate"]),
    }
}

fn rolling_update(errors: &mut Errors, path: &Path<'_>, rolling: &Value) {
    for key in ["maxUnavailable", "maxSurge"] {
        let path = path.field(key);
        match &rolling[key] {
            Value::String(text) => errors.faults(&path, text, percent(text)),
            count => errors.non_negative(&path, count.as_i64().unwrap_or(0)),
        }
    }
    let zero = |key: &str| match &rolling[key] {
        Value::String(text) => text.trim_end_matches('%').parse() == Ok(0),
        count => count.as_i64().unwrap_or(0) == 0,
    };
    let path = path.field("maxUnavailable");
    if zero("maxUnavailable") && zero("maxSurge") {
        let why = "may not be 0 when `maxSurge` is 0";
        errors.invalid(&path, rolling["maxUnavailable"].clone(), why);
    }
    if let Value::String(share) = &rolling["maxUnavailable"]
        && share.trim_end_matches('%').parse::<i64>().is_ok_and(|n| n > 100)
    {
        errors.invalid(&path, share.as_str(), "must not be greater than 100%");
    }
}

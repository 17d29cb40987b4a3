//! Where a pod may run: tolerations, affinity, spreading, gates.

use std::collections::HashSet;

use serde_json::Value;

use super::names::{label_value, qualified_name};
use super::{Errors, list, number, selector, text};
use crate::registry::path::Path;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn validate(errors: &mut Errors, path: &Path<'_>, spec: &Value) {
    tolerations(errors, &path.field("tolerations"), list(spec, "tolerations"));
    let affinity = path.field("affinity");
    node_affinity(errors, &affinity.field("nodeAffinity"), &spec["affinity"]["nodeAffinity"]);
    for key in ["podAffinity", "podAntiAffinity"] {
        pod_affinity(errors, &affinity.field(key), &spec["affinity"][key]);
    }
    let constraints = list(spec, "topologySpreadConstraints");
    spread(errors, &path.field("topologySpreadConstraints"), constraints);
    let gates = path.field("schedulingGates");
    let mut seen = HashSet::new();
    for (at, gate) in list(spec, "schedulingGates").iter().enumerate() {
        let name = text(gate, "name");
        errors.faults(&gates.index(at), name, qualified_name(name));
        if !seen.insert(name) {
            errors.duplicate(&gates.index(at), name);
        }
    }
}

fn tolerations(errors: &mut Errors, path: &Path<'_>, tolerations: &[Value]) {
    for (at, toleration) in tolerations.iter().enumerate() {
        let here = path.index(at);
        let of = |key| text(toleration, key);
        let (key, operator, value, effect) = (of("key"), of("operator"), of("value"), of("effect"));
        if key.is_empty() {
            if operator != "Exists" {
                let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
                errors.invalid(&here.field("operator"), operator, why);
            }
        } else {
            errors.faults(&here.field("key"), key, qualified_name(key));
        }
        if toleration.get("tolerationSeconds").is_some() && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(&here.field("effect"), effect, why);
        }
        match operator {
            "" | "Equal" => {
                if !label_value(value).is_empty() {
                    errors.faults(&here.field("operator"), value, label_value(value));
                }
            }
            "Exists" if !value.is_empty() => {
                let why = "value must be empty when `operator` is 'Exists'";
                errors.invalid(&here.field("operator"), operator, why);
            }
            "Exists" => {}
            other => errors.not_supported(&here.field("operator"), other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            errors.one_of(&here.field("effect"), effect, &EFFECTS);
        }
    }
}

fn node_affinity(errors: &mut Errors, path: &Path<'_>, affinity: &Value) {
    if let Some(required) = affinity.get(REQUIRED) {
        let terms = list(required, "nodeSelectorTerms");
        let path = path.field(REQUIRED);
        let path = path.field("nodeSelectorTerms");
        if terms.is_empty() {
            errors.required(&path, "must have at least one node selector term");
        }
        for (at, term) in terms.iter().enumerate() {
            node_term(errors, &path.index(at), term);
        }
    }
    let path = path.field(PREFERRED);
    for (at, preferred) in list(affinity, PREFERRED).iter().enumerate() {
        let here = path.index(at);
        weight(errors, &here, preferred);
        node_term(errors, &here.field("preference"), &preferred["preference"]);
    }
}

fn weight(errors: &mut Errors, path: &Path<'_>, term: &Value) {
    let weight = number(term, "weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.field("weight"), weight, "must be in the range 1-100");
    }
}

fn node_term(errors: &mut Errors, path: &Path<'_>, term: &Value) {
    let expressions = path.field("matchExpressions");
    for (at, requirement) in list(term, "matchExpressions").iter().enumerate() {
        let here = expressions.index(at);
        let values = list(requirement, "values");
        match text(requirement, "operator") {
            "In" | "NotIn" if values.is_empty() => errors.required(
                &here.field("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(
                &here.field("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "Gt" | "Lt" if values.len() != 1 => errors.required(
                &here.field("values"),
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => {
                errors.invalid(&here.field("operator"), other, "not a valid selector operator");
            }
        }
        let key = text(requirement, "key");
        errors.faults(&here.field("key"), key, qualified_name(key));
    }
    let fields = path.field("matchFields");
    for (at, requirement) in list(term, "matchFields").iter().enumerate() {
        let here = fields.index(at);
        let key = text(requirement, "key");
        if key != "metadata.name" {
            errors.invalid(&here.field("key"), key, "not a valid field selector key");
        }
        match text(requirement, "operator") {
            "In" | "NotIn" if list(requirement, "values").len() != 1 => errors.required(
                &here.field("values"),
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            ),
            "In" | "NotIn" => {}
            other => {
                errors.invalid(&here.field("operator"), other, "not a valid selector operator");
            }
        }
    }
}

fn pod_affinity(errors: &mut Errors, path: &Path<'_>, affinity: &Value) {
    let required = path.field(REQUIRED);
    for (at, term) in list(affinity, REQUIRED).iter().enumerate() {
        pod_term(errors, &required.index(at), term);
    }
    let preferred = path.field(PREFERRED);
    for (at, term) in list(affinity, PREFERRED).iter().enumerate() {
        let here = preferred.index(at);
        weight(errors, &here, term);
        pod_term(errors, &here.field("podAffinityTerm"), &term["podAffinityTerm"]);
    }
}

fn pod_term(errors: &mut Errors, path: &Path<'_>, term: &Value) {
    for key in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = term.get(key) {
            selector::validate(errors, &path.field(key), selector);
        }
    }
    let namespaces = path.field("namespaces");
    for name in list(term, "namespaces").iter().filter_map(Value::as_str) {
        errors.faults(&namespaces, name, super::names::dns_label(name));
    }
    let key = text(term, "topologyKey");
    if key.is_empty() {
        errors.required(&path.field("topologyKey"), "can not be empty");
    }
    errors.faults(&path.field("topologyKey"), key, qualified_name(key));
}

fn spread(errors: &mut Errors, path: &Path<'_>, constraints: &[Value]) {
    let mut seen = HashSet::new();
    for (at, constraint) in constraints.iter().enumerate() {
        let here = path.index(at);
        let skew = number(constraint, "maxSkew").unwrap_or(0);
        if skew <= 0 {
            errors.invalid(&here.field("maxSkew"), skew, "must be greater than zero");
        }
        let key = text(constraint, "topologyKey");
        if key.is_empty() {
            errors.required(&here.field("topologyKey"), "can not be empty");
        }
        let action = text(constraint, "whenUnsatisfiable");
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        errors.one_of(&here.field("whenUnsatisfiable"), action, &actions);
        if !seen.insert((key, action)) {
            let pair = format!("{{{key}, {action}}}");
            errors.duplicate(&here.field("{topologyKey, whenUnsatisfiable}"), pair);
        }
        if let Some(least) = number(constraint, "minDomains") {
            let path = here.field("minDomains");
            if least <= 0 {
                errors.invalid(&path, least, "must be greater than zero");
            }
            if action == "ScheduleAnyway" {
                let why = "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway";
                errors.invalid(&path, least, why);
            }
        }
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(policy) = constraint.get(key).and_then(Value::as_str) {
                errors.one_of(&here.field(key), policy, &["Honor", "Ignore"]);
            }
        }
        if let Some(selector) = constraint.get("labelSelector") {
            selector::validate(errors, &here.field("labelSelector"), selector);
        }
    }
}

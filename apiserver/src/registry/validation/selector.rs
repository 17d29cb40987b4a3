//! Label selectors in their object form.

use serde_json::Value;
use skiff_proto::selector::Labels;
use skiff_proto::{LabelSelector, Selector};

use super::names::{label_value, qualified_name};
use super::{Errors, list, map, text};
use crate::registry::path::Path;

pub(super) fn validate(errors: &mut Errors, path: &Path<'_>, selector: &Value) {
    super::meta::labels(errors, &path.field("matchLabels"), map(selector, "matchLabels"));
    let expressions = path.field("matchExpressions");
    for (at, requirement) in list(selector, "matchExpressions").iter().enumerate() {
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
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                errors.invalid(&here.field("operator"), other, "not a valid selector operator");
            }
        }
        let key = text(requirement, "key");
        errors.faults(&here.field("key"), key, qualified_name(key));
        let path = here.field("values");
        for (at, value) in values.iter().filter_map(Value::as_str).enumerate() {
            errors.faults(&path.index(at), value, label_value(value));
        }
    }
}

/// The selector ready to match; `None` if it is broken, which `validate` has told.
pub(super) fn compile(selector: &Value) -> Option<Selector> {
    serde_json::from_value::<LabelSelector>(selector.clone()).ok()?.compile().ok()
}

pub(super) fn labels_of(metadata: &Value) -> Labels {
    let labels = map(metadata, "labels").into_iter().flatten();
    labels.map(|(k, v)| (k.clone(), v.as_str().unwrap_or("").to_owned())).collect()
}

//! One file a kind. A new kind is such a file, and one line in `KINDS`.

mod config_map;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod event;
mod ingress;
mod ingress_class;
mod lease;
mod namespace;
mod node;
mod pod;
mod replica_set;
mod secret;
mod service;
mod service_account;

use std::borrow::Cow;

use serde_json::Value;

use super::{Kind, lookup};

/// In discovery order.
pub(super) static KINDS: &[&Kind] = &[
    &namespace::NAMESPACE_KIND,
    &node::NODE_KIND,
    &pod::POD_KIND,
    &service::SERVICE_KIND,
    &endpoints::ENDPOINTS_KIND,
    &endpoint_slice::ENDPOINT_SLICE_KIND,
    &config_map::CONFIG_MAP_KIND,
    &secret::SECRET_KIND,
    &service_account::SERVICE_ACCOUNT_KIND,
    &event::EVENT_KIND,
    &lease::LEASE_KIND,
    &deployment::DEPLOYMENT_KIND,
    &replica_set::REPLICA_SET_KIND,
    &ingress::INGRESS_KIND,
    &ingress_class::INGRESS_CLASS_KIND,
];

/// The text of a field that objects may be selected by. Upstream compares the zero value's
/// text where the field is absent.
pub(super) fn field_text<'a>(object: &'a Value, path: &str) -> Cow<'a, str> {
    match lookup(object, path) {
        Some(Value::String(text)) => Cow::Borrowed(text),
        Some(Value::Bool(on)) => Cow::Borrowed(if *on { "true" } else { "false" }),
        Some(Value::Number(number)) => Cow::Owned(number.to_string()),
        // An Event's source is selected by its component, or by who reported it.
        Some(Value::Object(source)) if path == "source" => {
            let component = source.get("component").and_then(Value::as_str);
            let reporter = || object.get("reportingComponent").and_then(Value::as_str);
            Cow::Borrowed(component.or_else(reporter).unwrap_or(""))
        }
        _ => Cow::Borrowed(match path {
            "spec.unschedulable" | "spec.hostNetwork" => "false",
            "status.replicas" => "0",
            _ => "",
        }),
    }
}

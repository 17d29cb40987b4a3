//! Defaults of Services that depend on their type and on other fields.

use serde_json::{Map, Value, json};

use super::text_or;

pub(in crate::registry) fn service(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or("ClusterIP").to_owned();
    affinity(spec);
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(port) = port.as_object_mut() else { continue };
        let unset = port.get("targetPort").is_none_or(|t| *t == json!(0) || *t == json!(""));
        if let Some(number) = port.get("port").cloned().filter(|_| unset) {
            port.insert("targetPort".to_owned(), number);
        }
    }
    if kind != "ExternalName" {
        text_or(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "NodePort" || kind == "LoadBalancer" {
        text_or(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        spec.entry("allocateLoadBalancerNodePorts").or_insert(Value::Bool(true));
    }
}

/// The time-out belongs to affinity by client address, and only to it.
fn affinity(spec: &mut Map<String, Value>) {
    if spec.get("sessionAffinity").and_then(Value::as_str) != Some("ClientIP") {
        spec.remove("sessionAffinityConfig");
        return;
    }
    let config = spec.entry("sessionAffinityConfig").or_insert_with(|| json!({}));
    let client = config.as_object_mut().map(|c| c.entry("clientIP").or_insert_with(|| json!({})));
    if let Some(client) = client.and_then(Value::as_object_mut) {
        client.entry("timeoutSeconds").or_insert_with(|| json!(10800));
    }
}

//! Services.

use serde_json::{Value, json};

use crate::registry::Kind;
use crate::registry::strategy::{Rules, put};
use crate::registry::tables::service::SERVICE;
use crate::registry::validation::meta::NameRule;
use crate::registry::validation::{list, service, text};

pub static SERVICE_KIND: Kind = Kind {
    resource: skiff_proto::resource::SERVICES,
    kind: "Service",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    namespaced: true,
    subresources: &["status"],
    fields: &SERVICE,
    defaults: crate::registry::defaults::service::service,
    strategy: &RULES,
    selectable: &["spec.clusterIP", "spec.type"],
};

static RULES: Rules = Rules {
    name: NameRule::Label1035,
    has_status: true,
    prepare_create: same_cluster_ips,
    prepare_update,
    validate: service::validate,
    validate_change: service::validate_change,
    ..Rules::NAMESPACED
};

/// `clusterIP` is the first of `clusterIPs`; whoever writes one means both.
fn same_cluster_ips(service: &mut Value) {
    let ip = text(&service["spec"], "clusterIP").to_owned();
    let first = list(&service["spec"], "clusterIPs").first().cloned();
    match (ip.as_str(), first) {
        ("", Some(first)) => service["spec"]["clusterIP"] = first,
        ("", None) => {}
        (ip, None) => service["spec"]["clusterIPs"] = json!([ip]),
        _ => {}
    }
}

/// What was allocated stays where the client says nothing of it.
fn prepare_update(new: &mut Value, old: &Value) {
    let kind = |service: &Value| text(&service["spec"], "type").to_owned();
    let (new_kind, old_kind) = (kind(new), kind(old));
    if new_kind != "ExternalName" && old_kind != "ExternalName" {
        let absent = |key: &str| new["spec"].get(key).is_none();
        if absent("clusterIP") && absent("clusterIPs") {
            for key in ["clusterIP", "clusterIPs"] {
                put(&mut new["spec"], key, old["spec"].get(key).cloned());
            }
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if new["spec"].get(key).is_none() {
                put(&mut new["spec"], key, old["spec"].get(key).cloned());
            }
        }
    }
    let exposed = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    if exposed(&new_kind) && exposed(&old_kind) {
        keep_node_ports(new, old);
    }
    same_cluster_ips(new);
}

fn keep_node_ports(new: &mut Value, old: &Value) {
    let Some(ports) = new["spec"]["ports"].as_array_mut() else { return };
    for port in ports.iter_mut().filter(|port| port.get("nodePort").is_none()) {
        let same = |other: &&Value| {
            other.get("port") == port.get("port") && other.get("protocol") == port.get("protocol")
        };
        let before = list(&old["spec"], "ports").iter().find(same);
        if let Some(number) = before.and_then(|port| port.get("nodePort")).cloned() {
            port["nodePort"] = number;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_allocated_stays() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.43.0.7",
            "clusterIPs": ["10.43.0.7"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]}});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [
            {"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}]}});
        prepare_update(&mut new, &old);
        assert_eq!(
            new["spec"],
            json!({"type": "NodePort", "clusterIP": "10.43.0.7", "clusterIPs": ["10.43.0.7"],
                "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080},
                          {"port": 81, "protocol": "TCP"}]})
        );
    }
}

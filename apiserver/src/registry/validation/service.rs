//! Services.

use std::collections::HashSet;

use serde_json::Value;

use super::container::port_range;
use super::names::{cidr, dns_label, ip, subdomain};
use super::{Errors, list, map, meta, number, probe, text};
use crate::registry::FieldError;
use crate::registry::path::Path;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

pub(in crate::registry) fn validate(service: &Value) -> Vec<FieldError> {
    let mut found = Errors::default();
    let root = Path::ROOT;
    let (spec, path) = (&service["spec"], root.field("spec"));
    let errors = &mut found;
    let kind = text(spec, "type");
    errors.one_of(&path.field("type"), kind, &TYPES);
    let headless = text(spec, "clusterIP") == "None";
    if kind == "ExternalName" {
        external_name(errors, &path, spec);
    } else if list(spec, "ports").is_empty() && !headless {
        errors.required(&path.field("ports"), "");
    }
    if headless && matches!(kind, "NodePort" | "LoadBalancer") {
        let why = format!("may not be set to 'None' for {kind} services");
        errors.invalid(&path.field("clusterIPs").index(0), "None", &why);
    }
    ports(errors, &path.field("ports"), spec, kind);
    meta::labels(errors, &path.field("selector"), map(spec, "selector"));
    addresses(errors, &path, spec);
    affinity(errors, &path, spec);
    policies(errors, &path, spec, kind);
    found.into_vec()
}

fn external_name(errors: &mut Errors, path: &Path<'_>, spec: &Value) {
    for key in ["clusterIPs", "clusterIP"] {
        let set = !text(spec, key).is_empty() || !list(spec, key).is_empty();
        if set {
            errors.forbidden(&path.field(key), "may not be set for ExternalName services");
        }
    }
    let name = text(spec, "externalName").trim_end_matches('.');
    let path = path.field("externalName");
    if name.is_empty() {
        errors.required(&path, "");
    } else {
        errors.faults(&path, name, subdomain(name));
    }
}

fn ports(errors: &mut Errors, path: &Path<'_>, spec: &Value, kind: &str) {
    let ports = list(spec, "ports");
    let (mut names, mut taken, mut node_ports) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (at, port) in ports.iter().enumerate() {
        let here = path.index(at);
        let name = text(port, "name");
        if name.is_empty() && ports.len() > 1 {
            errors.required(&here.field("name"), "");
        } else if !name.is_empty() {
            errors.faults(&here.field("name"), name, dns_label(name));
            if !names.insert(name) {
                errors.duplicate(&here.field("name"), name);
            }
        }
        let (value, protocol) = (number(port, "port").unwrap_or(0), text(port, "protocol"));
        port_range(errors, &here.field("port"), value);
        errors.one_of(&here.field("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        if port.get("targetPort").is_some() {
            probe::port(errors, &here.field("targetPort"), &port["targetPort"]);
        }
        if !taken.insert((protocol, value)) {
            let mut same = serde_json::Map::new();
            same.insert("port".to_owned(), value.into());
            same.insert("protocol".to_owned(), protocol.into());
            errors.duplicate(&here, same);
        }
        let Some(node_port) = number(port, "nodePort").filter(|n| *n != 0) else { continue };
        let path = here.field("nodePort");
        if kind == "ClusterIP" || kind == "ExternalName" {
            let why = format!("may not be used when `type` is '{kind}'");
            errors.forbidden(&path, &why);
        } else if !node_ports.insert((protocol, node_port)) {
            errors.duplicate(&path, node_port);
        } else {
            port_range(errors, &path, node_port);
        }
    }
}

fn addresses(errors: &mut Errors, path: &Path<'_>, spec: &Value) {
    let cluster_ips = list(spec, "clusterIPs");
    let first = cluster_ips.first().and_then(Value::as_str).unwrap_or("");
    let cluster_ip = text(spec, "clusterIP");
    if !cluster_ips.is_empty() && cluster_ip != first {
        let why = "first value must match `clusterIP`";
        errors.invalid(&path.field("clusterIPs"), cluster_ips.to_vec(), why);
    }
    if cluster_ips.is_empty() && !matches!(cluster_ip, "" | "None") {
        errors.faults(&path.field("clusterIP"), cluster_ip, ip(cluster_ip));
    }
    let ips_path = path.field("clusterIPs");
    for (at, address) in cluster_ips.iter().filter_map(Value::as_str).enumerate() {
        if address != "None" {
            errors.faults(&ips_path.index(at), address, ip(address));
        }
    }
    let external = path.field("externalIPs");
    for (at, address) in list(spec, "externalIPs").iter().filter_map(Value::as_str).enumerate() {
        errors.faults(&external.index(at), address, ip(address));
    }
    let ranges = path.field("loadBalancerSourceRanges");
    let sources = list(spec, "loadBalancerSourceRanges");
    for (at, range) in sources.iter().filter_map(Value::as_str).enumerate() {
        errors.faults(&ranges.index(at), range, cidr(range));
    }
    let families = path.field("ipFamilies");
    for (at, family) in list(spec, "ipFamilies").iter().filter_map(Value::as_str).enumerate() {
        errors.one_of(&families.index(at), family, &["IPv4", "IPv6"]);
    }
    let policy = text(spec, "ipFamilyPolicy");
    if !policy.is_empty() {
        let known = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        errors.one_of(&path.field("ipFamilyPolicy"), policy, &known);
    }
}

fn affinity(errors: &mut Errors, path: &Path<'_>, spec: &Value) {
    let affinity = text(spec, "sessionAffinity");
    errors.one_of(&path.field("sessionAffinity"), affinity, &["ClientIP", "None"]);
    let client = &spec["sessionAffinityConfig"]["clientIP"];
    let Some(seconds) = number(client, "timeoutSeconds") else { return };
    if affinity == "ClientIP" && !(1..=86400).contains(&seconds) {
        let path = path.field("sessionAffinityConfig");
        let path = path.field("clientIP");
        let why = "must be greater than 0 and less than 86400";
        errors.invalid(&path.field("timeoutSeconds"), seconds, why);
    }
}

fn policies(errors: &mut Errors, path: &Path<'_>, spec: &Value, kind: &str) {
    let known = ["Cluster", "Local"];
    let internal = text(spec, "internalTrafficPolicy");
    if !internal.is_empty() {
        errors.one_of(&path.field("internalTrafficPolicy"), internal, &known);
    }
    let (external, external_path) =
        (text(spec, "externalTrafficPolicy"), path.field("externalTrafficPolicy"));
    let exposed =
        matches!(kind, "NodePort" | "LoadBalancer") || !list(spec, "externalIPs").is_empty();
    match external {
        "" => {}
        _ if !exposed => {
            let why = "may only be set for externally-accessible services";
            errors.invalid(&external_path, external, why);
        }
        external => errors.one_of(&external_path, external, &known),
    }
    let distribution = text(spec, "trafficDistribution");
    if !distribution.is_empty() {
        let path = path.field("trafficDistribution");
        errors.one_of(&path, distribution, &["PreferClose", "PreferSameNode", "PreferSameZone"]);
    }
}

/// The cluster's address stays as long as the service has one.
pub(in crate::registry) fn validate_change(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    let path = root.field("spec");
    let (new, old) = (&new["spec"], &old["spec"]);
    let either_named = [new, old].iter().any(|s| text(s, "type") == "ExternalName");
    let before = text(old, "clusterIP");
    if !either_named && !before.is_empty() && text(new, "clusterIP") != before {
        let shown = list(new, "clusterIPs").to_vec();
        errors.invalid(&path.field("clusterIPs").index(0), shown, "may not change once set");
    }
    errors.into_vec()
}

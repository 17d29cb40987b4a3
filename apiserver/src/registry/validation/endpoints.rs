//! Endpoints and EndpointSlices.

use std::collections::HashSet;

use serde_json::Value;

use super::container::port_range;
use super::names::{dns_label, port_name, qualified_name, subdomain};
use super::{Errors, list, names, number, text};
use crate::registry::FieldError;
use crate::registry::path::Path;

const SLICE_MAX_ENDPOINTS: usize = 1000;
const SLICE_MAX_PORTS: usize = 20_000;
const SLICE_MAX_ADDRESSES: usize = 100;
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub(in crate::registry) fn endpoints(object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    let path = root.field("subsets");
    for (at, subset) in list(object, "subsets").iter().enumerate() {
        let here = path.index(at);
        let ready = list(subset, "addresses");
        let not_ready = list(subset, "notReadyAddresses");
        if ready.is_empty() && not_ready.is_empty() {
            errors.required(&here, "must specify `addresses` or `notReadyAddresses`");
        }
        for (key, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
            let path = here.field(key);
            for (at, address) in addresses.iter().enumerate() {
                endpoint_address(&mut errors, &path.index(at), address);
            }
        }
        let ports = list(subset, "ports");
        let path = here.field("ports");
        for (at, port) in ports.iter().enumerate() {
            endpoint_port(&mut errors, &path.index(at), port, ports.len() > 1);
        }
    }
    errors.into_vec()
}

fn endpoint_address(errors: &mut Errors, path: &Path<'_>, address: &Value) {
    let ip = text(address, "ip");
    let faults = names::ip(ip);
    let valid = faults.is_empty();
    errors.faults(&path.field("ip"), ip, faults);
    let hostname = text(address, "hostname");
    if !hostname.is_empty() {
        errors.faults(&path.field("hostname"), hostname, dns_label(hostname));
    }
    if let Some(node) = address.get("nodeName").and_then(Value::as_str) {
        errors.faults(&path.field("nodeName"), node, subdomain(node));
    }
    if valid {
        special_address(errors, &path.field("ip"), ip);
    }
}

/// An endpoint must be reachable from elsewhere.
fn special_address(errors: &mut Errors, path: &Path<'_>, text: &str) {
    use std::net::IpAddr;
    let Ok(address) = text.parse::<IpAddr>() else { return };
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] == 0xff02),
    };
    if address.is_unspecified() {
        errors.invalid(path, text, &format!("may not be unspecified ({text})"));
    }
    for (hit, why) in [
        (address.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (
            link_local_multicast,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        ),
    ] {
        if hit {
            errors.invalid(path, text, why);
        }
    }
}

fn endpoint_port(errors: &mut Errors, path: &Path<'_>, port: &Value, named: bool) {
    let name = text(port, "name");
    if name.is_empty() && named {
        errors.required(&path.field("name"), "");
    } else if !name.is_empty() {
        errors.faults(&path.field("name"), name, dns_label(name));
    }
    port_range(errors, &path.field("port"), number(port, "port").unwrap_or(0));
    errors.one_of(&path.field("protocol"), text(port, "protocol"), &PROTOCOLS);
    application(errors, path, port);
}

fn application(errors: &mut Errors, path: &Path<'_>, port: &Value) {
    if let Some(protocol) = port.get("appProtocol").and_then(Value::as_str) {
        errors.faults(&path.field("appProtocol"), protocol, qualified_name(protocol));
    }
}

pub(in crate::registry) fn slice(object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    let kind = text(object, "addressType");
    let path = root.field("addressType");
    if kind.is_empty() {
        errors.required(&path, "");
    } else {
        errors.one_of(&path, kind, &["FQDN", "IPv4", "IPv6"]);
    }
    slice_endpoints(&mut errors, &root.field("endpoints"), list(object, "endpoints"), kind);
    slice_ports(&mut errors, &root.field("ports"), list(object, "ports"));
    errors.into_vec()
}

fn slice_endpoints(errors: &mut Errors, path: &Path<'_>, endpoints: &[Value], kind: &str) {
    if endpoints.len() > SLICE_MAX_ENDPOINTS {
        errors.too_many(path, endpoints.len(), SLICE_MAX_ENDPOINTS);
        return;
    }
    for (at, endpoint) in endpoints.iter().enumerate() {
        let here = path.index(at);
        let addresses = list(endpoint, "addresses");
        let places = here.field("addresses");
        if addresses.is_empty() {
            errors.required(&places, "must contain at least 1 address");
        } else if addresses.len() > SLICE_MAX_ADDRESSES {
            errors.too_many(&places, addresses.len(), SLICE_MAX_ADDRESSES);
        }
        for (at, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
            slice_address(errors, &places.index(at), address, kind);
        }
        if let Some(node) = endpoint.get("nodeName").and_then(Value::as_str) {
            errors.faults(&here.field("nodeName"), node, subdomain(node));
        }
        if let Some(name) = endpoint.get("hostname").and_then(Value::as_str) {
            errors.faults(&here.field("hostname"), name, dns_label(name));
        }
    }
}

fn slice_address(errors: &mut Errors, path: &Path<'_>, address: &str, kind: &str) {
    use std::net::IpAddr;
    match kind {
        "FQDN" => errors.faults(path, address, subdomain(address.trim_end_matches('.'))),
        "IPv4" | "IPv6" => match (kind, address.parse::<IpAddr>()) {
            ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => {
                special_address(errors, path, address);
            }
            ("IPv4", _) => errors.invalid(path, address, "must be an IPv4 address"),
            _ => errors.invalid(path, address, "must be an IPv6 address"),
        },
        _ => {}
    }
}

fn slice_ports(errors: &mut Errors, path: &Path<'_>, ports: &[Value]) {
    if ports.len() > SLICE_MAX_PORTS {
        errors.too_many(path, ports.len(), SLICE_MAX_PORTS);
        return;
    }
    let mut names = HashSet::new();
    for (at, port) in ports.iter().enumerate() {
        let here = path.index(at);
        let name = text(port, "name");
        if !name.is_empty() {
            let faults = port_name(name);
            errors.faults(&here.field("name"), name, faults);
        }
        if !names.insert(name) {
            errors.duplicate(&here.field("name"), name);
        }
        errors.one_of(&here.field("protocol"), text(port, "protocol"), &PROTOCOLS);
        if let Some(number) = number(port, "port") {
            port_range(errors, &here.field("port"), number);
        }
        application(errors, &here, port);
    }
}

pub(in crate::registry) fn slice_change(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    let path = root.field("addressType");
    errors.immutable(&path, new.get("addressType"), old.get("addressType"));
    errors.into_vec()
}

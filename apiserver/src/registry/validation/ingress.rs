//! Ingresses and IngressClasses.

use serde_json::Value;

use super::container::port_range;
use super::names::{dns_1035_label, dns_label, port_name, subdomain, wildcard_subdomain};
use super::{Errors, list, number, text};
use crate::registry::FieldError;
use crate::registry::path::Path;

/// What a path may not hold: such segments would be resolved differently along the way.
const FORBIDDEN_IN_PATH: [&str; 6] = ["//", "/./", "/../", "%2f", "%2F", "\\"];
const FORBIDDEN_AT_END: [&str; 2] = ["/..", "/."];

pub(in crate::registry) fn validate(ingress: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    let (spec, path) = (&ingress["spec"], root.field("spec"));
    let (rules, default) = (list(spec, "rules"), spec.get("defaultBackend"));
    if rules.is_empty() && default.is_none() {
        errors.invalid(&path, spec.clone(), "either `defaultBackend` or `rules` must be specified");
    }
    if let Some(default) = default {
        backend(&mut errors, &path.field("defaultBackend"), default);
    }
    let rules_path = path.field("rules");
    for (at, rule) in rules.iter().enumerate() {
        validate_rule(&mut errors, &rules_path.index(at), rule);
    }
    let tls_path = path.field("tls");
    for (at, tls) in list(spec, "tls").iter().enumerate() {
        let here = tls_path.index(at);
        let hosts = here.field("hosts");
        for (at, name) in list(tls, "hosts").iter().filter_map(Value::as_str).enumerate() {
            host(&mut errors, &hosts.index(at), name);
        }
        let secret = text(tls, "secretName");
        if !secret.is_empty() {
            errors.faults(&here.field("secretName"), secret, subdomain(secret));
        }
    }
    if let Some(class) = spec.get("ingressClassName").and_then(Value::as_str) {
        errors.faults(&path.field("ingressClassName"), class, subdomain(class));
    }
    errors.into_vec()
}

fn host(errors: &mut Errors, path: &Path<'_>, name: &str) {
    let check = if name.contains('*') { wildcard_subdomain } else { subdomain };
    errors.faults(path, name, check(name));
}

fn validate_rule(errors: &mut Errors, path: &Path<'_>, rule: &Value) {
    let name = text(rule, "host");
    if !name.is_empty() {
        if name.parse::<std::net::IpAddr>().is_ok() {
            errors.invalid(&path.field("host"), name, "must be a DNS name, not an IP address");
        } else {
            host(errors, &path.field("host"), name);
        }
    }
    let Some(http) = rule.get("http") else { return };
    let path = path.field("http");
    let path = path.field("paths");
    if list(http, "paths").is_empty() {
        errors.required(&path, "");
    }
    for (at, each) in list(http, "paths").iter().enumerate() {
        let here = path.index(at);
        http_path(errors, &here, each);
        backend(errors, &here.field("backend"), &each["backend"]);
    }
}

fn http_path(errors: &mut Errors, path: &Path<'_>, rule: &Value) {
    let (value, here) = (text(rule, "path"), path.field("path"));
    let kind = rule.get("pathType").and_then(Value::as_str);
    match kind {
        None => {
            errors.required(&path.field("pathType"), "pathType must be specified");
        }
        Some("Exact" | "Prefix") => {
            if !value.starts_with('/') {
                errors.invalid(&here, value, "must be an absolute path");
            }
            if !value.is_empty() {
                for bad in FORBIDDEN_IN_PATH.iter().filter(|bad| value.contains(**bad)) {
                    errors.invalid(&here, value, &format!("must not contain '{bad}'"));
                }
                for bad in FORBIDDEN_AT_END.iter().filter(|bad| value.ends_with(**bad)) {
                    errors.invalid(&here, value, &format!("cannot end with '{bad}'"));
                }
            }
        }
        Some("ImplementationSpecific") => {
            if !value.is_empty() && !value.starts_with('/') {
                errors.invalid(&here, value, "must be an absolute path");
            }
        }
        Some(other) => {
            let known = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.not_supported(&path.field("pathType"), other, &known);
        }
    }
}

fn backend(errors: &mut Errors, path: &Path<'_>, backend: &Value) {
    match (backend.get("service"), backend.get("resource")) {
        (Some(_), Some(_)) => {
            errors.invalid(path, "", "cannot set both resource and service backends");
        }
        (None, None) => errors.required(path, "resource or service backend is required"),
        (None, Some(resource)) => {
            let path = path.field("resource");
            for key in ["kind", "name"] {
                if text(resource, key).is_empty() {
                    errors.required(&path.field(key), "");
                }
            }
        }
        (Some(service), None) => service_backend(errors, &path.field("service"), service),
    }
}

fn service_backend(errors: &mut Errors, path: &Path<'_>, service: &Value) {
    let name = text(service, "name");
    if name.is_empty() {
        errors.required(&path.field("name"), "");
    } else {
        errors.faults(&path.field("name"), name, dns_1035_label(name));
    }
    let (port, port_path) = (&service["port"], path.field("port"));
    let (name, number) = (text(port, "name"), number(port, "number").unwrap_or(0));
    match (name, number) {
        ("", 0) => errors.required(path, "port name or number is required"),
        ("", number) => port_range(errors, &port_path.field("number"), number),
        (name, 0) => errors.faults(&port_path.field("name"), name, port_name(name)),
        _ => errors.invalid(path, "", "cannot set both port name & port number"),
    }
}

pub(in crate::registry) fn validate_class(class: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    let (spec, path) = (&class["spec"], root.field("spec"));
    let controller = text(spec, "controller");
    controller_name(&mut errors, &path.field("controller"), controller);
    let Some(parameters) = spec.get("parameters") else { return errors.into_vec() };
    let path = path.field("parameters");
    for key in ["kind", "name"] {
        if text(parameters, key).is_empty() {
            errors.required(&path.field(key), &format!("{key} is required"));
        }
    }
    let namespace = text(parameters, "namespace");
    match text(parameters, "scope") {
        "Namespace" if namespace.is_empty() => {
            let why = "`parameters.scope` is set to 'Namespace'";
            errors.required(&path.field("namespace"), why);
        }
        "Namespace" => errors.faults(&path.field("namespace"), namespace, dns_label(namespace)),
        "Cluster" if !namespace.is_empty() => {
            let why = "`parameters.scope` is set to 'Cluster'";
            errors.forbidden(&path.field("namespace"), why);
        }
        "Cluster" => {}
        "" => errors.required(&path.field("scope"), ""),
        other => errors.not_supported(&path.field("scope"), other, &["Cluster", "Namespace"]),
    }
    errors.into_vec()
}

/// `example.com/ingress`: a domain and a path.
fn controller_name(errors: &mut Errors, path: &Path<'_>, name: &str) {
    const MAX_BYTES: usize = 250;
    if name.len() > MAX_BYTES {
        errors.too_long(path, MAX_BYTES);
    } else if name.is_empty() {
        errors.required(path, "");
    } else {
        match name.split_once('/') {
            Some((domain, rest)) if !rest.is_empty() => {
                errors.faults(path, domain, subdomain(domain));
            }
            _ => errors.invalid(
                path,
                name,
                "must be a domain-prefixed path (such as \"acme.io/foo\")",
            ),
        }
    }
}

pub(in crate::registry) fn class_change(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    let path = root.field("spec");
    let of = |object: &Value| object["spec"].get("controller").cloned();
    errors.immutable(&path.field("controller"), of(new).as_ref(), of(old).as_ref());
    errors.into_vec()
}

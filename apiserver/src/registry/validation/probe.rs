//! Probes and lifecycle hooks.

use serde_json::Value;

use super::container::port_range;
use super::names::port_name;
use super::{Errors, list, number, text};
use crate::registry::path::Path;

/// The probes and hooks of one container.
pub(super) fn of_container(errors: &mut Errors, path: &Path<'_>, container: &Value) {
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get(key) {
            validate(errors, &path.field(key), probe, key);
        }
    }
    let lifecycle = path.field("lifecycle");
    for key in ["postStart", "preStop"] {
        if let Some(hook) = container["lifecycle"].get(key) {
            handler(errors, &lifecycle.field(key), hook);
        }
    }
}

fn validate(errors: &mut Errors, path: &Path<'_>, probe: &Value, kind: &str) {
    handler(errors, path, probe);
    for key in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        errors.non_negative(&path.field(key), number(probe, key).unwrap_or(0));
    }
    let successes = number(probe, "successThreshold").unwrap_or(1);
    if kind != "readinessProbe" && successes != 1 {
        errors.invalid(&path.field("successThreshold"), successes, "must be 1");
    }
    if let Some(seconds) = number(probe, "terminationGracePeriodSeconds") {
        let path = path.field("terminationGracePeriodSeconds");
        if kind == "readinessProbe" {
            errors.invalid(&path, seconds, "must not be set for readinessProbes");
        } else if seconds <= 0 {
            errors.invalid(&path, seconds, "must be greater than 0");
        }
    }
}

fn handler(errors: &mut Errors, path: &Path<'_>, handler: &Value) {
    let mut seen = false;
    for key in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let Some(action) = handler.get(key) else { continue };
        let here = path.field(key);
        if seen {
            errors.forbidden(&here, "may not specify more than 1 handler type");
            continue;
        }
        seen = true;
        match key {
            "exec" if list(action, "command").is_empty() => {
                errors.required(&here.field("command"), "");
            }
            "httpGet" => http(errors, &here, action),
            "tcpSocket" => port(errors, &here.field("port"), &action["port"]),
            "grpc" => port_range(errors, &here.field("port"), number(action, "port").unwrap_or(0)),
            "sleep" if number(action, "seconds").unwrap_or(0) < 0 => {
                let seconds = number(action, "seconds").unwrap_or(0);
                let why = "must be greater than 0 and less than terminationGracePeriodSeconds";
                errors.invalid(&here, seconds, why);
            }
            _ => {}
        }
    }
    if !seen {
        errors.required(path, "must specify a handler type");
    }
}

fn http(errors: &mut Errors, path: &Path<'_>, action: &Value) {
    if text(action, "path").is_empty() {
        errors.required(&path.field("path"), "");
    }
    port(errors, &path.field("port"), &action["port"]);
    errors.one_of(&path.field("scheme"), text(action, "scheme"), &["HTTP", "HTTPS"]);
    for header in list(action, "httpHeaders") {
        let name = text(header, "name");
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if name.is_empty() || !name.bytes().all(plain) {
            let why = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
            errors.invalid(&path.field("httpHeaders"), name, why);
        }
    }
}

/// A port by number or by name.
pub(super) fn port(errors: &mut Errors, path: &Path<'_>, port: &Value) {
    match port {
        Value::String(name) => errors.faults(path, name, port_name(name)),
        port => port_range(errors, path, port.as_i64().unwrap_or(0)),
    }
}

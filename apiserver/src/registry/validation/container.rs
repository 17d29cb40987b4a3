//! Containers: names, images, ports, mounts, and where the rest is looked at.

use std::collections::HashSet;

use serde_json::Value;

use super::names::{dns_label, port_name, port_number};
use super::{Errors, env, flag, list, number, pod_security, probe, resources, text};
use crate::registry::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Init,
    Main,
    Ephemeral,
}

/// What a container's rules need to know of its pod.
pub(super) struct Context<'a> {
    pub volumes: &'a HashSet<&'a str>,
    pub host_network: bool,
    pub is_pod: bool,
}

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub(super) fn validate(
    errors: &mut Errors,
    path: &Path<'_>,
    container: &Value,
    role: Role,
    context: &Context<'_>,
) {
    let name = text(container, "name");
    if name.is_empty() {
        errors.required(&path.field("name"), "");
    } else {
        errors.faults(&path.field("name"), name, dns_label(name));
    }
    let image = text(container, "image");
    if image.is_empty() {
        errors.required(&path.field("image"), "");
    } else if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        errors.invalid(&path.field("image"), image, why);
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    errors.one_of(&path.field("imagePullPolicy"), text(container, "imagePullPolicy"), &policies);
    let messages = ["FallbackToLogsOnError", "File"];
    let message_policy = text(container, "terminationMessagePolicy");
    errors.one_of(&path.field("terminationMessagePolicy"), message_policy, &messages);
    let sidecar = restart_policy(errors, path, container, role);
    by_role(errors, path, container, role, sidecar);
    ports(errors, &path.field("ports"), list(container, "ports"), context);
    env::validate(errors, path, container);
    mounts(errors, path, container, context);
    resources::validate(errors, &path.field("resources"), &container["resources"]);
    let security = &container["securityContext"];
    pod_security::container(errors, &path.field("securityContext"), security);
}

/// Whether an init container goes on running beside the others.
fn restart_policy(errors: &mut Errors, path: &Path<'_>, container: &Value, role: Role) -> bool {
    let policy = text(container, "restartPolicy");
    if policy.is_empty() {
        return false;
    }
    let path = path.field("restartPolicy");
    match role {
        Role::Init => errors.one_of(&path, policy, &["Always"]),
        _ => errors.forbidden(&path, "may not be set for non-init containers"),
    }
    policy == "Always"
}

/// Probes and hooks: not for init containers that run to their end, nor for ephemeral ones.
fn by_role(errors: &mut Errors, path: &Path<'_>, container: &Value, role: Role, sidecar: bool) {
    let why = match role {
        Role::Main => None,
        Role::Init if sidecar => None,
        Role::Init => Some("may not be set for init containers without restartPolicy=Always"),
        Role::Ephemeral => Some("cannot be set for an Ephemeral Container"),
    };
    match why {
        None => probe::of_container(errors, path, container),
        Some(why) => {
            for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if container.get(key).is_some() {
                    errors.forbidden(&path.field(key), why);
                }
            }
        }
    }
}

fn ports(errors: &mut Errors, path: &Path<'_>, ports: &[Value], context: &Context<'_>) {
    let mut names = HashSet::new();
    for (at, port) in ports.iter().enumerate() {
        let here = path.index(at);
        let name = text(port, "name");
        if !name.is_empty() {
            let faults = port_name(name);
            if faults.is_empty() && !names.insert(name) {
                errors.duplicate(&here.field("name"), name);
            }
            errors.faults(&here.field("name"), name, faults);
        }
        let inside = number(port, "containerPort").unwrap_or(0);
        let outside = number(port, "hostPort").unwrap_or(0);
        if inside == 0 {
            errors.required(&here.field("containerPort"), "");
        } else {
            port_range(errors, &here.field("containerPort"), inside);
        }
        if outside != 0 {
            port_range(errors, &here.field("hostPort"), outside);
        }
        // A template's host ports are filled in when its pods are made.
        if context.host_network && (context.is_pod || outside != 0) && outside != inside {
            let why = "must match `containerPort` when `hostNetwork` is true";
            errors.invalid(&here.field("hostPort"), outside, why);
        }
        let protocol = text(port, "protocol");
        if protocol.is_empty() {
            errors.required(&here.field("protocol"), "");
        } else {
            errors.one_of(&here.field("protocol"), protocol, &PROTOCOLS);
        }
    }
}

pub(super) fn port_range(errors: &mut Errors, path: &Path<'_>, port: i64) {
    for fault in port_number(port) {
        errors.invalid(path, port, &fault);
    }
}

/// Two containers of a pod cannot have the same port of the host.
pub(super) fn host_port_conflicts(
    errors: &mut Errors,
    path: &Path<'_>,
    container: &Value,
    taken: &mut HashSet<String>,
) {
    let path = path.field("ports");
    for (at, port) in list(container, "ports").iter().enumerate() {
        let Some(number) = number(port, "hostPort").filter(|n| *n != 0) else { continue };
        let key = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
        if taken.contains(&key) {
            errors.duplicate(&path.index(at).field("hostPort"), key);
        } else {
            taken.insert(key);
        }
    }
}

fn mounts(errors: &mut Errors, path: &Path<'_>, container: &Value, context: &Context<'_>) {
    let path = path.field("volumeMounts");
    let mut places = HashSet::new();
    for (at, mount) in list(container, "volumeMounts").iter().enumerate() {
        let here = path.index(at);
        let (name, place) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.required(&here.field("name"), "");
        }
        if place.is_empty() {
            errors.required(&here.field("mountPath"), "");
        }
        if !context.volumes.contains(name) {
            errors.not_found(&here.field("name"), name);
        }
        if !places.insert(place) {
            errors.invalid(&here.field("mountPath"), place, "must be unique");
        }
        let (sub, expr) = (text(mount, "subPath"), text(mount, "subPathExpr"));
        for (key, value) in [("subPath", sub), ("subPathExpr", expr)] {
            if !value.is_empty() {
                local_path(errors, &here.field(key), value);
            }
        }
        if !sub.is_empty() && !expr.is_empty() {
            let why = "subPathExpr and subPath are mutually exclusive";
            errors.invalid(&here.field("subPathExpr"), expr, why);
        }
        propagation(errors, &here, container, mount);
    }
}

fn propagation(errors: &mut Errors, path: &Path<'_>, container: &Value, mount: &Value) {
    let propagation = text(mount, "mountPropagation");
    if propagation.is_empty() {
        return;
    }
    let path = path.field("mountPropagation");
    errors.one_of(&path, propagation, &["Bidirectional", "HostToContainer", "None"]);
    if propagation == "Bidirectional" && !flag(&container["securityContext"], "privileged") {
        let why = "Bidirectional mount propagation is available only to privileged containers";
        errors.forbidden(&path, why);
    }
}

/// A path below a volume: relative, and never out of it.
pub(super) fn local_path(errors: &mut Errors, path: &Path<'_>, value: &str) {
    if value.starts_with('/') {
        errors.invalid(path, value, "must be a relative path");
    }
    if value.split('/').any(|part| part == "..") {
        errors.invalid(path, value, "must not contain '..'");
    }
}

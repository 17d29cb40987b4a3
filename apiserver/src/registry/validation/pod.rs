//! Pods and pod templates.

use std::collections::HashSet;

use serde_json::Value;

use super::container::{self, Context, Role};
use super::names::{dns_label, ip, subdomain};
use super::{Errors, flag, list, map, meta, number, pod_security, scheduling, text, volume};
use crate::registry::FieldError;
use crate::registry::path::Path;

pub(in crate::registry) use super::pod_change::validate_change;

pub(in crate::registry) fn validate(pod: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    spec(&mut errors, &root.field("spec"), &pod["spec"], true);
    errors.into_vec()
}

pub(in crate::registry) fn validate_status(new: &Value, _old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::ROOT;
    let status = root.field("status");
    let ips = status.field("podIPs");
    for (at, entry) in list(&new["status"], "podIPs").iter().enumerate() {
        let address = text(entry, "ip");
        errors.faults(&ips.index(at), address, ip(address));
    }
    errors.into_vec()
}

/// The rules of a PodSpec. `is_pod`: of a pod itself, not of a template.
pub(super) fn spec(errors: &mut Errors, path: &Path<'_>, spec: &Value, is_pod: bool) {
    let volumes = volume::validate_all(errors, &path.field("volumes"), list(spec, "volumes"));
    containers(errors, path, spec, &volumes, is_pod);
    let restart = text(spec, "restartPolicy");
    errors.one_of(&path.field("restartPolicy"), restart, &["Always", "OnFailure", "Never"]);
    dns(errors, path, spec);
    if let Some(seconds) = number(spec, "terminationGracePeriodSeconds") {
        errors.non_negative(&path.field("terminationGracePeriodSeconds"), seconds);
    }
    if let Some(seconds) = number(spec, "activeDeadlineSeconds")
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let why = "must be between 1 and 2147483647, inclusive";
        errors.invalid(&path.field("activeDeadlineSeconds"), seconds, why);
    }
    meta::labels(errors, &path.field("nodeSelector"), map(spec, "nodeSelector"));
    for (field, check) in [
        ("serviceAccountName", subdomain as fn(&str) -> Vec<String>),
        ("nodeName", subdomain),
        ("priorityClassName", subdomain),
        ("runtimeClassName", subdomain),
        ("hostname", dns_label),
        ("subdomain", dns_label),
    ] {
        let value = text(spec, field);
        if !value.is_empty() {
            errors.faults(&path.field(field), value, check(value));
        }
    }
    let aliases = path.field("hostAliases");
    for (at, alias) in list(spec, "hostAliases").iter().enumerate() {
        let here = aliases.index(at);
        errors.faults(&here.field("ip"), text(alias, "ip"), ip(text(alias, "ip")));
        for name in list(alias, "hostnames").iter().filter_map(Value::as_str) {
            errors.faults(&here.field("hostnames"), name, subdomain(name));
        }
    }
    pod_security::pod(errors, &path.field("securityContext"), &spec["securityContext"]);
    scheduling::validate(errors, path, spec);
}

fn containers(
    errors: &mut Errors,
    path: &Path<'_>,
    spec: &Value,
    volumes: &HashSet<&str>,
    is_pod: bool,
) {
    let context = Context { volumes, host_network: flag(spec, "hostNetwork"), is_pod };
    let (init, main) = (path.field("initContainers"), path.field("containers"));
    if list(spec, "containers").is_empty() {
        errors.required(&main, "");
    }
    // Names are unique among all containers of a pod.
    let mut names = HashSet::new();
    let mut host_ports = HashSet::new();
    for (path, key, role) in
        [(&init, "initContainers", Role::Init), (&main, "containers", Role::Main)]
    {
        for (at, each) in list(spec, key).iter().enumerate() {
            let here = path.index(at);
            container::validate(errors, &here, each, role, &context);
            unique_name(errors, &here, each, &mut names);
            if role == Role::Main {
                container::host_port_conflicts(errors, &here, each, &mut host_ports);
            }
        }
    }
    let ephemeral = path.field("ephemeralContainers");
    for (at, each) in list(spec, "ephemeralContainers").iter().enumerate() {
        let here = ephemeral.index(at);
        if is_pod {
            container::validate(errors, &here, each, Role::Ephemeral, &context);
            unique_name(errors, &here, each, &mut names);
        } else {
            errors.forbidden(&ephemeral, "ephemeral containers not allowed in pod template");
            break;
        }
    }
}

fn unique_name<'a>(
    errors: &mut Errors,
    path: &Path<'_>,
    container: &'a Value,
    names: &mut HashSet<&'a str>,
) {
    let name = text(container, "name");
    if !name.is_empty() && !names.insert(name) {
        errors.duplicate(&path.field("name"), name);
    }
}

fn dns(errors: &mut Errors, path: &Path<'_>, spec: &Value) {
    let policy = text(spec, "dnsPolicy");
    let known = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    errors.one_of(&path.field("dnsPolicy"), policy, &known);
    let (config, path) = (&spec["dnsConfig"], path.field("dnsConfig"));
    let (servers, searches) = (list(config, "nameservers"), list(config, "searches"));
    let servers_path = path.field("nameservers");
    if policy == "None" {
        if config.is_null() {
            let why = "must provide `dnsConfig` when `dnsPolicy` is None";
            errors.required(&path, why);
            return;
        }
        if servers.is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.required(&servers_path, why);
        }
    }
    if servers.len() > 3 {
        errors.invalid(&servers_path, servers.to_vec(), "must not have more than 3 nameservers");
    }
    for (at, server) in servers.iter().filter_map(Value::as_str).enumerate() {
        errors.faults(&servers_path.index(at), server, ip(server));
    }
    let searches_path = path.field("searches");
    if searches.len() > 32 {
        let why = "must not have more than 32 search paths";
        errors.invalid(&searches_path, searches.to_vec(), why);
    }
    let options = path.field("options");
    for (at, option) in list(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            errors.required(&options.index(at), "must not be empty");
        }
    }
}

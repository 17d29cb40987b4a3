//! All kinds but pods.

use base64::Engine;
use serde_json::Value;

use super::{Page, Related, conditions};
use crate::columns::pairs;
use crate::manifest::text;

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub fn deployment(page: &mut Page, object: &Value, related: &Related) {
    let (spec, status) = (&object["spec"], &object["status"]);
    page.map(0, "Selector", &spec["selector"]["matchLabels"], "=");
    page.field(
        0,
        "Replicas",
        format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            number(&spec["replicas"]),
            number(&status["updatedReplicas"]),
            number(&status["replicas"]),
            number(&status["availableReplicas"]),
            number(&status["unavailableReplicas"])
        ),
    );
    page.field(0, "StrategyType", text(spec, &["strategy", "type"]));
    page.field(0, "MinReadySeconds", number(&spec["minReadySeconds"]).to_string());
    let rolling = &spec["strategy"]["rollingUpdate"];
    if rolling.is_object() {
        let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let line = format!(
            "{} max unavailable, {} max surge",
            text(&rolling["maxUnavailable"]),
            text(&rolling["maxSurge"])
        );
        page.field(0, "RollingUpdateStrategy", line);
    }
    template(page, &spec["template"]);
    conditions(page, &status["conditions"]);
    let hash = |rs: &&Value| number(&rs["spec"]["replicas"]) > 0;
    let sets: Vec<_> = related
        .replica_sets
        .iter()
        .filter(hash)
        .map(|rs| {
            let (wanted, there) =
                (number(&rs["spec"]["replicas"]), number(&rs["status"]["replicas"]));
            format!("{} ({there}/{wanted} replicas created)", text(rs, &["metadata", "name"]))
        })
        .collect();
    page.field(0, "ReplicaSets", sets.join(", "));
}

pub fn replica_set(page: &mut Page, object: &Value) {
    let (spec, status) = (&object["spec"], &object["status"]);
    page.map(0, "Selector", &spec["selector"]["matchLabels"], "=");
    page.field(
        0,
        "Replicas",
        format!("{} current / {} desired", number(&status["replicas"]), number(&spec["replicas"])),
    );
    page.field(0, "Ready Replicas", number(&status["readyReplicas"]).to_string());
    template(page, &spec["template"]);
}

fn template(page: &mut Page, template: &Value) {
    page.section(0, "Pod Template");
    page.map(1, "Labels", &template["metadata"]["labels"], "=");
    for container in list(&template["spec"]["containers"]) {
        page.section(1, text(container, &["name"]));
        page.field(2, "Image", text(container, &["image"]));
        let ports: Vec<_> =
            list(&container["ports"]).map(|p| p["containerPort"].to_string()).collect();
        page.field(2, "Ports", ports.join(", "));
    }
}

pub fn service(page: &mut Page, object: &Value, related: &Related) {
    let spec = &object["spec"];
    page.map(0, "Selector", &spec["selector"], "=");
    page.field(0, "Type", text(spec, &["type"]));
    page.field(0, "IP", text(spec, &["clusterIP"]));
    for port in list(&spec["ports"]) {
        let protocol = text(port, &["protocol"]);
        let name = text(port, &["name"]);
        let name = if name.is_empty() { "<unset>" } else { name };
        page.field(0, "Port", format!("{name}  {}/{protocol}", number(&port["port"])));
        let target = &port["targetPort"];
        page.field(
            0,
            "TargetPort",
            format!(
                "{}/{protocol}",
                target.as_str().map_or_else(|| target.to_string(), str::to_owned)
            ),
        );
        if number(&port["nodePort"]) > 0 {
            page.field(0, "NodePort", format!("{name}  {}/{protocol}", number(&port["nodePort"])));
        }
        page.field(0, "Endpoints", endpoints(&related.slices, name));
    }
    page.field(0, "Session Affinity", text(spec, &["sessionAffinity"]));
}

fn endpoints(slices: &[Value], port_name: &str) -> String {
    let mut found = Vec::new();
    for slice in slices {
        for port in list(&slice["ports"])
            .filter(|p| text(p, &["name"]) == port_name || port_name == "<unset>")
        {
            for endpoint in list(&slice["endpoints"]).filter(|e| e["conditions"]["ready"] != false)
            {
                found.extend(
                    list(&endpoint["addresses"])
                        .filter_map(Value::as_str)
                        .map(|ip| format!("{ip}:{}", port["port"])),
                );
            }
        }
    }
    found.join(",")
}

pub fn node(page: &mut Page, object: &Value, related: &Related) {
    let (spec, status) = (&object["spec"], &object["status"]);
    let taint = |t: &Value| {
        let value = text(t, &["value"]);
        let value = if value.is_empty() { String::new() } else { format!("={value}") };
        format!("{}{value}:{}", text(t, &["key"]), text(t, &["effect"]))
    };
    page.field(0, "Taints", list(&spec["taints"]).map(taint).collect::<Vec<_>>().join(", "));
    page.field(0, "Unschedulable", (spec["unschedulable"] == true).to_string());
    conditions(page, &status["conditions"]);
    page.section(0, "Addresses");
    for address in list(&status["addresses"]) {
        page.field(1, text(address, &["type"]), text(address, &["address"]));
    }
    for (title, field) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
        page.map(0, title, &status[field], ": ");
    }
    page.section(0, "System Info");
    for (key, value) in status["nodeInfo"].as_object().into_iter().flatten() {
        page.field(1, key, value.as_str().unwrap_or_default());
    }
    page.field(0, "PodCIDR", text(spec, &["podCIDR"]));
    let running = |p: &&Value| !matches!(text(p, &["status", "phase"]), "Succeeded" | "Failed");
    let rows: Vec<_> = related
        .pods
        .iter()
        .filter(running)
        .map(|p| {
            vec![
                text(p, &["metadata", "namespace"]).to_owned(),
                text(p, &["metadata", "name"]).to_owned(),
            ]
        })
        .collect();
    page.section(0, &format!("Non-terminated Pods ({} in total)", rows.len()));
    page.table(1, &["Namespace", "Name"], &rows);
}

pub fn ingress(page: &mut Page, object: &Value) {
    let spec = &object["spec"];
    page.field(0, "Ingress Class", text(spec, &["ingressClassName"]));
    let addresses: Vec<_> =
        list(&object["status"]["loadBalancer"]["ingress"]).map(|i| text(i, &["ip"])).collect();
    page.field(0, "Address", addresses.join(","));
    let backend = |b: &Value| {
        let port = &b["service"]["port"];
        let port = port["name"].as_str().map_or_else(|| port["number"].to_string(), str::to_owned);
        format!("{}:{port}", text(b, &["service", "name"]))
    };
    let default = &spec["defaultBackend"];
    page.field(
        0,
        "Default backend",
        if default.is_object() { backend(default) } else { "<default>".into() },
    );
    page.section(0, "Rules");
    let mut rows = Vec::new();
    for rule in list(&spec["rules"]) {
        let host = match text(rule, &["host"]) {
            "" => "*",
            host => host,
        };
        for path in list(&rule["http"]["paths"]) {
            let (at, kind) = (text(path, &["path"]), text(path, &["pathType"]));
            rows.push(vec![
                host.to_owned(),
                at.to_owned(),
                kind.to_owned(),
                backend(&path["backend"]),
            ]);
        }
    }
    page.table(1, &["Host", "Path", "PathType", "Backend"], &rows);
}

pub fn config_map(page: &mut Page, object: &Value) {
    page.section(0, "Data");
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        page.section(1, key);
        value.as_str().unwrap_or_default().lines().for_each(|line| page.line(2, line));
    }
}

pub fn secret(page: &mut Page, object: &Value) {
    page.field(0, "Type", text(object, &["type"]));
    page.section(0, "Data");
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default());
        page.field(1, key, format!("{} bytes", bytes.map_or(0, |b| b.len())));
    }
}

/// Kinds without a page of their own: their fields as they are.
pub fn other(page: &mut Page, object: &Value) {
    let hidden = ["apiVersion", "kind", "metadata"];
    for (key, value) in
        object.as_object().into_iter().flatten().filter(|(k, _)| !hidden.contains(&k.as_str()))
    {
        tree(page, 0, key, value);
    }
}

fn tree(page: &mut Page, depth: usize, key: &str, value: &Value) {
    match value {
        Value::Object(map) if map.values().all(Value::is_string) => {
            page.field(depth, key, pairs(value))
        }
        Value::Object(map) => {
            page.section(depth, key);
            map.iter().for_each(|(k, v)| tree(page, depth + 1, k, v));
        }
        Value::Array(items) => {
            page.section(depth, key);
            items.iter().enumerate().for_each(|(n, v)| tree(page, depth + 1, &n.to_string(), v));
        }
        Value::String(text) => page.field(depth, key, text.as_str()),
        other => page.field(depth, key, other.to_string()),
    }
}

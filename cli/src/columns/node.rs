//! Nodes.

use std::time::SystemTime;

use serde_json::Value;

use super::{Columns, age, list, name, or};
use crate::manifest::text;

pub const NODE: Columns = Columns {
    header: &["NAME", "STATUS", "ROLES", "AGE", "VERSION"],
    wide: &["INTERNAL-IP", "EXTERNAL-IP", "OS-IMAGE", "KERNEL-VERSION", "CONTAINER-RUNTIME"],
    cells,
};

const ROLE_LABEL: &str = "node-role.kubernetes.io/";

fn cells(node: &Value, now: SystemTime) -> Vec<String> {
    let info = |key: &str| or(text(node, &["status", "nodeInfo", key]), "<unknown>");
    let address = |kind: &str| {
        let found = list(&node["status"]["addresses"]).find(|a| a["type"] == kind);
        or(found.map(|a| text(a, &["address"])).unwrap_or_default(), "<none>")
    };
    vec![
        name(node),
        status(node),
        roles(node),
        age(node, now),
        text(node, &["status", "nodeInfo", "kubeletVersion"]).to_owned(),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn status(node: &Value) -> String {
    let ready = list(&node["status"]["conditions"]).find(|c| c["type"] == "Ready");
    let mut text = match ready.and_then(|c| c["status"].as_str()) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        text.push_str(",SchedulingDisabled");
    }
    text
}

fn roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object();
    let roles: Vec<_> =
        labels.into_iter().flatten().filter_map(|(key, _)| key.strip_prefix(ROLE_LABEL)).collect();
    or(&roles.join(","), "<none>")
}

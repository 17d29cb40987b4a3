//! The columns of `get`, kind by kind, as kubectl users know them. Pure: an object and the
//! time in, cells out.

mod apps;
mod core;
mod net;
mod node;
mod pod;

use std::time::SystemTime;

use serde_json::Value;
use skiff_client::ResourceInfo;
use skiff_proto::{Timestamp, duration};

use crate::manifest::text;
use crate::table;

pub use pod::status as pod_status;

/// How one kind is shown. Wide columns come after the others.
pub struct Columns {
    header: &'static [&'static str],
    wide: &'static [&'static str],
    /// All cells, the wide ones too.
    cells: fn(&Value, SystemTime) -> Vec<String>,
}

/// What surrounds the table.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    pub wide: bool,
    pub all_namespaces: bool,
    pub show_labels: bool,
    pub no_headers: bool,
    /// Names as `pod/web`, when several kinds are shown.
    pub with_kind: bool,
}

fn of(kind: &str) -> Columns {
    match kind {
        "Pod" => pod::POD,
        "Node" => node::NODE,
        "Service" => core::SERVICE,
        "Endpoints" => core::ENDPOINTS,
        "ConfigMap" => core::CONFIG_MAP,
        "Secret" => core::SECRET,
        "ServiceAccount" => core::SERVICE_ACCOUNT,
        "Namespace" => core::NAMESPACE,
        "Event" => core::EVENT,
        "Deployment" => apps::DEPLOYMENT,
        "ReplicaSet" => apps::REPLICA_SET,
        "EndpointSlice" => net::ENDPOINT_SLICE,
        "Ingress" => net::INGRESS,
        "IngressClass" => net::INGRESS_CLASS,
        "Lease" => net::LEASE,
        _ => OTHER,
    }
}

const OTHER: Columns =
    Columns { header: &["NAME", "AGE"], wide: &[], cells: |o, now| vec![name(o), age(o, now)] };

/// The table of one kind's objects.
pub fn table(info: &ResourceInfo, objects: &[Value], style: Style, now: SystemTime) -> String {
    let columns = of(&info.kind);
    let mut header: Vec<&str> = Vec::new();
    if style.all_namespaces && info.namespaced {
        header.push("NAMESPACE");
    }
    header.extend(columns.header);
    if style.wide {
        header.extend(columns.wide);
    }
    if style.show_labels {
        header.push("LABELS");
    }
    let rows: Vec<_> =
        objects.iter().map(|object| row(info, &columns, object, style, now)).collect();
    table::layout(&header, &rows, !style.no_headers)
}

fn row(
    info: &ResourceInfo,
    columns: &Columns,
    object: &Value,
    style: Style,
    now: SystemTime,
) -> Vec<String> {
    let mut cells = (columns.cells)(object, now);
    cells.truncate(columns.header.len() + if style.wide { columns.wide.len() } else { 0 });
    if style.with_kind
        && info.kind != "Event"
        && let Some(first) = cells.first_mut()
    {
        *first = crate::resources::singular_name(info, first);
    }
    let mut row = Vec::new();
    if style.all_namespaces && info.namespaced {
        row.push(text(object, &["metadata", "namespace"]).to_owned());
    }
    row.extend(cells);
    if style.show_labels {
        row.push(pairs(&object["metadata"]["labels"]));
    }
    row
}

fn name(object: &Value) -> String {
    text(object, &["metadata", "name"]).to_owned()
}

fn age(object: &Value, now: SystemTime) -> String {
    since(text(object, &["metadata", "creationTimestamp"]), now)
}

/// Time passed since an RFC 3339 time, or `<unknown>`.
pub fn since(time: &str, now: SystemTime) -> String {
    match Timestamp::parse(time) {
        Some(at) => duration::human(at.elapsed_at(now)),
        None => "<unknown>".into(),
    }
}

fn count(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn size(value: &Value) -> usize {
    value.as_object().map_or(0, |map| map.len()) + value.as_array().map_or(0, |list| list.len())
}

/// `a=b,c=d`, or `<none>`.
pub fn pairs(map: &Value) -> String {
    let Some(map) = map.as_object().filter(|m| !m.is_empty()) else { return "<none>".into() };
    let pair = |(k, v): (&String, &Value)| format!("{k}={}", v.as_str().unwrap_or_default());
    map.iter().map(pair).collect::<Vec<_>>().join(",")
}

fn or(text: &str, otherwise: &str) -> String {
    if text.is_empty() { otherwise.to_owned() } else { text.to_owned() }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Names, and images, of a pod template's containers, joined by commas.
fn containers(spec: &Value, field: &str) -> String {
    list(&spec["containers"])
        .map(|c| c[field].as_str().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn now() -> SystemTime {
        Timestamp::parse("2024-01-01T01:00:00Z").expect("a time").system_time()
    }

    pub(crate) fn info(kind: &str) -> ResourceInfo {
        ResourceInfo {
            resource: skiff_proto::Resource::new("", "v1", "things"),
            kind: kind.into(),
            singular: kind.to_ascii_lowercase(),
            short_names: vec![],
            categories: vec![],
            namespaced: true,
            verbs: vec![],
            subresources: vec![],
        }
    }

    #[test]
    fn namespace_kind_and_labels_surround_the_columns() {
        let object = json!({"metadata": {"name": "a", "namespace": "n", "creationTimestamp": "2024-01-01T00:00:00Z", "labels": {"x": "y"}}});
        let style = Style {
            all_namespaces: true,
            show_labels: true,
            with_kind: true,
            ..Default::default()
        };
        assert_eq!(
            table(&info("Widget"), &[object], style, now()),
            "NAMESPACE   NAME       AGE   LABELS\nn           widget/a   60m   x=y\n"
        );
    }
}

//! What `describe` says of an object. Pure: objects and the time in, text out.

mod kinds;
mod pod;

use std::time::SystemTime;

use serde_json::Value;

use crate::columns::since;
use crate::manifest::text;
use crate::table;

/// Objects that are told along with the described one.
#[derive(Debug, Default)]
pub struct Related {
    /// `None`: not asked for.
    pub events: Option<Vec<Value>>,
    pub slices: Vec<Value>,
    pub pods: Vec<Value>,
    pub replica_sets: Vec<Value>,
}

pub fn describe(object: &Value, related: &Related, now: SystemTime) -> String {
    let mut page = Page::default();
    head(&mut page, object);
    match text(object, &["kind"]) {
        "Pod" => pod::describe(&mut page, object),
        "Deployment" => kinds::deployment(&mut page, object, related),
        "ReplicaSet" => kinds::replica_set(&mut page, object),
        "Service" => kinds::service(&mut page, object, related),
        "Node" => kinds::node(&mut page, object, related),
        "Ingress" => kinds::ingress(&mut page, object),
        "ConfigMap" => kinds::config_map(&mut page, object),
        "Secret" => kinds::secret(&mut page, object),
        _ => kinds::other(&mut page, object),
    }
    if let Some(list) = &related.events {
        events(&mut page, list, now);
    }
    page.finish()
}

/// Lines of `Key:  value`, nested by indentation; values of one level stand in one column.
#[derive(Default)]
pub struct Page {
    lines: Vec<(usize, String, String)>,
}

impl Page {
    pub fn field(&mut self, depth: usize, key: &str, value: impl Into<String>) {
        let value = value.into();
        self.lines.push((
            depth,
            format!("{key}:"),
            if value.is_empty() { "<none>".into() } else { value },
        ));
    }

    /// A key whose lines follow.
    pub fn section(&mut self, depth: usize, key: &str) {
        self.lines.push((depth, format!("{key}:"), String::new()));
    }

    /// A line of its own, such as a row of a table.
    pub fn line(&mut self, depth: usize, text: &str) {
        self.lines.push((depth, text.to_owned(), String::new()));
    }

    pub fn table(&mut self, depth: usize, header: &[&str], rows: &[Vec<String>]) {
        for line in table::layout(header, rows, true).lines() {
            self.line(depth, line);
        }
    }

    /// Labels, annotations, selectors: one pair a line, the first beside the key.
    pub fn map(&mut self, depth: usize, key: &str, map: &Value, separator: &str) {
        let Some(map) = map.as_object().filter(|m| !m.is_empty()) else {
            return self.field(depth, key, "");
        };
        for (n, (k, v)) in map.iter().enumerate() {
            let head = if n == 0 { format!("{key}:") } else { String::new() };
            self.lines.push((
                depth,
                head,
                format!("{k}{separator}{}", v.as_str().unwrap_or_default().trim_end()),
            ));
        }
    }

    fn finish(self) -> String {
        const INDENT: &str = "  ";
        let widest = |depth: usize| {
            let keys = self.lines.iter().filter(|(d, _, value)| *d == depth && !value.is_empty());
            keys.map(|(_, key, _)| key.chars().count()).max().unwrap_or(0)
        };
        let mut out = String::new();
        for (depth, key, value) in &self.lines {
            let width = widest(*depth) + 2;
            let line = match value.is_empty() {
                true => format!("{}{key}", INDENT.repeat(*depth)),
                false => format!("{}{key:<width$}{value}", INDENT.repeat(*depth)),
            };
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

fn head(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(object, &["metadata", "name"]));
    let namespace = text(object, &["metadata", "namespace"]);
    if !namespace.is_empty() {
        page.field(0, "Namespace", namespace);
    }
    page.map(0, "Labels", &object["metadata"]["labels"], "=");
    let mut annotations = object["metadata"]["annotations"].clone();
    if let Some(map) = annotations.as_object_mut() {
        map.remove(crate::merge::LAST_APPLIED);
    }
    page.map(0, "Annotations", &annotations, ": ");
    page.field(0, "CreationTimestamp", text(object, &["metadata", "creationTimestamp"]));
    let deletion = text(object, &["metadata", "deletionTimestamp"]);
    if !deletion.is_empty() {
        page.field(0, "DeletionTimestamp", deletion);
    }
}

fn events(page: &mut Page, list: &[Value], now: SystemTime) {
    if list.is_empty() {
        return page.field(0, "Events", "");
    }
    page.section(0, "Events");
    let mut sorted: Vec<&Value> = list.iter().collect();
    sorted.sort_by_key(|e| text(e, &["lastTimestamp"]).to_owned());
    let row = |e: &&Value| {
        let age = since(text(e, &["lastTimestamp"]), now);
        let count = e["count"].as_i64().unwrap_or(1);
        let age = match count {
            0 | 1 => age,
            n => format!("{age} (x{n} over {})", since(text(e, &["firstTimestamp"]), now)),
        };
        let field = |key: &str| text(e, &[key]).to_owned();
        vec![
            field("type"),
            field("reason"),
            age,
            text(e, &["source", "component"]).to_owned(),
            field("message"),
        ]
    };
    let rows: Vec<_> = sorted.iter().map(row).collect();
    page.table(1, &["Type", "Reason", "Age", "From", "Message"], &rows);
}

/// Conditions as a table of type and status, with the reason when there is one.
fn conditions(page: &mut Page, list: &Value) {
    let rows: Vec<Vec<String>> = list
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| {
            ["type", "status", "reason", "message"].map(|key| text(c, &[key]).to_owned()).to_vec()
        })
        .collect();
    if !rows.is_empty() {
        page.section(0, "Conditions");
        page.table(1, &["Type", "Status", "Reason", "Message"], &rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_stand_in_one_column_and_events_come_last() {
        let now =
            skiff_proto::Timestamp::parse("2024-01-01T01:00:00Z").expect("a time").system_time();
        let object = json!({"kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n", "labels": {"x": "1", "y": "2"},
            "creationTimestamp": "2024-01-01T00:00:00Z"}, "data": {"k": "v"}});
        let event = json!({"type": "Normal", "reason": "Made", "message": "made it", "lastTimestamp": "2024-01-01T00:59:00Z",
            "firstTimestamp": "2024-01-01T00:00:00Z", "count": 3, "source": {"component": "test"}});
        let related = Related { events: Some(vec![event]), ..Default::default() };
        assert_eq!(
            describe(&object, &related, now),
            "Name:               a\n\
             Namespace:          n\n\
             Labels:             x=1\n\
             \x20                   y=2\n\
             Annotations:        <none>\n\
             CreationTimestamp:  2024-01-01T00:00:00Z\n\
             Data:\n\
             \x20 k:\n\
             \x20   v\n\
             Events:\n\
             \x20 Type     Reason   Age                 From   Message\n\
             \x20 Normal   Made     60s (x3 over 60m)   test   made it\n"
        );
    }
}

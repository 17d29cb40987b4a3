//! Patches: JSON merge (RFC 7386), and of strategic merge what components here send, which
//! is maps, and lists that merge by a key. JSON patches are not served.

use bytes::Bytes;
use serde_json::Value;
use skiff_proto::Status;

use crate::api::{Patch, Result};

/// Lists that merge, by the field that tells their elements apart. All others are replaced.
const MERGE_KEYS: &[(&str, &str)] = &[
    ("conditions", "type"),
    ("addresses", "type"),
    ("containers", "name"),
    ("initContainers", "name"),
    ("env", "name"),
    ("volumes", "name"),
    ("ports", "containerPort"),
    ("ownerReferences", "uid"),
];

pub fn apply(value: &mut Value, patch: Patch) -> Result<()> {
    let (patch, strategic) = match patch {
        Patch::Merge(json) => (json, false),
        Patch::Strategic(json) => (json, true),
        Patch::Json(_) => return Err(Status::bad_request("the fake takes no JSON patches")),
    };
    merge(value, parse(&patch)?, strategic);
    Ok(())
}

fn parse(json: &Bytes) -> Result<Value> {
    let parsed = serde_json::from_slice(json);
    parsed.map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))
}

fn merge(into: &mut Value, patch: Value, strategic: bool) {
    let Value::Object(fields) = patch else {
        *into = patch;
        return;
    };
    if !into.is_object() {
        *into = Value::Object(serde_json::Map::new());
    }
    let Some(map) = into.as_object_mut() else { return };
    for (name, patch) in fields {
        let key = MERGE_KEYS.iter().find(|(list, _)| strategic && *list == name);
        match (patch, key) {
            (Value::Null, _) => drop(map.remove(&name)),
            (Value::Array(patch), Some((_, key))) => {
                merge_list(map.entry(name).or_insert(Value::Null), patch, key);
            }
            (patch, _) => merge(map.entry(name).or_insert(Value::Null), patch, strategic),
        }
    }
}

fn merge_list(into: &mut Value, patch: Vec<Value>, key: &str) {
    if !into.is_array() {
        *into = Value::Array(Vec::new());
    }
    let Some(list) = into.as_array_mut() else { return };
    for element in patch {
        match list.iter_mut().find(|known| known[key] == element[key]) {
            Some(known) => merge(known, element, true),
            None => list.push(element),
        }
    }
}

//! Nodes: the machines.

use serde_json::Value;

use crate::registry::Kind;
use crate::registry::strategy::Rules;
use crate::registry::tables::node::NODE;
use crate::registry::validation::node;

pub static NODE_KIND: Kind = Kind {
    resource: skiff_proto::resource::NODES,
    kind: "Node",
    singular: "node",
    short_names: &["no"],
    categories: &[],
    namespaced: false,
    subresources: &["status"],
    fields: &NODE,
    defaults,
    strategy: &RULES,
    selectable: &["spec.unschedulable"],
};

static RULES: Rules = Rules {
    has_status: true,
    keeps_status_on_create: true,
    validate: node::validate,
    validate_change: node::validate_change,
    ..Rules::CLUSTER
};

/// What a node can hold can be given away, unless it says otherwise.
fn defaults(node: &mut Value) {
    let Some(status) = node.get_mut("status").and_then(Value::as_object_mut) else { return };
    if let Some(capacity) = status.get("capacity").cloned() {
        status.entry("allocatable").or_insert(capacity);
    }
}

//! Nodes: the machines.

use crate::registry::Kind;
use crate::registry::strategy::Rules;
use crate::registry::tables::node::NODE;

pub static NODE_KIND: Kind = Kind {
    resource: skiff_proto::resource::NODES,
    kind: "Node",
    singular: "node",
    short_names: &["no"],
    categories: &[],
    namespaced: false,
    subresources: &["status"],
    fields: &NODE,
    defaults: |_| {},
    strategy: &RULES,
    selectable: &["spec.unschedulable"],
};

static RULES: Rules = Rules { has_status: true,  ..Rules::CLUSTER };

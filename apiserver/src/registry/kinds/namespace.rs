//! Namespaces: where names are unique.

use crate::registry::Kind;
use crate::registry::strategy::Rules;
use crate::registry::tables::node::NAMESPACE;

pub static NAMESPACE_KIND: Kind = Kind {
    resource: skiff_proto::resource::NAMESPACES,
    kind: "Namespace",
    singular: "namespace",
    short_names: &["ns"],
    categories: &[],
    namespaced: false,
    subresources: &["status", "finalize"],
    fields: &NAMESPACE,
    defaults: |_| {},
    strategy: &RULES,
    selectable: &["status.phase"],
};

static RULES: Rules = Rules { has_status: true,  ..Rules::CLUSTER };

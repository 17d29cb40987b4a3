//! ReplicaSets.

use crate::registry::Kind;
use crate::registry::strategy::Rules;
use crate::registry::tables::workload::REPLICA_SET;
use crate::registry::validation::workload;

pub static REPLICA_SET_KIND: Kind = Kind {
    resource: skiff_proto::resource::REPLICA_SETS,
    kind: "ReplicaSet",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    namespaced: true,
    subresources: &["status", "scale"],
    fields: &REPLICA_SET,
    defaults: crate::registry::defaults::pod::template,
    strategy: &RULES,
    selectable: &["status.replicas"],
};

static RULES: Rules = Rules {
    has_status: true,
    has_generation: true,
    validate: workload::replica_set,
    validate_change: workload::selector_is_immutable,
    ..Rules::NAMESPACED
};

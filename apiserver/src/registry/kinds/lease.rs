//! Leases: heartbeats and elected leaders.

use crate::registry::Kind;
use crate::registry::strategy::Rules;
use crate::registry::tables::config::LEASE;
use crate::registry::validation::config;

pub static LEASE_KIND: Kind = Kind {
    resource: skiff_proto::resource::LEASES,
    kind: "Lease",
    singular: "lease",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    fields: &LEASE,
    defaults: |_| {},
    strategy: &RULES,
    selectable: &[],
};

static RULES: Rules = Rules { validate: config::lease, ..Rules::NAMESPACED };

//! Ingresses: HTTP from outside to Services.

use crate::registry::Kind;
use crate::registry::strategy::Rules;
use crate::registry::tables::networking::INGRESS;
use crate::registry::validation::ingress;

pub static INGRESS_KIND: Kind = Kind {
    resource: skiff_proto::resource::INGRESSES,
    kind: "Ingress",
    singular: "ingress",
    short_names: &["ing"],
    categories: &[],
    namespaced: true,
    subresources: &["status"],
    fields: &INGRESS,
    defaults: |_| {},
    strategy: &RULES,
    selectable: &[],
};

static RULES: Rules = Rules {
    has_status: true,
    has_generation: true,
    validate: ingress::validate,
    ..Rules::NAMESPACED
};

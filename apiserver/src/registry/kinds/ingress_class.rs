//! IngressClasses: who serves an Ingress.

use crate::registry::Kind;
use crate::registry::strategy::Rules;
use crate::registry::tables::networking::INGRESS_CLASS;
use crate::registry::validation::ingress;

pub static INGRESS_CLASS_KIND: Kind = Kind {
    resource: skiff_proto::resource::INGRESS_CLASSES,
    kind: "IngressClass",
    singular: "ingressclass",
    short_names: &[],
    categories: &[],
    namespaced: false,
    subresources: &[],
    fields: &INGRESS_CLASS,
    defaults: |_| {},
    strategy: &RULES,
    selectable: &[],
};

static RULES: Rules = Rules {
    has_generation: true,
    validate: ingress::validate_class,
    validate_change: ingress::class_change,
    ..Rules::CLUSTER
};

//! EndpointSlices: where the pods of a Service are.

use crate::registry::Kind;
use crate::registry::strategy::Rules;
use crate::registry::tables::networking::ENDPOINT_SLICE;
use crate::registry::validation::endpoints;

pub static ENDPOINT_SLICE_KIND: Kind = Kind {
    resource: skiff_proto::resource::ENDPOINT_SLICES,
    kind: "EndpointSlice",
    singular: "endpointslice",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    fields: &ENDPOINT_SLICE,
    defaults: |_| {},
    strategy: &RULES,
    selectable: &[],
};

static RULES: Rules = Rules {
    has_generation: true,
    validate: endpoints::slice,
    validate_change: endpoints::slice_change,
    ..Rules::NAMESPACED
};

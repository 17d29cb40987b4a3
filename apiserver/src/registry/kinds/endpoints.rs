//! Endpoints: the older form of EndpointSlices.

use crate::registry::Kind;
use crate::registry::strategy::Rules;
use crate::registry::tables::service::ENDPOINTS;
use crate::registry::validation::endpoints;

pub static ENDPOINTS_KIND: Kind = Kind {
    resource: skiff_proto::resource::ENDPOINTS,
    kind: "Endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    categories: &[],
    namespaced: true,
    subresources: &[],
    fields: &ENDPOINTS,
    defaults: |_| {},
    strategy: &RULES,
    selectable: &[],
};

static RULES: Rules = Rules { validate: endpoints::endpoints, ..Rules::NAMESPACED };

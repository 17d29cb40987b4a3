//! Services.

use crate::registry::Kind;
use crate::registry::strategy::Rules;
use crate::registry::tables::service::SERVICE;

pub static SERVICE_KIND: Kind = Kind {
    resource: skiff_proto::resource::SERVICES,
    kind: "Service",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    namespaced: true,
    subresources: &["status"],
    fields: &SERVICE,
    defaults: crate::registry::defaults::service::service,
    strategy: &RULES,
    selectable: &["spec.clusterIP", "spec.type"],
};

static RULES: Rules = Rules { has_status: true,  ..Rules::NAMESPACED };

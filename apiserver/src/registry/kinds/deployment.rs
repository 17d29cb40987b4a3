//! Deployments.

use crate::registry::Kind;
use crate::registry::strategy::Rules;
use crate::registry::tables::workload::DEPLOYMENT;

pub static DEPLOYMENT_KIND: Kind = Kind {
    resource: skiff_proto::resource::DEPLOYMENTS,
    kind: "Deployment",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    namespaced: true,
    subresources: &["status", "scale"],
    fields: &DEPLOYMENT,
    defaults: crate::registry::defaults::pod::template,
    strategy: &RULES,
    selectable: &[],
};

static RULES: Rules = Rules { has_status: true, has_generation: true,  ..Rules::NAMESPACED };

//! Deployments.

use serde_json::{Value, json};

use crate::registry::Kind;
use crate::registry::defaults::pod::template;
use crate::registry::strategy::Rules;
use crate::registry::tables::workload::DEPLOYMENT;
use crate::registry::validation::workload;

pub static DEPLOYMENT_KIND: Kind = Kind {
    resource: skiff_proto::resource::DEPLOYMENTS,
    kind: "Deployment",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    namespaced: true,
    subresources: &["status", "scale"],
    fields: &DEPLOYMENT,
    defaults,
    strategy: &RULES,
    selectable: &[],
};

static RULES: Rules = Rules {
    has_status: true,
    has_generation: true,
    validate: workload::deployment,
    validate_change: workload::selector_is_immutable,
    ..Rules::NAMESPACED
};

fn defaults(deployment: &mut Value) {
    template(deployment);
    let strategy = &mut deployment["spec"]["strategy"];
    if strategy["type"] == "RollingUpdate" && strategy["rollingUpdate"].is_null() {
        strategy["rollingUpdate"] = json!({"maxUnavailable": "25%", "maxSurge": "25%"});
    }
}

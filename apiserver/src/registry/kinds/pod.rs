//! Pods.

use crate::registry::Kind;
use crate::registry::strategy::Rules;
use crate::registry::tables::pod::POD;

pub static POD_KIND: Kind = Kind {
    resource: skiff_proto::resource::PODS,
    kind: "Pod",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    namespaced: true,
    subresources: &["status", "binding", "eviction", "log", "exec"],
    fields: &POD,
    defaults: crate::registry::defaults::pod::pod,
    strategy: &RULES,
    selectable: &["spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork", "status.phase", "status.podIP", "status.nominatedNodeName"],
};

static RULES: Rules = Rules { has_status: true,  ..Rules::NAMESPACED };

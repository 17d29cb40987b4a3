//! Events: what happened to an object.

use crate::registry::Kind;
use crate::registry::strategy::Rules;
use crate::registry::tables::event::EVENT;
use crate::registry::validation::config;

pub static EVENT_KIND: Kind = Kind {
    resource: skiff_proto::resource::EVENTS,
    kind: "Event",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    namespaced: true,
    subresources: &[],
    fields: &EVENT,
    defaults: |_| {},
    strategy: &RULES,
    selectable: &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
};

static RULES: Rules = Rules { validate: config::event, ..Rules::NAMESPACED };

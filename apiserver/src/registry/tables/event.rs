//! Events of the core group.

use super::meta::{OBJECT_META, OBJECT_REFERENCE};
use crate::registry::field_table::*;

pub static EVENT: FieldTable = table(
    "Event",
    &[
        string("apiVersion"),
        string("kind"),
        object("metadata", &OBJECT_META).required(),
        object("involvedObject", &OBJECT_REFERENCE).required().or_empty(),
        string("reason"),
        string("message"),
        object("source", &EVENT_SOURCE).or_empty(),
        time("firstTimestamp"),
        time("lastTimestamp"),
        int32("count"),
        string("type"),
        micro_time("eventTime"),
        object("series", &EVENT_SERIES),
        string("action"),
        object("related", &OBJECT_REFERENCE),
        string("reportingComponent").required().or(""),
        string("reportingInstance").required().or(""),
    ],
);

pub static EVENT_SOURCE: FieldTable = table("EventSource", &[string("component"), string("host")]);

pub static EVENT_SERIES: FieldTable =
    table("EventSeries", &[int32("count"), micro_time("lastObservedTime")]);

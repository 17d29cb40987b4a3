//! Event (core/v1).

use crate::meta::{ObjectMeta, ObjectReference};
use crate::timestamp::Timestamp;

model! {
    Event {
        metadata: ObjectMeta,
        involved_object: ObjectReference,
        reason: String,
        message: String,
        source: EventSource,
        first_timestamp: Option<Timestamp>,
        last_timestamp: Option<Timestamp>,
        count: i32,
        /// `Normal` or `Warning`.
        #[serde(rename = "type")] type_: String,
        event_time: Option<Timestamp>,
        action: String,
        reporting_component: String,
        reporting_instance: String,
    }
    EventSource { component: String, host: String }
}

//! Lease: heartbeats and leader election.

use crate::meta::ObjectMeta;
use crate::timestamp::Timestamp;

model! {
    Lease { metadata: ObjectMeta, spec: LeaseSpec }
    LeaseSpec {
        holder_identity: Option<String>,
        lease_duration_seconds: Option<i32>,
        acquire_time: Option<Timestamp>,
        renew_time: Option<Timestamp>,
        lease_transitions: Option<i32>,
    }
}

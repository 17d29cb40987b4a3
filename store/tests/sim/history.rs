//! What clients asked, what they were told, and in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use skiff_store::kv::*;

use super::network::At;

#[derive(Debug, Clone)]
pub enum Asked {
    Range(RangeRequest),
    Txn(TxnRequest),
    Compact(Revision),
    LeaseGrant { id: LeaseId, ttl_seconds: i64 },
    LeaseRevoke { id: LeaseId },
    LeaseKeepAlive { id: LeaseId },
}

/// Some of it is only for who reads a story.
#[allow(dead_code)]
#[derive(Debug, Clone)]
pub enum Told {
    Range(RangeResponse),
    Txn(TxnResponse),
    Compacted(Revision),
    LeaseGranted(i64),
    LeaseRevoked(Revision),
    LeaseAlive(i64),
    /// It surely had no effect.
    Refused(KvError),
    /// It may have had its effect, now or later.
    Unknown(String),
}

#[derive(Debug, Clone)]
pub struct Operation {
    pub client: usize,
    pub member: At,
    /// Which life of the member.
    pub incarnation: u64,
    pub asked: Asked,
    pub told: Told,
    /// Places in the order of all calls and returns.
    pub called: u64,
    pub returned: u64,
    pub called_ms: u64,
    pub returned_ms: u64,
}

/// What one watch has been told over all its reconnections.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    pub prefix: String,
    pub events: Vec<Event>,
    /// First revision it is responsible for.
    pub from: Revision,
    /// Everything before has been delivered, if it was for it.
    pub next: Revision,
    /// Revisions it was told are compacted: gone between the two.
    pub gaps: Vec<(Revision, Revision)>,
    pub reconnections: u64,
    pub faults: Vec<String>,
}

/// Every event a member applied, as a watch on all keys in its own process saw it.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    pub events: Vec<Event>,
    pub next: Revision,
}

#[derive(Debug, Default)]
pub struct Record {
    pub order: u64,
    pub now_ms: u64,
    pub operations: Vec<Operation>,
    pub watches: Vec<Watched>,
    pub audits: Vec<Audit>,
    pub highest_seen: Revision,
    /// When a member first told of a revision.
    pub seen_ms: BTreeMap<Revision, u64>,
    /// Leases that somebody has asked to revoke.
    pub revoking: BTreeSet<LeaseId>,
    /// Some clock did not run as time does.
    pub clock_jumped: bool,
}

#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<Record>>);

impl History {
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.0.lock().expect("the simulation has one thread")
    }

    pub fn call(&self) -> (u64, u64) {
        let mut record = self.record();
        record.order += 1;
        (record.order, record.now_ms)
    }

    pub fn note(&self, operation: Operation) {
        let mut record = self.record();
        let seen = match &operation.told {
            Told::Range(response) => response.revision,
            Told::Txn(response) => response.revision,
            _ => 0,
        };
        record.highest_seen = record.highest_seen.max(seen);
        record.operations.push(operation);
    }
}

//! The engine keeps the state's records on disk, so that a start does not replay the whole
//! history and values need not be in memory.
//!
//! It is a cache of the log and the snapshots, not a second truth: a crash may take its
//! newest batches. What it must hold to is that a batch is there whole or not at all, and that
//! batches vanish from the end only. If even that fails, the digest in its meta does not match
//! its records, and it is thrown away and rebuilt. So what the log lets go never depends on
//! what the engine has made last: a snapshot file covers it.

pub mod segments;
pub mod worker;

use bytes::Bytes;

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::kv::{LeaseId, Revision};
use crate::mvcc::alarm::Alarms;
use crate::mvcc::record::Record;
use crate::mvcc::revision::Rev;
use crate::mvcc::{Digest, Records, WriteBatch};

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("engine: {operation}: {fault}")]
    Failed { operation: &'static str, fault: String },
    #[error("engine: {operation}: no space left")]
    NoSpace { operation: &'static str },
    #[error("engine: its records are not the ones its meta describes")]
    Inconsistent,
    #[error("engine: {0}")]
    Decode(#[from] DecodeError),
}

/// Up to where the records go, and what they have to add up to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    pub revision: Revision,
    pub compacted: Revision,
    pub digest: Digest,
    pub alarms: Alarms,
    /// What the log's side needs to go on from here; not looked into.
    pub applied: Bytes,
}

/// The first had no alarms.
const META_VERSION: u8 = 2;

impl Meta {
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::default();
        e.u8(META_VERSION);
        e.i64(self.revision);
        e.i64(self.compacted);
        e.u64(self.digest.sum);
        e.u64(self.digest.records);
        e.bytes(&self.applied);
        self.alarms.encode(&mut e);
        e.finish()
    }

    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut d = Decoder::new("engine meta", bytes);
        let version = d.u8()?;
        if !(1..=META_VERSION).contains(&version) {
            return Err(d.fault("unknown version"));
        }
        Ok(Self {
            revision: d.i64()?,
            compacted: d.i64()?,
            digest: Digest { sum: d.u64()?, records: d.u64()? },
            applied: d.bytes()?,
            alarms: if version < 2 { Alarms::default() } else { Alarms::decode(&mut d)? },
        })
    }
}

/// Calls with every record; `false` stops.
pub type Visit<'a> = &'a mut dyn FnMut(Rev, Record) -> bool;

/// How much space is to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tidy {
    /// Only so much that the engine keeps to its bound.
    Needed,
    Everything,
}

pub trait Engine: Records + Send + Sync + 'static {
    /// All of it or nothing, and never before an earlier batch. One that failed may be tried again.
    fn apply(&self, batch: &WriteBatch, meta: Option<&Meta>) -> Result<(), EngineError>;

    /// `None`: nothing has been applied yet.
    fn meta(&self) -> Result<Option<Meta>, EngineError>;

    fn leases(&self) -> Result<Vec<(LeaseId, i64)>, EngineError>;

    /// Records from one revision up to another, both included, in order.
    fn scan(&self, from: Rev, to: Rev, visit: Visit) -> Result<(), EngineError>;

    /// Empties it.
    fn clear(&self) -> Result<(), EngineError>;

    /// Gives some space back, for as long as a batch may wait; tells whether there is more to do.
    /// Reads go on.
    fn tidy(&self, what: Tidy) -> Result<bool, EngineError>;

    /// Makes what was applied so far last, whatever happens to the machine.
    fn flush(&self) -> Result<(), EngineError>;

    /// Makes everything last and lets go of the files, which are not touched after this. Reads
    /// and writes fail from then on.
    fn close(&self) -> Result<(), EngineError>;

    fn disk_bytes(&self) -> u64;
}

//! The multi-version state: what the log's commands mean. Pure: no runtime, no I/O, no
//! clock. The same commands in the same order give the same state and answers everywhere.
//!
//! ```text
//! Command --apply--> Answer        for the client
//!                    Change..      for the watches
//!                    WriteBatch    for the engine (records, removals, leases, meta)
//! ```
//!
//! The key index and the newest records are here in memory; older values are fetched
//! through [`Records`], which the engine implements.

pub mod alarm;
pub mod apply;
pub mod check;
pub mod index;
pub mod lease;
pub(crate) mod range;
pub mod read;
pub mod recent;
pub mod record;
pub mod revision;
pub mod watch;

use bytes::Bytes;

use self::alarm::Alarms;
use self::index::{Index, Version};
use self::lease::Leases;
use self::recent::Recent;
use self::record::Record;
use self::revision::Rev;
use crate::kv::{KvError, LeaseId, Revision};

/// Where records that are not in memory come from.
pub trait Records {
    /// `None`: there is no such record.
    fn record(&self, rev: Rev) -> Result<Option<Record>, ReadFault>;
}

/// A record that should be there could not be read whole.
#[derive(Debug, Clone, thiserror::Error)]
#[error("read the record of revision {}.{}: {fault}", .rev.main, .rev.sub)]
pub struct ReadFault {
    pub rev: Rev,
    pub fault: String,
}

impl From<ReadFault> for KvError {
    fn from(fault: ReadFault) -> Self {
        KvError::Internal(format!("{fault}; restart this member and it rebuilds its state"))
    }
}

/// What the engine has to write for some commands, all or nothing.
#[derive(Debug, Default)]
pub struct WriteBatch {
    pub puts: Vec<(Rev, Record)>,
    pub removes: Vec<Rev>,
    /// `None`: the lease is gone.
    pub leases: Vec<(LeaseId, Option<i64>)>,
    /// What of the log has to be read again to get here, if this is lost.
    pub log_bytes: usize,
}

impl WriteBatch {
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.removes.is_empty() && self.leases.is_empty()
    }
}

/// One write as the watches see it.
#[derive(Debug, Clone)]
pub struct Change {
    pub rev: Rev,
    pub record: Record,
    /// See [`Mvcc::before`].
    pub previous: Option<Version>,
}

/// Tells whether a set of records is the one that was meant. Order does not matter, so it
/// is kept up to date by adding and taking away.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    pub sum: u64,
    pub records: u64,
}

impl Digest {
    fn mix(rev: Rev, checksum: u32) -> u64 {
        let place = (rev.main as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(rev.sub);
        (place ^ u64::from(checksum)).wrapping_mul(0xd6e8_feb8_6659_fd93)
    }

    pub fn add(&mut self, rev: Rev, checksum: u32) {
        self.sum = self.sum.wrapping_add(Self::mix(rev, checksum));
        self.records += 1;
    }

    pub fn remove(&mut self, rev: Rev, checksum: u32) {
        self.sum = self.sum.wrapping_sub(Self::mix(rev, checksum));
        self.records = self.records.wrapping_sub(1);
    }
}

#[derive(Debug)]
pub struct Mvcc {
    /// Of the last transaction that wrote. A new store is at 1, as etcd's is.
    revision: Revision,
    /// Ranges and watches before it are refused; -1: never compacted, as etcd says it.
    compacted: Revision,
    index: Index,
    leases: Leases,
    alarms: Alarms,
    recent: Recent,
    /// Of what the engine holds once it has taken every batch so far.
    digest: Digest,
    /// Keys and values that a range at some revision can still see.
    bytes: u64,
    /// Snapshots being written; removals wait for them.
    pins: usize,
    /// Compacted records that the engine still has to remove.
    removable: Vec<Version>,
}

impl Mvcc {
    pub fn new(recent_limit_bytes: usize) -> Self {
        Self {
            revision: 1,
            compacted: -1,
            index: Index::default(),
            leases: Leases::default(),
            alarms: Alarms::default(),
            recent: Recent::new(recent_limit_bytes),
            digest: Digest::default(),
            bytes: 0,
            pins: 0,
            removable: Vec::new(),
        }
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    pub fn load_alarms(&mut self, alarms: Alarms) {
        self.alarms = alarms;
    }

    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Lets go of records in memory that the engine has.
    pub fn trim(&mut self, persisted: Rev) {
        self.recent.trim(persisted);
    }

    /// Takes over a record that the engine or a snapshot holds. In order of revision.
    pub fn load_record(&mut self, rev: Rev, record: &Record) {
        let version = self.note(rev, record);
        self.leases.attach(&record.key, record.lease);
        self.index.add(&record.key, version);
        self.revision = self.revision.max(rev.main);
    }

    /// Before the records, so that they can be attached.
    pub fn load_lease(&mut self, id: LeaseId, ttl_seconds: i64) -> Result<(), KvError> {
        self.leases.grant(id, ttl_seconds).map(|_| ())
    }

    /// After the records. Repeats the last compaction: the engine may not have got to it.
    pub fn finish_load(&mut self, revision: Revision, compacted: Revision) {
        self.revision = revision;
        self.compacted = compacted;
        let removed = self.index.compact(compacted);
        self.forget(removed);
    }

    fn note(&mut self, rev: Rev, record: &Record) -> Version {
        let version = Version::of(rev, record);
        self.digest.add(version.rev, version.checksum);
        self.bytes += u64::from(version.size);
        version
    }

    fn forget(&mut self, removed: Vec<Version>) {
        for version in &removed {
            self.bytes -= u64::from(version.size);
        }
        self.removable.extend(removed);
        // As they lie in the engine: neighbours go together.
        self.removable.sort_unstable_by_key(|version| version.rev);
    }

    /// Moves some of what compaction has set free into the batch, unless a snapshot is being
    /// written.
    pub fn take_removals(&mut self, batch: &mut WriteBatch, limit: usize) {
        if self.pins > 0 {
            return;
        }
        let some = limit.min(self.removable.len());
        for version in self.removable.drain(..some) {
            self.digest.remove(version.rev, version.checksum);
            batch.removes.push(version.rev);
        }
    }

    pub fn pin(&mut self) {
        self.pins += 1;
    }

    pub fn unpin(&mut self) {
        self.pins -= 1;
    }

    pub fn has_removals(&self) -> bool {
        self.pins == 0 && !self.removable.is_empty()
    }

    /// A record by its version: from memory, or fetched and checked.
    pub fn fetch(&self, version: &Version, records: &dyn Records) -> Result<Record, ReadFault> {
        match self.recent.get(version.rev) {
            Some(record) => Ok(record.clone()),
            None => fetch_checked(version, records),
        }
    }

    /// What a watch gives as the value before a change: that before the whole revision, as
    /// etcd does; nothing for a key that the revision creates.
    pub fn before(&self, rev: Rev, record: &Record) -> Option<Version> {
        let creates = !record.is_tombstone() && record.create == rev.main;
        if creates { None } else { self.index.get(&record.key, rev.main - 1) }
    }

    fn previous(&self, key: &Bytes) -> Option<Version> {
        self.index.get(key, Revision::MAX)
    }
}

/// Fetches a record that is not in memory.
pub fn fetch_checked(version: &Version, records: &dyn Records) -> Result<Record, ReadFault> {
    let rev = version.rev;
    let fault = |fault: &str| ReadFault { rev, fault: fault.to_owned() };
    let record = records.record(rev)?.ok_or_else(|| fault("it is missing"))?;
    if record.checksum(rev) != version.checksum {
        return Err(fault("its checksum does not match"));
    }
    Ok(record)
}

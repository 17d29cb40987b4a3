//! The port to the store: what the API server may ask of it. The embedded Raft store
//! implements it, and so can a client of an existing etcd cluster. The meaning of every
//! call is etcd v3's.

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

pub type Revision = i64;
pub type LeaseId = i64;

/// A key-value pair as of `mod_revision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    /// Writes since creation; 1 for a new key.
    pub version: i64,
    /// 0: none.
    pub lease: LeaseId,
}

/// A half-open range of keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyRange {
    One(Bytes),
    Prefix(Bytes),
    /// `[start, end)`
    Between(Bytes, Bytes),
    /// `[start, infinity)`
    From(Bytes),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SortOrder {
    #[default]
    None,
    Ascend,
    Descend,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SortTarget {
    #[default]
    Key,
    Version,
    Create,
    Mod,
    Value,
}

#[derive(Debug, Clone)]
pub struct RangeRequest {
    pub range: KeyRange,
    /// 0: the newest.
    pub revision: Revision,
    /// 0: no limit.
    pub limit: i64,
    pub sort: (SortOrder, SortTarget),
    pub keys_only: bool,
    pub count_only: bool,
    /// Answer from what this member has applied, without asking the quorum.
    pub serializable: bool,
    /// Inclusive bounds, 0: none.
    pub min_mod_revision: Revision,
    pub max_mod_revision: Revision,
    pub min_create_revision: Revision,
    pub max_create_revision: Revision,
}

impl RangeRequest {
    pub fn new(range: KeyRange) -> Self {
        Self {
            range,
            revision: 0,
            limit: 0,
            sort: Default::default(),
            keys_only: false,
            count_only: false,
            serializable: false,
            min_mod_revision: 0,
            max_mod_revision: 0,
            min_create_revision: 0,
            max_create_revision: 0,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeResponse {
    /// The store's revision when the answer was made.
    pub revision: Revision,
    pub kvs: Vec<KeyValue>,
    pub more: bool,
    /// Keys in the range, whatever the limit.
    pub count: i64,
}

#[derive(Debug, Clone)]
pub struct PutRequest {
    pub key: Bytes,
    pub value: Bytes,
    pub lease: LeaseId,
    pub prev_kv: bool,
    pub ignore_value: bool,
    pub ignore_lease: bool,
}

#[derive(Debug, Clone)]
pub struct DeleteRequest {
    pub range: KeyRange,
    pub prev_kv: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareResult {
    Equal,
    Greater,
    Less,
    NotEqual,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompareTarget {
    Version(i64),
    Create(Revision),
    Mod(Revision),
    Value(Bytes),
    Lease(LeaseId),
}

#[derive(Debug, Clone)]
pub struct Compare {
    pub range: KeyRange,
    pub target: CompareTarget,
    pub result: CompareResult,
}

#[derive(Debug, Clone)]
pub enum Op {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRequest),
    Txn(TxnRequest),
}

#[derive(Debug, Clone, Default)]
pub struct TxnRequest {
    pub compare: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResponse {
    Range(RangeResponse),
    Put { prev: Option<KeyValue> },
    Delete { deleted: i64, prev: Vec<KeyValue> },
    Txn(TxnResponse),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnResponse {
    /// The store's revision after the transaction; that of its writes, if it wrote.
    pub revision: Revision,
    pub succeeded: bool,
    pub responses: Vec<OpResponse>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    Put,
    Delete,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub kind: EventType,
    /// Of a delete: the key and the delete's `mod_revision` only.
    pub kv: KeyValue,
    pub prev: Option<KeyValue>,
}

#[derive(Debug, Clone)]
pub struct WatchRequest {
    pub range: KeyRange,
    /// First revision to report; 0: from now on.
    pub start_revision: Revision,
    pub prev_kv: bool,
}

/// What a watch delivers. The events of one revision are never split between two batches.
#[derive(Debug, Clone)]
pub enum WatchMessage {
    Events {
        revision: Revision,
        events: Vec<Event>,
    },
    /// Everything up to `revision` has been delivered.
    Progress {
        revision: Revision,
    },
    /// Last message: history before `compacted` is gone; list again.
    Compacted {
        compacted: Revision,
    },
    /// Last message: the receiver did not keep up with its bounded queue; watch again from where it was.
    TooSlow,
}

/// A watch. Dropping it cancels.
#[derive(Debug)]
pub struct Watch {
    /// The store's revision when the watch began.
    pub revision: Revision,
    pub messages: mpsc::Receiver<WatchMessage>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseInfo {
    pub id: LeaseId,
    pub granted_ttl_seconds: i64,
    /// -1 when the lease is gone.
    pub ttl_seconds: i64,
    pub keys: Vec<Bytes>,
}

/// What can be wrong with a member, as etcd numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    NoSpace,
    Corrupt,
}

impl Alarm {
    pub fn number(self) -> u8 {
        match self {
            Alarm::NoSpace => 1,
            Alarm::Corrupt => 2,
        }
    }

    pub fn numbered(number: u8) -> Option<Self> {
        [Alarm::NoSpace, Alarm::Corrupt].into_iter().find(|alarm| alarm.number() == number)
    }
}

impl std::fmt::Display for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Alarm::NoSpace => "NOSPACE",
            Alarm::Corrupt => "CORRUPT",
        })
    }
}

/// Failures, with etcd's meaning. The etcd face maps them to etcd's codes and texts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    #[error("required revision {requested} has been compacted (oldest kept: {compacted})")]
    Compacted { requested: Revision, compacted: Revision },
    #[error("required revision {requested} is a future revision (newest: {current})")]
    FutureRevision { requested: Revision, current: Revision },
    #[error("duplicate key given in a transaction: {0:?}")]
    DuplicateKey(Bytes),
    #[error("key not found")]
    KeyNotFound,
    #[error("an empty key is not allowed")]
    EmptyKey,
    #[error("a value was given together with ignore_value")]
    ValueProvided,
    #[error("a lease was given together with ignore_lease")]
    LeaseProvided,
    #[error("lease {0:x} not found")]
    LeaseNotFound(LeaseId),
    #[error("lease {0:x} already exists")]
    LeaseExists(LeaseId),
    #[error("lease TTL {0} is too large")]
    LeaseTtlTooLarge(i64),
    #[error("too many operations in a transaction: {given}, limit {limit}")]
    TooManyOps { given: usize, limit: usize },
    #[error("request of {bytes} bytes is too large, limit {limit_bytes}")]
    TooLarge { bytes: usize, limit_bytes: usize },
    /// Nothing was written. Reads go on.
    #[error("no space left for writes in {path}: free some, writes resume by themselves")]
    NoSpace { path: String },
    /// Nothing was written. Reads go on.
    #[error("writes are refused while the alarm {0} is raised: mend its cause, then disarm it")]
    Alarmed(Alarm),
    /// Of an external datastore. Nothing was sent.
    #[error(
        "the datastore {datastore} cannot be reached ({reason}); requests succeed again as soon as it can"
    )]
    Unreachable { datastore: String, reason: String },
    #[error("no leader: a majority of the members cannot be reached")]
    NoLeader,
    /// The outcome of the write is not known.
    #[error("request timed out")]
    Timeout,
    #[error("the store is shutting down")]
    Stopped,
    #[error("store: {0}")]
    Internal(String),
}

/// The store, as etcd v3 documents it. A write has been acknowledged by a majority, and is
/// on its disks, before the call returns.
#[async_trait]
pub trait Kv: Send + Sync + 'static {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError>;

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, KvError>;

    async fn watch(&self, request: WatchRequest) -> Result<Watch, KvError>;

    /// Drops history before `revision`. With `physical`, returns once space is freed.
    async fn compact(&self, revision: Revision, physical: bool) -> Result<Revision, KvError>;

    /// `id` 0: the store chooses. Returns the id and the granted TTL in seconds.
    async fn lease_grant(&self, id: LeaseId, ttl_seconds: i64) -> Result<(LeaseId, i64), KvError>;

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, KvError>;

    /// Returns the remaining TTL in seconds.
    async fn lease_keep_alive(&self, id: LeaseId) -> Result<i64, KvError>;

    async fn lease_time_to_live(&self, id: LeaseId, keys: bool) -> Result<LeaseInfo, KvError>;

    async fn leases(&self) -> Result<Vec<LeaseId>, KvError>;
}

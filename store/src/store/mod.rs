//! The store: a member that runs.

mod batch;
mod forward;
mod identity;
mod join;
mod kv_impl;
mod leadership;
mod lease;
mod members;
mod open;
mod reads;
mod removal;
mod restore;
mod snapshotter;
mod space;
mod status;
mod watch;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use openraft::Raft;
use tokio_util::sync::CancellationToken;

pub use self::identity::Identity;
pub use self::members::{Member, MemberError};
pub use self::restore::{RestoreOptions, SnapshotStatus};
pub use self::status::{HashKv, Status};
pub use self::watch::WatchHandle;

use self::batch::Proposer;
use self::leadership::Leadership;
use self::reads::Reads;
use crate::config::{Config, ConfigError};
use crate::core::Core;
use crate::engine::EngineError;
use crate::raft::executor::Executor;
use crate::raft::log::SoleVoter;
use crate::raft::machine::Machine;
use crate::raft::network::peer::Network;
use crate::raft::types::TypeConfig;
use crate::snapshot::SnapshotError;
use crate::wal::disk::{Disk, Lock};
use crate::wal::{Wal, WalError};

pub(crate) type RaftHandle = Raft<TypeConfig, Machine>;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("store: {operation} {path}: {source}")]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "store: {path} is locked: another process uses this data folder; stop it or choose another --data-dir"
    )]
    Locked { path: PathBuf },
    #[error("store: {path} does not say who this member is: {fault}")]
    Identity { path: PathBuf, fault: String },
    #[error("store: {0}")]
    Log(#[from] WalError),
    #[error("store: {0}")]
    Snapshot(#[from] SnapshotError),
    #[error("store: no space left to open {path}: free some and start again; nothing was changed")]
    NoSpace { path: PathBuf },
    #[error("{path}: {source}")]
    Backup { path: PathBuf, source: SnapshotError },
    #[error("store: {path} holds a member already: restore into an empty folder")]
    NotEmpty { path: PathBuf },
    #[error("store: rebuild the engine in {path}: {source}")]
    Engine { path: PathBuf, source: EngineError },
    #[error(
        "store: the engine in {path} is lost and the log begins only after entry {purged}, \
         which no snapshot covers: restore this member from a backup or rejoin it"
    )]
    Lost { path: PathBuf, purged: u64 },
    #[error(
        "store: the member in {path} has been removed from its cluster: to join again, add it as a new member and start it with an empty folder"
    )]
    Removed { path: PathBuf },
    #[error("store: join the cluster: {0}")]
    Join(String),
    #[error("store: start Raft: {0}")]
    Raft(String),
}

/// What the parts of a running store share.
pub(crate) struct Inner {
    pub config: Config,
    pub identity: Identity,
    pub core: Arc<Core>,
    pub raft: RaftHandle,
    pub wal: Arc<Wal>,
    pub disk: Arc<dyn Disk>,
    pub sole_voter: SoleVoter,
    pub network: Network,
    pub leadership: Leadership,
    pub reads: Reads,
    /// None once the store is being closed.
    proposer: Mutex<Option<Proposer>>,
    /// Cancelled when this member has been removed from the cluster.
    pub removed: CancellationToken,
    pub lease_clock: Mutex<crate::mvcc::lease::LeaseClock>,
    /// The term in which this member leads and keeps the clock.
    pub lease_term: AtomicU64,
    pub started: tokio::time::Instant,
    /// Held by the leader during a change of members: Raft takes one at a time, and it is planned
    /// on the members that the one before left.
    pub changing: tokio::sync::Mutex<()>,
}

impl Inner {
    pub(crate) fn proposer(&self) -> Option<Proposer> {
        self.proposer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A running member. Implements [`crate::kv::Kv`].
pub struct Store {
    pub(crate) inner: Arc<Inner>,
    tasks: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    batcher: Mutex<Option<tokio::task::JoinHandle<()>>>,
    log_writer: Mutex<Option<tokio::task::JoinHandle<()>>>,
    engine_thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    /// Ends before the lock is given up.
    executor: Arc<Executor>,
    _lock: Lock,
}

//! The etcd-like Raft store: [`Store`] is a member that runs, and implements [`kv::Kv`].
//!
//! ```text
//! kv::Kv --> store (batches commands) --> openraft --> wal      one fdatasync for many
//!    ^                                       |
//!    | reads, watches                        v applied in order
//!    +------------- core: mvcc (pure), watch groups, leases
//!                                            |
//!                                            v later, unsynced
//!                                engine (segments), rebuilt from snapshot + log if it is lost
//! ```
//!
//! What is on disk and counts: the log (with the vote), and the newest snapshot. The log is
//! purged only up to a snapshot that has been synced. The engine is a cache of the two.
//!
//! `mvcc`, `wal::frame` and `engine::segments::{frame, table, plan}` are pure: no runtime, no
//! I/O, no clock. `wal::disk` is the port to the disk, [`Transport`] the one to other members;
//! [`Ports`] holds them together, and a simulation gives its own. The Raft library is met in
//! `raft` only.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answer;
pub mod background;
pub mod codec;
pub mod command;
pub mod config;
pub(crate) mod core;
pub mod engine;
pub mod etcd;
pub mod kv;
pub mod mvcc;
mod ports;
pub mod raft;
pub mod remote;
pub mod snapshot;
mod store;
pub mod wal;

pub use crate::mvcc::alarm::{AlarmChange, RaisedAlarm};
pub use config::{Config, ConfigError, InitialMember, InitialState};
pub use ports::Ports;
pub use raft::network::PeerTls;
pub use raft::network::receiver::Receiver;
pub use raft::network::server::{PeerService, PeersError, serve_peers};
pub use raft::network::transport::{CallError, Method, Target, Transport};
pub use store::{
    HashKv, Identity, Member, MemberError, OpenError, RestoreOptions, SnapshotStatus, Status,
    Store, WatchHandle,
};

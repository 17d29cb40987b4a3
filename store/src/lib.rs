//! The etcd-like Raft store.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod codec;
pub mod command;
pub mod config;
pub(crate) mod core;
pub mod engine;
pub mod kv;
pub mod mvcc;
pub mod raft;
pub mod snapshot;
mod store;
pub mod wal;

pub use config::{Config, ConfigError, InitialMember, InitialState};
pub use raft::network::PeerTls;
pub use raft::network::server::PeerService;
pub use store::{
    Alarm, HashKv, Identity, Member, MemberError, OpenError, SnapshotStatus, Status, Store,
    WatchHandle,
};

//! The etcd-like Raft store.
pub mod codec;
pub mod command;
pub mod engine;
pub mod kv;
pub mod mvcc;
pub mod wal;

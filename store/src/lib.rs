//! The etcd-like Raft store.
pub mod kv;

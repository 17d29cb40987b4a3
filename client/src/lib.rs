//! Talking to the API server: the `Api` trait, its gRPC implementation, and what
//! components build on it (watcher, cache, work queue, leader election).

pub mod api;
pub mod cache;
pub mod event;
pub mod queue;
pub mod scan;
pub mod watcher;

pub use api::*;
pub use cache::{Cache, Change};
pub use queue::Queue;

//! Talking to the API server: the `Api` trait, its gRPC implementation, and what
//! components build on it (watcher, cache, work queue, leader election).

// `Status` is upstream's, with everything a client may want to know; failures are rare and
// boxing it would only move the cost to every reader.
#![allow(clippy::result_large_err)]

pub mod api;
pub mod cache;
pub mod event;
pub mod grpc;
pub mod kubeconfig;
pub mod queue;
pub mod scan;
#[cfg(feature = "testing")]
pub mod testing;
pub mod watcher;
pub mod wire;

pub use api::*;
pub use cache::{Cache, Change};
pub use grpc::GrpcApi;
pub use kubeconfig::Kubeconfig;
pub use queue::Queue;

//! The API server: the core that gives the Kubernetes API its meaning, and the faces over it.

// `Status` is upstream's, with everything a client may want to know; failures are rare and
// boxing it would only move the cost to every reader.
#![allow(clippy::result_large_err)]

pub mod authn;
pub mod authz;
pub mod cache;
pub mod core;
pub mod grpc;
mod plain;
pub mod registry;
pub mod server;
pub mod storage;

pub use crate::core::{Config, Core, CoreError, NodeClient};
pub use server::{ServeError, serve};

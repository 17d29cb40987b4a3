//! The API server: the core that gives the Kubernetes API its meaning, and the faces over it.

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

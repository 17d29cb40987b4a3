//! The ingress: HTTP from outside the cluster to pods, by the rules of Ingress objects.
//!
//! `matcher`, `route`, `balancer` and `status::plan` are pure. `driver` makes a route table
//! whenever the API shows a change, `server` runs the threads, `proxy` passes requests
//! straight to pod addresses, not through the Service's.

pub mod balancer;
pub mod config;
mod driver;
mod error;
pub mod matcher;
pub mod proxy;
pub mod route;
pub mod routes;
pub mod server;
pub mod status;

pub use config::{Config, Limits};
pub use driver::{run, run_on};
pub use error::IngressError;
pub use server::Server;

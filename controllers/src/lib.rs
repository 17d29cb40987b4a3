//! The control loops: each watches some kinds and writes others until the cluster is as it
//! is wanted. One folder a controller; in each `plan` decides (pure, tested by exact
//! actions) and `driver` carries out. They share one cache a resource, and they meet each
//! other only through the API.

mod adoption;
mod caches;
mod conditions;
mod config;
mod deployment;
mod endpoints;
mod endpointslice;
mod gc;
mod graph;
mod namespace;
mod nodeipam;
mod nodelifecycle;
mod ownership;
mod podgc;
mod replicaset;
mod run;
mod serviceaccount;
#[cfg(test)]
mod testing;
mod timers;
mod worker;
mod write;

pub use config::{Config, ConfigError};
pub use run::{ControllersError, run};

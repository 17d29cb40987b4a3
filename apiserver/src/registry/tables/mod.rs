//! The field tables: upstream's types, complete, one module per family.

pub mod affinity;
pub mod cloud_volumes;
pub mod config;
pub mod container;
pub mod event;
pub mod meta;
pub mod networking;
pub mod node;
pub mod pod;
pub mod pod_status;
pub mod probe;
pub mod security;
pub mod service;
pub mod volumes;
pub mod workload;

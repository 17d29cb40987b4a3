//! The node agent: runs pods through containerd and calls the pod network's plugins.

pub mod containerd_supervisor;
pub mod network;
pub mod ports;
pub mod runtime;

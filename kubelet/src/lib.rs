//! The node agent: runs pods through containerd and calls the pod network's plugins.
//!
//! `run` is the whole kubelet over two ports, [`ports::Runtime`] and [`ports::Network`], and
//! the API. What to do is decided by pure code (`pod::plan`, `status`, `probe::machine`,
//! `env`, `resources`); the rest carries it out.

pub mod admission;
pub mod cgroup;
pub mod config;
pub mod containerd_supervisor;
pub mod downward;
pub mod env;
pub mod image;
pub mod network;
pub mod node;
pub mod objects;
pub mod pod;
pub mod ports;
pub mod probe;
pub mod resources;
pub mod runtime;
pub mod server;
pub mod status;
pub mod turns;
pub mod volume;

mod run;

pub use config::Config;
pub use run::{KubeletError, NodeServer, remove_everything, run};

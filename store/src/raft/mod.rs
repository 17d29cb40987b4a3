//! The Raft library, fitted in: its log over ours, its state machine over the core, its
//! network over gRPC.

pub mod executor;
pub mod log;
pub mod machine;
pub mod network;
pub mod runtime;
pub mod types;

//! What can go wrong in the proxy.

use std::io;

/// A failure, in words for the person who reads the log.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("proxy configuration: {}", .0.join("; "))]
    BadConfig(Vec<String>),
    #[error("run {program}: {source}; install the iptables package")]
    CannotRun { program: &'static str, source: io::Error },
    #[error("{program} refused the rules: {detail}")]
    Refused { program: &'static str, detail: String },
    #[error("{operation}: {source}")]
    Kernel { operation: &'static str, source: io::Error },
    #[error("the proxy's task that writes rules ended: {0}")]
    Task(#[from] tokio::task::JoinError),
}

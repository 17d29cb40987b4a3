//! What can go wrong, and the code the CNI specification gives it.
//!
//! Codes 1 to 99 belong to the specification (SPEC.md, "Error"); 100 and above are the plugin's own.

use std::path::PathBuf;

/// A failure of one command, in words for the person who reads the runtime's log.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    #[error("CNI version {0:?} is not supported; supported: {list}", list = crate::request::SUPPORTED_VERSIONS.join(", "))]
    IncompatibleVersion(String),
    #[error("command {command} needs cniVersion {needed} or later, the configuration says {found}")]
    CommandTooNew { command: &'static str, needed: &'static str, found: String },
    #[error("configuration field {field} is not supported: {hint}")]
    UnsupportedField { field: &'static str, hint: &'static str },
    #[error("container {container} is not known to network {network}: {detail}")]
    UnknownContainer { container: String, network: String, detail: String },
    #[error("environment: {}", .0.join("; "))]
    BadEnvironment(Vec<String>),
    #[error("{operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error("cannot read the network configuration on stdin: {0}")]
    Decode(String),
    #[error("network configuration: {}", .0.join("; "))]
    BadConfig(Vec<String>),
    #[error("no free address in {ranges} of network {network}; delete pods or widen the range")]
    Exhausted { network: String, ranges: String },
    #[error("not ready: {0}")]
    NotReady(String),
    #[error("{operation} {object}: {source}")]
    Kernel { operation: &'static str, object: String, source: std::io::Error },
    #[error("{0}")]
    Conflict(String),
    #[error("{command}: {detail}")]
    Firewall { command: String, detail: String },
    #[error("network {network} is not as it was made for container {container}: {}", faults.join("; "))]
    CheckFailed { network: String, container: String, faults: Vec<String> },
    #[error("{}", .0.iter().map(|e| e.to_string()).collect::<Vec<_>>().join("; "))]
    Several(Vec<CniError>),
}

impl CniError {
    /// The error code of the specification, or one of ours from 100 up.
    pub fn code(&self) -> i32 {
        match self {
            CniError::IncompatibleVersion(_) | CniError::CommandTooNew { .. } => 1,
            CniError::UnsupportedField { .. } => 2,
            CniError::UnknownContainer { .. } => 3,
            CniError::BadEnvironment(_) => 4,
            CniError::Io { .. } => 5,
            CniError::Decode(_) => 6,
            CniError::BadConfig(_) => 7,
            CniError::Exhausted { .. } => 11,
            CniError::NotReady(_) => 50,
            CniError::Kernel { .. } => 100,
            CniError::Conflict(_) => 101,
            CniError::Firewall { .. } => 102,
            CniError::CheckFailed { .. } => 103,
            CniError::Several(errors) => errors.first().map_or(100, CniError::code),
        }
    }

    /// The short text that characterises the code; the details go beside it.
    pub fn message(&self) -> &'static str {
        match self {
            CniError::IncompatibleVersion(_) | CniError::CommandTooNew { .. } => {
                "incompatible CNI version"
            }
            CniError::UnsupportedField { .. } => "unsupported field in network configuration",
            CniError::UnknownContainer { .. } => "container unknown",
            CniError::BadEnvironment(_) => "invalid necessary environment variables",
            CniError::Io { .. } => "I/O failure",
            CniError::Decode(_) => "failed to decode content",
            CniError::BadConfig(_) => "invalid network config",
            CniError::Exhausted { .. } => "try again later",
            CniError::NotReady(_) => "the plugin is not available",
            CniError::Kernel { .. } => "a change of the network failed",
            CniError::Conflict(_) => "something else is in the way",
            CniError::Firewall { .. } => "a firewall rule failed",
            CniError::CheckFailed { .. } => "the network is not as expected",
            CniError::Several(errors) => {
                errors.first().map_or("several failures", CniError::message)
            }
        }
    }

    /// One error for all that teardown gathered; none when nothing failed.
    pub fn gather(mut errors: Vec<CniError>) -> Result<(), CniError> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(CniError::Several(errors)),
        }
    }
}

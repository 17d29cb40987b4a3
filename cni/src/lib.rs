//! The bridge CNI plugin with host-local address management.
//!
//! Source: the CNI specification (SPEC.md of containernetworking/cni, 0.3.0 to 1.1.0) and the documented
//! configuration of upstream's `bridge` and `host-local` plugins. Synchronous; nothing here knows of Kubernetes.
//!
//! ```text
//! request  -> conf -> plan (pure) -> exec -> reply
//! (shim)              ipam::range   netlink, netns, ipam::lease, masquerade
//! ```
//!
//! The `skiff` binary answers as this plugin when `CNI_COMMAND` is set; the plugin's type name is `skiff-bridge`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod addr;
pub mod conf;
pub mod error;
pub mod exec;
mod firewall;
pub mod hostport;
pub mod ipam;
pub mod masquerade;
pub mod names;
pub mod netlink;
pub mod netns;
pub mod plan;
pub mod remove;
mod repair;
pub mod reply;
pub mod request;
mod verb;

use std::io::{Read, Write};
use std::process::ExitCode;

use serde_json::Value;

pub use conf::DEFAULT_DATA_DIR;
pub use error::CniError;
pub use remove::{Removed, remove_network};
pub use repair::repair_rules;

/// The name a conflist gives as `type`; a link of this name to the `skiff` binary lies in the CNI binary folder.
pub const PLUGIN_TYPE: &str = "skiff-bridge";

/// No network configuration comes near this; more is not read into memory.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// Answers one call: environment and stdin in, JSON on stdout out. A failure also tells itself by the exit code.
pub fn run_from_env() -> ExitCode {
    let mut stdin = Vec::new();
    let reading = std::io::stdin().take(MAX_CONFIG_BYTES).read_to_end(&mut stdin);
    let answer = reading
        .map_err(|error| CniError::Decode(error.to_string()))
        .and_then(|_| answer(&|name| std::env::var(name).ok(), &stdin));
    let (output, code) = match answer {
        Ok(output) => (output, ExitCode::SUCCESS),
        Err(error) => {
            let version = request::answer_version(&stdin);
            (Some(reply::render_error(&error, &version)), ExitCode::FAILURE)
        }
    };
    let Some(output) = output else { return code };
    let mut text = output.to_string();
    text.push('\n');
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The answer to one call; none for the commands that say nothing when they succeed.
pub fn answer(
    env: &dyn Fn(&str) -> Option<String>,
    stdin: &[u8],
) -> Result<Option<Value>, CniError> {
    let request = match request::read(env, stdin)? {
        request::Call::Version { version } => return Ok(Some(reply::render_version(&version))),
        request::Call::Run(request) => request,
    };
    match request.command {
        request::Command::Add => {
            let result = verb::add::add(&request)?;
            reply::render_result(&result, &request.version).map(Some)
        }
        request::Command::Del => verb::del::del(&request).map(|()| None),
        request::Command::Check => verb::check::check(&request).map(|()| None),
        request::Command::Gc => verb::gc::gc(&request).map(|()| None),
        request::Command::Status => verb::status::status(&request).map(|()| None),
        request::Command::Version => Ok(None),
    }
}

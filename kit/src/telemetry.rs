//! Logs: one line an event to stderr, filtered by `SKIFF_LOG` (as `RUST_LOG` elsewhere).

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging for the process. `default` is the filter when `SKIFF_LOG` is not set.
pub fn init(default: &str) {
    let filter = EnvFilter::try_from_env("SKIFF_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second call, as tests make it, changes nothing.
    let _ = logs.try_init();
}

//! Whole-cluster tests: the real binary with real containerd, in a host of its own.
//!
//! A host is a network namespace with its own address, ports and rules, and its own folders,
//! so that tests touch nothing of the machine's and several may run side by side.

pub mod cluster;
pub mod host;
pub mod images;
pub mod reboot;
pub mod store;

use std::time::{Duration, Instant};

/// Waits until `look` finds something. Each look is a whole command, so the pause between two
/// is a courtesy to the machine.
pub fn eventually<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let begin = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) if begin.elapsed() > limit => panic!("{what}: not within {limit:?}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

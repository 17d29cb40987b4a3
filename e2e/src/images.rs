//! The images that tests run: the demo's own, made from Debian's busybox.

use std::path::{Path, PathBuf};
use std::process::Command;

pub const WEB_1: &str = "skiff.local/demo-web:1";
pub const WEB_2: &str = "skiff.local/demo-web:2";

/// Builds the archives into `dir`.
pub fn build(dir: &Path) -> Vec<PathBuf> {
    let script = crate::cluster::root().join("deploy/demo/image.py");
    let built =
        Command::new("python3").arg(script).arg(dir).output().expect("python3 does not start");
    assert!(built.status.success(), "image.py: {}", String::from_utf8_lossy(&built.stderr));
    String::from_utf8_lossy(&built.stdout).lines().map(PathBuf::from).collect()
}

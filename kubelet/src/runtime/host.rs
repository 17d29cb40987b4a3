//! What this machine and process allow, read once.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::spec::{Device, Host, capability_names};

const CAP_SYS_RESOURCE: u64 = 1 << 24;
/// The lowest score there is.
const OOM_SCORE_MIN: i32 = -1000;

pub(super) fn look() -> io::Result<Host> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let effective = mask(&status, "CapEff:");
    let own_score = std::fs::read_to_string("/proc/self/oom_score_adj")?;
    let own_score = own_score.trim().parse().unwrap_or(0);
    let mut devices = Vec::new();
    collect_devices(Path::new("/dev"), &mut devices);
    Ok(Host {
        capabilities: capability_names(mask(&status, "CapBnd:")),
        lowest_oom_score: if effective & CAP_SYS_RESOURCE != 0 { OOM_SCORE_MIN } else { own_score },
        devices,
    })
}

/// Another one after every boot of the host.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn mask(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

/// As containerd does for privileged containers: all nodes but terminals and shared memory.
fn collect_devices(dir: &Path, devices: &mut Vec<Device>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Ok(metadata) = entry.metadata() else { continue };
        let kind = metadata.file_type();
        if kind.is_dir() {
            let skipped = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];
            if !skipped.iter().any(|one| name == *one) {
                collect_devices(&entry.path(), devices);
            }
        } else if (kind.is_char_device() || kind.is_block_device()) && name != "console" {
            let id = metadata.rdev();
            devices.push(Device {
                path: entry.path().to_string_lossy().into_owned(),
                kind: if kind.is_char_device() { 'c' } else { 'b' },
                major: u64::from(libc::major(id)),
                minor: u64::from(libc::minor(id)),
                mode: metadata.mode() & 0o777,
                uid: metadata.uid(),
                gid: metadata.gid(),
            });
        }
    }
}

//! What kind of machine this is, and how much room is left on it: `/proc`, `/sys`, `statvfs`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::pod::context::NodeSize;

/// What does not change while the machine runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    pub cpus: u32,
    pub memory_bytes: i64,
    pub disk_bytes: i64,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel_version: String,
    pub os_image: String,
    pub hostname: String,
}

/// What does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    pub memory_available_bytes: i64,
    pub disk_total_bytes: i64,
    pub disk_available_bytes: i64,
    pub inodes_total: u64,
    pub inodes_free: u64,
    pub pids_used: i64,
    pub pids_max: i64,
}

/// `arm64`, as Go and so Kubernetes names architectures.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// The number of a `Name:   123 kB` line, in bytes. Pure.
fn meminfo(text: &str, name: &str) -> i64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<i64>().ok());
    number.unwrap_or(0) * 1024
}

/// The value of a `NAME="value"` line. Pure.
fn os_release(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    line.map(|value| value.trim_matches('"').to_owned()).unwrap_or_default()
}

impl Machine {
    pub fn read(data_dir: &Path) -> Self {
        let machine_id = read("/etc/machine-id");
        let system_uuid = read("/sys/class/dmi/id/product_uuid");
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            memory_bytes: meminfo(&read("/proc/meminfo"), "MemTotal"),
            disk_bytes: Room::read(data_dir).disk_total_bytes,
            system_uuid: if system_uuid.is_empty() { machine_id.clone() } else { system_uuid },
            machine_id,
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            kernel_version: read("/proc/sys/kernel/osrelease"),
            os_image: os_release(&read("/etc/os-release"), "PRETTY_NAME"),
            hostname: read("/proc/sys/kernel/hostname"),
        }
    }

    pub fn size(&self) -> NodeSize {
        NodeSize { milli_cpu: i64::from(self.cpus) * 1000, memory_bytes: self.memory_bytes }
    }
}

impl Room {
    pub fn read(data_dir: &Path) -> Self {
        let existing = nearest_existing(data_dir);
        let mut room = Self {
            memory_available_bytes: meminfo(&read("/proc/meminfo"), "MemAvailable"),
            pids_max: read("/proc/sys/kernel/pid_max").parse().unwrap_or(0),
            pids_used: pids(&read("/proc/loadavg")),
            ..Default::default()
        };
        if let Ok(disk) = nix::sys::statvfs::statvfs(&existing) {
            let block = disk.fragment_size() as i64;
            room.disk_total_bytes = disk.blocks() as i64 * block;
            room.disk_available_bytes = disk.blocks_available() as i64 * block;
            room.inodes_total = disk.files();
            room.inodes_free = disk.files_available();
        }
        room
    }
}

/// `0.00 0.01 0.05 1/123 4567`: 123 threads are alive. Pure.
fn pids(loadavg: &str) -> i64 {
    let field = loadavg.split(' ').nth(3).and_then(|f| f.split_once('/'));
    field.and_then(|(_, all)| all.parse().ok()).unwrap_or(0)
}

fn nearest_existing(path: &Path) -> PathBuf {
    path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/")).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_text() {
        let text = "MemTotal:       1000 kB\nMemFree:          1 kB\nMemAvailable:    500 kB\n";
        assert_eq!(
            (meminfo(text, "MemTotal"), meminfo(text, "MemAvailable")),
            (1_024_000, 512_000)
        );
        assert_eq!(
            os_release("ID=debian\nPRETTY_NAME=\"Debian 12\"\n", "PRETTY_NAME"),
            "Debian 12"
        );
        assert_eq!(pids("0.1 0.2 0.3 2/345 99"), 345);
    }

    #[test]
    fn this_machine_has_something() {
        let machine = Machine::read(Path::new("/nowhere/yet"));
        assert!(machine.cpus > 0 && machine.memory_bytes > 0 && machine.disk_bytes > 0);
        assert!(!machine.kernel_version.is_empty());
    }
}

//! The mounts of a container: the kernel's file systems as containerd has them, then the pod's volumes.

use serde_json::{Value, json};

use super::Shared;
use crate::ports::{ContainerConfig, Mount};

/// Not to be seen in a container that is not privileged.
pub(super) const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];
/// Not to be changed there.
pub(super) const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The least that runc needs to start something.
pub(super) fn pause() -> Value {
    json!([proc(), dev()])
}

pub(super) fn container(config: &ContainerConfig, shared: &Shared) -> Value {
    let access = if config.security.privileged { "rw" } else { "ro" };
    let defaults = [
        proc(),
        dev(),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", access]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", access]}),
        json!({"destination": "/dev/shm", "type": "bind", "source": shared.shm,
            "options": ["rbind", "rprivate", "rw"]}),
    ];
    let mut volumes: Vec<&Mount> = config.mounts.iter().collect();
    // A mount inside another one has to come after it.
    volumes.sort_by_key(|mount| depth(&mount.container_path));
    let replaced = |one: &Value| {
        volumes.iter().any(|volume| one["destination"] == trimmed(&volume.container_path))
    };
    let list: Vec<Value> = defaults
        .into_iter()
        .filter(|one| !replaced(one))
        .chain(volumes.iter().map(|volume| bind(volume)))
        .collect();
    Value::Array(list)
}

fn proc() -> Value {
    json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]})
}

fn dev() -> Value {
    json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]})
}

fn bind(mount: &Mount) -> Value {
    let access = if mount.read_only { "ro" } else { "rw" };
    let propagation = if mount.propagation.is_empty() { "rprivate" } else { &mount.propagation };
    json!({"destination": trimmed(&mount.container_path), "type": "bind", "source": mount.host_path,
        "options": ["rbind", propagation, access]})
}

fn trimmed(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { "/" } else { trimmed }
}

fn depth(path: &str) -> usize {
    path.split('/').filter(|part| !part.is_empty()).count()
}

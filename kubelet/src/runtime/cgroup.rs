//! The little that skiff itself does with cgroups; everything else is runc's. Version 1 has one tree for
//! each controller, version 2 has one tree.

use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// Whether the kernel killed something in this cgroup for want of memory.
pub(super) fn oom_killed(cgroup: &str) -> bool {
    let cgroup = cgroup.trim_start_matches('/');
    let version_1 = Path::new(ROOT).join("memory").join(cgroup).join("memory.oom_control");
    let version_2 = Path::new(ROOT).join(cgroup).join("memory.events");
    [version_1, version_2]
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .any(|text| kills(&text) > 0)
}

fn kills(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

/// Removes a pod's cgroup where it is empty; a busy one stays, and so does one that is not there.
pub(super) fn remove(cgroup: &str) {
    let cgroup = cgroup.trim_matches('/');
    if cgroup.is_empty() {
        return;
    }
    for tree in trees() {
        let _ = std::fs::remove_dir(tree.join(cgroup));
    }
}

fn trees() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_path_buf()];
    }
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && !path.is_symlink())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted() {
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(kills("low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 0\n"), 1);
        assert_eq!(kills("oom_kill_disable 0\n"), 0);
    }
}

//! The pods' cgroup tree, on version 1 controllers and on version 2 alike. Containers'
//! own groups below it are the runtime's.
//!
//! ```text
//! /skiff ─┬─ guaranteed/pod<uid>
//!         ├─ burstable/pod<uid>
//!         └─ besteffort/pod<uid>
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::ports::Resources;

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    pub path: PathBuf,
    /// `cpu`, `memory`, ...; none on version 2.
    pub controllers: Vec<String>,
    pub version_2: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("{operation} cgroup {}", path.display())]
pub struct CgroupError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Reads `/proc/mounts`.
pub fn hierarchies(mounts: &str) -> Vec<Hierarchy> {
    const KNOWN: &[&str] = &[
        "cpu",
        "cpuacct",
        "cpuset",
        "memory",
        "devices",
        "freezer",
        "blkio",
        "pids",
        "hugetlb",
        "net_cls",
        "net_prio",
        "perf_event",
        "rdma",
        "misc",
        "name=systemd",
    ];
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(_), Some(path), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if kind != "cgroup" && kind != "cgroup2" {
            continue;
        }
        let controllers =
            options.split(',').filter(|o| KNOWN.contains(o)).map(str::to_owned).collect();
        let hierarchy = Hierarchy { path: path.into(), controllers, version_2: kind == "cgroup2" };
        if !found.contains(&hierarchy) {
            found.push(hierarchy);
        }
    }
    found
}

#[derive(Debug, Clone)]
pub struct Cgroups {
    hierarchies: Vec<Hierarchy>,
}

impl Cgroups {
    pub fn of_host() -> Self {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        Self::new(hierarchies(&mounts))
    }

    pub fn new(hierarchies: Vec<Hierarchy>) -> Self {
        Self { hierarchies }
    }

    /// Makes the group where the runtime will look for it, and sets the pod's limits.
    pub fn create(&self, group: &str, resources: &Resources) -> Result<(), CgroupError> {
        for hierarchy in &self.hierarchies {
            let controls = hierarchy.version_2
                || hierarchy.controllers.iter().any(|c| matches!(c.as_str(), "cpu" | "memory"));
            // Elsewhere the runtime makes what it needs.
            if !controls {
                continue;
            }
            let path = below(&hierarchy.path, group);
            if hierarchy.version_2 {
                delegate(&hierarchy.path, group);
            }
            fs::create_dir_all(&path).map_err(|source| CgroupError {
                operation: "create",
                path: path.clone(),
                source,
            })?;
            for (file, value) in settings(hierarchy, resources) {
                let file = path.join(file);
                if !file.exists() {
                    continue;
                }
                if let Err(why) = fs::write(&file, &value) {
                    // A pod runs without a limit of its own; its containers have theirs.
                    tracing::warn!(file = %file.display(), value, %why, "cgroup setting refused");
                }
            }
        }
        Ok(())
    }

    /// Removes the group with everything below; gathers what could not be.
    pub fn remove(&self, group: &str) -> Result<(), CgroupError> {
        let mut failed = Ok(());
        for hierarchy in &self.hierarchies {
            let path = below(&hierarchy.path, group);
            if let Err(source) = remove_tree(&path) {
                failed = Err(CgroupError { operation: "remove", path, source });
            }
        }
        failed
    }
}

fn below(root: &Path, group: &str) -> PathBuf {
    root.join(group.trim_start_matches('/'))
}

/// Version 2 gives controllers to a child only where its parent says so.
fn delegate(root: &Path, group: &str) {
    let mut path = root.to_path_buf();
    let mut parts: Vec<&str> = group.trim_matches('/').split('/').collect();
    parts.insert(0, "");
    for part in parts {
        path.push(part);
        if fs::create_dir_all(&path).is_err() {
            return;
        }
        for controller in ["+cpu", "+memory", "+pids", "+cpuset", "+io"] {
            // On a mixed host version 1 has them, and this is refused.
            let _ = fs::write(path.join("cgroup.subtree_control"), controller);
        }
    }
}

fn settings(hierarchy: &Hierarchy, resources: &Resources) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    let has = |name: &str| hierarchy.version_2 || hierarchy.controllers.iter().any(|c| c == name);
    let period = resources.cpu_period_micros.unwrap_or(100_000);
    if has("cpu") {
        if hierarchy.version_2 {
            let weight = |shares: u64| 1 + (shares.max(2) - 2) * 9999 / 262_142;
            all.extend(resources.cpu_shares.map(|s| ("cpu.weight", weight(s).to_string())));
            all.extend(resources.cpu_quota_micros.map(|q| ("cpu.max", format!("{q} {period}"))));
        } else {
            all.extend(resources.cpu_shares.map(|s| ("cpu.shares", s.to_string())));
            if let Some(quota) = resources.cpu_quota_micros {
                all.push(("cpu.cfs_period_us", period.to_string()));
                all.push(("cpu.cfs_quota_us", quota.to_string()));
            }
        }
    }
    if has("memory") {
        let file = if hierarchy.version_2 { "memory.max" } else { "memory.limit_in_bytes" };
        all.extend(resources.memory_limit_bytes.map(|bytes| (file, bytes.to_string())));
    }
    all
}

/// Groups are removed from the leaves up; their files go with them.
fn remove_tree(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(why),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXED: &str = "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n\
        cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
        cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n\
        tmpfs /tmp tmpfs rw 0 0\n";

    #[test]
    fn reads_mounts() {
        let found = hierarchies(MIXED);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].controllers, ["cpu"]);
        assert!(found[2].version_2);
    }

    #[test]
    fn writes_each_versions_own_files() {
        let resources = Resources {
            cpu_shares: Some(1024),
            cpu_quota_micros: Some(50_000),
            cpu_period_micros: Some(100_000),
            memory_limit_bytes: Some(1 << 20),
            ..Default::default()
        };
        let found = hierarchies(MIXED);
        let text = |h| {
            settings(h, &resources)
                .iter()
                .map(|(f, v)| format!("{f}={v}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            text(&found[0]),
            "cpu.shares=1024 cpu.cfs_period_us=100000 cpu.cfs_quota_us=50000"
        );
        assert_eq!(text(&found[1]), "memory.limit_in_bytes=1048576");
        assert_eq!(text(&found[2]), "cpu.weight=39 cpu.max=50000 100000 memory.max=1048576");
    }

    #[test]
    fn a_real_group_comes_and_goes() {
        let cgroups = Cgroups::of_host();
        let root = format!("/skiff-test-{}", std::process::id());
        let group = format!("{root}/burstable/pod1");
        cgroups
            .create(&group, &Resources { cpu_shares: Some(512), ..Default::default() })
            .expect("creates: needs root");
        let shares = cgroups
            .hierarchies
            .iter()
            .map(|h| below(&h.path, &group))
            .find(|p| p.join("cpu.shares").exists() || p.join("cpu.weight").exists());
        assert!(shares.is_some(), "no cpu controller for {group}");
        cgroups.remove(&root).expect("removes");
        assert!(cgroups.hierarchies.iter().all(|h| !below(&h.path, &root).exists()));
        cgroups.remove(&root).expect("removes nothing");
    }
}

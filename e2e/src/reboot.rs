//! A power loss and the boot after it, for one cluster: every process ended, everything that lives in memory gone, and
//! another boot id. What is on the disk stays.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::Cluster;
use crate::eventually;

/// Where shims of all containerds listen.
const SHIM_SOCKETS: &str = "/run/containerd/s/";

impl Cluster {
    /// Ends the cluster as a power loss would, and leaves the host as a boot would. `start_server` comes next.
    pub fn lose_power(&mut self) {
        self.kill_server();
        let dir = self.dir.path().to_owned();
        let ours = processes_of(&dir);
        let sockets: Vec<String> = ours.iter().flat_map(|pid| shim_sockets(*pid)).collect();
        let groups: Vec<String> = ours.iter().filter_map(|pid| cgroup_root(*pid)).collect();
        ours.iter().for_each(|pid| end(*pid));
        eventually("all processes to end", std::time::Duration::from_secs(20), || {
            let left = processes_of(&dir);
            left.iter().for_each(|pid| end(*pid));
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        sockets.iter().for_each(|socket| drop(std::fs::remove_file(socket)));
        for mount in mounts_under(&self.path("run")).iter().chain(&mounts_under(&self.path("data")))
        {
            let _ = umount2(mount.as_str(), MntFlags::MNT_DETACH);
        }
        let _ = std::fs::remove_dir_all(self.path("run"));
        groups.iter().for_each(|name| remove_cgroups(name));
        self.forget_network();
        let boots = self.boot.take().map_or(0, |(boots, _)| boots) + 1;
        let file = self.path("boot-id");
        std::fs::write(&file, format!("00000000-0000-4000-8000-{boots:012}\n")).expect("writes");
        self.boot = Some((boots, file));
    }

    /// Links and rules are the kernel's: a boot knows none of them.
    fn forget_network(&self) {
        let script = "for l in $(ip -o link | grep -oE '(veth[0-9a-f]+|skiff0)'); do ip link del $l 2>/dev/null; done; \
            for t in nat filter mangle; do iptables -t $t -F; iptables -t $t -X; ip6tables -t $t -F; ip6tables -t $t -X; done; \
            conntrack -F 2>/dev/null; true";
        self.host.run("sh", &["-c", script]);
    }
}

/// The cluster's processes: those that name its folder, and the children of its shims.
pub fn processes_of(dir: &Path) -> Vec<i32> {
    let needle = format!("{}/", dir.display());
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("reads").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let (state, parent) = (fields.next().unwrap_or_default(), fields.next());
        let parent = parent.and_then(|text| text.parse::<i32>().ok()).unwrap_or_default();
        if pid != own && state != "Z" {
            let named = String::from_utf8_lossy(&line).contains(&needle);
            all.push((pid, parent, named));
        }
    }
    let mut found: Vec<i32> = all.iter().filter(|(_, _, named)| *named).map(|p| p.0).collect();
    let mut at = 0;
    while at < found.len() {
        let children =
            all.iter().filter(|(pid, parent, _)| *parent == found[at] && !found.contains(pid));
        let children: Vec<i32> = children.map(|p| p.0).collect();
        found.extend(children);
        at += 1;
    }
    found
}

/// One that has ended meanwhile is as good.
fn end(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

/// The first part of the control group that a container's process is in, when it is one of ours.
fn cgroup_root(pid: i32) -> Option<String> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let parts = groups.lines().filter_map(|line| line.rsplit(':').next()?.split('/').nth(1));
    parts.filter(|part| part.starts_with("skiff-")).map(str::to_owned).next()
}

fn shim_sockets(pid: i32) -> Vec<String> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let inode = |link: PathBuf| {
        Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    let inodes: Vec<String> = links.filter_map(inode).collect();
    // Each network namespace has a table of its own.
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap_or_default();
    let listed = table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(6);
        Some((fields.next()?, fields.next()?))
    });
    listed
        .filter(|(inode, path)| path.starts_with(SHIM_SOCKETS) && inodes.iter().any(|i| i == inode))
        .map(|(_, path)| path.to_owned())
        .collect()
}

/// Deepest first.
pub fn mounts_under(dir: &Path) -> Vec<String> {
    let needle = format!("{}/", dir.display());
    let table = std::fs::read_to_string("/proc/self/mounts").expect("reads");
    let points = table.lines().filter_map(|line| line.split(' ').nth(1));
    let mut found: Vec<String> =
        points.filter(|point| point.starts_with(&needle)).map(str::to_owned).collect();
    found.reverse();
    found
}

fn remove_cgroups(name: &str) {
    assert!(name.starts_with("skiff-"), "{name} is not a test's");
    let script = format!(
        "find /sys/fs/cgroup/ -depth -type d -path '*/{name}*' -exec rmdir {{}} + 2>/dev/null; true"
    );
    let _ = Command::new("sh").args(["-c", &script]).status();
}

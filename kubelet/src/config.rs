//! What the kubelet is told: who it is, where it keeps things, and what pods get from it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use skiff_proto::model::Taint;

#[derive(Debug, Clone)]
pub struct Config {
    pub node_name: String,
    pub node_ip: IpAddr,
    /// Volumes and per-pod files: `/var/lib/skiff/kubelet`.
    pub root_dir: PathBuf,
    /// Container logs: `/var/log/pods`.
    pub log_dir: PathBuf,
    /// The host's `/etc/hosts` and `/etc/resolv.conf` are read for pods that ask for them.
    pub host_etc: PathBuf,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    pub max_pods: u32,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    /// Top of the cgroup tree of all pods; no other kubelet of the machine may have the same.
    pub cgroup_root: String,
    /// The port of the node server, as the Node object announces it. 0: there is none.
    pub node_port: u16,
    pub lease_renew_interval: Duration,
    pub lease_duration: Duration,
    /// What an unchanged node status waits for at most.
    pub status_report_interval: Duration,
    pub version: String,
    /// Common names (or organisations) of client certificates that may use the node server.
    pub allowed_clients: Vec<String>,
    /// Container starts at the same time; each costs a shim process and several mounts.
    pub parallel_starts: usize,
    pub parallel_pulls: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("kubelet configuration: {}", .0.join("; "))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// The usual values for a node of this name and address.
    pub fn new(node_name: impl Into<String>, node_ip: IpAddr) -> Self {
        let cpus = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            node_name: node_name.into(),
            node_ip,
            root_dir: "/var/lib/skiff/kubelet".into(),
            log_dir: "/var/log/pods".into(),
            host_etc: "/etc".into(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            max_pods: 110,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            cgroup_root: "/skiff".into(),
            node_port: 10250,
            lease_renew_interval: Duration::from_secs(10),
            lease_duration: Duration::from_secs(40),
            status_report_interval: Duration::from_secs(300),
            version: env!("CARGO_PKG_VERSION").into(),
            allowed_clients: vec!["skiff-apiserver".into()],
            parallel_starts: (cpus * 3).div_ceil(2),
            parallel_pulls: 3,
        }
    }

    /// Reports every fault at once.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut faults = Vec::new();
        if self.node_name.is_empty()
            || self.node_name.len() > 253
            || !self
                .node_name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        {
            faults.push(format!(
                "node name {:?} is no DNS subdomain: use lower case letters, digits, - and .",
                self.node_name
            ));
        }
        for (what, path) in [("root directory", &self.root_dir), ("log directory", &self.log_dir)] {
            if !path.is_absolute() {
                faults.push(format!("{what} {} must be an absolute path", path.display()));
            }
        }
        if self.lease_duration <= self.lease_renew_interval {
            faults.push("lease duration must be longer than its renew interval".into());
        }
        if self.max_pods == 0 {
            faults.push("max pods must be at least 1".into());
        }
        if !self.cgroup_root.starts_with('/') || self.cgroup_root.len() < 2 {
            faults.push(format!("cgroup root {:?} must be a path below /", self.cgroup_root));
        }
        if self.parallel_starts == 0 || self.parallel_pulls == 0 {
            faults.push("parallel starts and pulls must be at least 1".into());
        }
        if faults.is_empty() { Ok(()) } else { Err(ConfigError(faults)) }
    }

    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }

    /// `/var/log/pods/<namespace>_<name>_<uid>`
    pub fn pod_log_dir(&self, pod: &crate::ports::PodRef) -> PathBuf {
        self.log_dir.join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_told_at_once() {
        let mut config = Config::new("Node_1", [10, 0, 0, 1].into());
        config.root_dir = "here".into();
        config.max_pods = 0;
        let text = config.validate().expect_err("has faults").to_string();
        assert!(
            text.contains("Node_1") && text.contains("here") && text.contains("max pods"),
            "{text}"
        );
        assert!(Config::new("node-1", [10, 0, 0, 1].into()).validate().is_ok());
    }
}

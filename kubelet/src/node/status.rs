//! The Node object's status. Pure; conditions, reasons and messages are upstream's.

use std::collections::BTreeMap;
use std::time::SystemTime;

use skiff_proto::model::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo,
};
use skiff_proto::{Condition, Quantity, Timestamp};

use super::facts::{Machine, Room, architecture};
use crate::config::Config;
use crate::ports::Image;

/// Upstream's hard eviction thresholds: below them the node is under pressure.
const MIN_MEMORY_BYTES: i64 = 100 << 20;
const MIN_DISK_PERCENT: i64 = 10;
const MIN_INODES_PERCENT: u64 = 5;
const MIN_PIDS_PERCENT: i64 = 5;
/// A node tells of its largest images only.
const MAX_IMAGES: usize = 50;
const MAX_NAMES_PER_IMAGE: usize = 5;

pub struct Input<'a> {
    pub config: &'a Config,
    pub machine: &'a Machine,
    pub room: Room,
    pub images: &'a [Image],
    pub runtime_version: &'a str,
    /// Why the runtime or the pod network does not work.
    pub not_ready: Option<String>,
    pub previous: &'a NodeStatus,
    pub now: SystemTime,
}

pub fn node_status(input: &Input<'_>) -> NodeStatus {
    let Input { config, machine, .. } = input;
    let capacity = BTreeMap::from([
        ("cpu".to_owned(), Quantity::from_value(i64::from(machine.cpus))),
        ("memory".to_owned(), Quantity::from_bytes(machine.memory_bytes)),
        ("ephemeral-storage".to_owned(), Quantity::from_bytes(machine.disk_bytes)),
        ("pods".to_owned(), Quantity::from_value(i64::from(config.max_pods))),
    ]);
    let mut status = input.previous.clone();
    status.allocatable = capacity.clone();
    status.capacity = capacity;
    status.addresses = vec![
        NodeAddress { type_: "InternalIP".into(), address: config.node_ip.to_string() },
        NodeAddress { type_: "Hostname".into(), address: config.node_name.clone() },
    ];
    status.daemon_endpoints =
        NodeDaemonEndpoints { kubelet_endpoint: DaemonEndpoint { port: config.node_port } };
    status.node_info = NodeSystemInfo {
        machine_id: machine.machine_id.clone(),
        system_uuid: machine.system_uuid.clone(),
        boot_id: machine.boot_id.clone(),
        kernel_version: machine.kernel_version.clone(),
        os_image: machine.os_image.clone(),
        container_runtime_version: input.runtime_version.to_owned(),
        kubelet_version: config.version.clone(),
        kube_proxy_version: config.version.clone(),
        operating_system: "linux".into(),
        architecture: architecture().into(),
    };
    status.images = images(input.images);
    status.conditions = conditions(input);
    status
}

fn images(images: &[Image]) -> Vec<ContainerImage> {
    let mut by_id: BTreeMap<&str, ContainerImage> = BTreeMap::new();
    for image in images {
        let size_bytes = i64::try_from(image.size_bytes).unwrap_or(i64::MAX);
        let entry = by_id
            .entry(&image.id)
            .or_insert_with(|| ContainerImage { names: Vec::new(), size_bytes });
        for name in [&image.repo_digest, &image.reference] {
            if !name.is_empty() && !entry.names.contains(name) {
                entry.names.push(name.clone());
            }
        }
    }
    let mut list: Vec<ContainerImage> = by_id.into_values().collect();
    for image in &mut list {
        image.names.sort();
        image.names.truncate(MAX_NAMES_PER_IMAGE);
    }
    list.sort_by(|a, b| (b.size_bytes, &a.names).cmp(&(a.size_bytes, &b.names)));
    list.truncate(MAX_IMAGES);
    list
}

/// Heartbeat times stay as they were: a beat alone is no change, and the Lease carries it.
fn conditions(input: &Input<'_>) -> Vec<Condition> {
    let room = &input.room;
    let memory = room.memory_available_bytes < MIN_MEMORY_BYTES;
    let disk = room.disk_available_bytes * 100 < room.disk_total_bytes * MIN_DISK_PERCENT
        || room.inodes_free * 100 < room.inodes_total * MIN_INODES_PERCENT;
    let pids = room.pids_max > 0
        && (room.pids_max - room.pids_used) * 100 < room.pids_max * MIN_PIDS_PERCENT;
    let pressure = |type_: &str, on: bool, bad: (&str, &str), good: (&str, &str)| {
        let (reason, message) = if on { bad } else { good };
        condition(input, type_, on, reason, message)
    };
    let mut all = vec![
        pressure(
            "MemoryPressure",
            memory,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            pids,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
    ];
    all.push(match &input.not_ready {
        None => condition(input, "Ready", true, "KubeletReady", "kubelet is posting ready status"),
        Some(why) => condition(input, "Ready", false, "KubeletNotReady", why),
    });
    let ours = |c: &&Condition| !all.iter().any(|mine| mine.type_ == c.type_);
    let others: Vec<Condition> = input.previous.conditions.iter().filter(ours).cloned().collect();
    [others, all].concat()
}

fn condition(input: &Input<'_>, type_: &str, on: bool, reason: &str, message: &str) -> Condition {
    let known = input.previous.conditions.iter().find(|c| c.type_ == type_);
    let status = if on { "True" } else { "False" };
    let now = Timestamp::seconds(input.now);
    let same = known.filter(|c| c.status == status);
    Condition {
        type_: type_.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: same.and_then(|c| c.last_transition_time).or(Some(now)),
        last_heartbeat_time: same.and_then(|c| c.last_heartbeat_time).or(Some(now)),
        ..Default::default()
    }
}

/// The same with fresh heartbeat times, for the report that is due even without a change.
pub fn beat(mut status: NodeStatus, now: SystemTime) -> NodeStatus {
    for condition in &mut status.conditions {
        if condition.last_heartbeat_time.is_some() {
            condition.last_heartbeat_time = Some(Timestamp::seconds(now));
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn input<'a>(config: &'a Config, machine: &'a Machine, previous: &'a NodeStatus) -> Input<'a> {
        let room = Room {
            memory_available_bytes: 1 << 30,
            disk_total_bytes: 1000,
            disk_available_bytes: 500,
            inodes_total: 100,
            inodes_free: 50,
            pids_used: 10,
            pids_max: 1000,
        };
        Input {
            config,
            machine,
            room,
            images: &[],
            runtime_version: "containerd://1.6.20",
            not_ready: None,
            previous,
            now: SystemTime::UNIX_EPOCH,
        }
    }

    fn shown(status: &NodeStatus) -> Vec<String> {
        status.conditions.iter().map(|c| format!("{}={} {}", c.type_, c.status, c.reason)).collect()
    }

    #[test]
    fn a_well_node_and_one_under_pressure() {
        let (config, machine, previous) = (
            Config::new("n", [10, 0, 0, 1].into()),
            Machine { cpus: 2, memory_bytes: 1 << 30, ..Default::default() },
            NodeStatus::default(),
        );
        let mut input = input(&config, &machine, &previous);
        let well = node_status(&input);
        assert_eq!(
            shown(&well),
            [
                "MemoryPressure=False KubeletHasSufficientMemory",
                "DiskPressure=False KubeletHasNoDiskPressure",
                "PIDPressure=False KubeletHasSufficientPID",
                "Ready=True KubeletReady",
            ]
        );
        assert_eq!(well.capacity["memory"].to_string(), "1Gi");
        input.room.disk_available_bytes = 99;
        input.not_ready = Some("container runtime network not ready: x".into());
        let bad = shown(&node_status(&input));
        assert_eq!(bad[1], "DiskPressure=True KubeletHasDiskPressure");
        assert_eq!(bad[3], "Ready=False KubeletNotReady");
    }

    #[test]
    fn time_alone_changes_nothing() {
        let (config, machine) = (Config::new("n", [10, 0, 0, 1].into()), Machine::default());
        let first = node_status(&input(&config, &machine, &NodeStatus::default()));
        let mut later = input(&config, &machine, &first);
        later.now += Duration::from_secs(60);
        assert_eq!(node_status(&later), first);
        assert_ne!(beat(first.clone(), later.now), first);
    }
}

//! A pod's status, made from its spec, what the runtime has, and what probes say. Pure.
//!
//! Phases, conditions, reasons and messages are upstream's (`pkg/kubelet/kubelet_pods.go`,
//! `pkg/kubelet/status/generate.go`), since controllers and people match on them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use skiff_proto::Timestamp;
use skiff_proto::model::{HostIp, Pod, PodStatus};

use crate::pod::history::History;
use crate::ports::{ContainerState, Phase, SandboxState};
use crate::probe::Results;
use crate::resources;

pub mod conditions;
pub mod container;
pub mod writer;

pub struct Input<'a> {
    pub pod: &'a Pod,
    /// What was said last: transition times of unchanged conditions are kept.
    pub previous: &'a PodStatus,
    pub sandboxes: &'a [SandboxState],
    pub containers: &'a [ContainerState],
    pub history: &'a History,
    pub probes: &'a Results,
    /// Why a container does not start: reason and message by its name.
    pub waiting: &'a BTreeMap<String, Waiting>,
    /// Termination messages by container id.
    pub messages: &'a BTreeMap<String, String>,
    pub pod_ips: &'a [IpAddr],
    pub host_ip: IpAddr,
    /// The pod has failed as a whole: reason and message.
    pub failed: Option<&'a Waiting>,
    /// The pod was deleted and nothing of it runs any more.
    pub terminated: bool,
    pub now: SystemTime,
}

/// A reason and its message, as a waiting container shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

impl Waiting {
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

pub fn pod_status(input: &Input<'_>) -> PodStatus {
    let mut status = input.previous.clone();
    let spec = &input.pod.spec;
    // A pod that the node has refused has no containers to tell of.
    let failed = input.failed.is_some() || input.previous.phase == "Failed";
    if !(failed && input.containers.is_empty() && input.previous.container_statuses.is_empty()) {
        status.init_container_statuses =
            spec.init_containers.iter().map(|c| container::status(input, c)).collect();
        status.container_statuses =
            spec.containers.iter().map(|c| container::status(input, c)).collect();
    }
    status.phase = match input.failed {
        Some(_) => "Failed".into(),
        None if matches!(input.previous.phase.as_str(), "Succeeded" | "Failed") => {
            // A finished pod stays finished, whatever becomes of its records.
            input.previous.phase.clone()
        }
        None => container::phase(input, &status).into(),
    };
    if let Some(failed) = input.failed {
        (status.reason, status.message) = (failed.reason.clone(), failed.message.clone());
    }
    status.host_ip = input.host_ip.to_string();
    status.host_ips = vec![HostIp { ip: input.host_ip.to_string() }];
    if !input.pod_ips.is_empty() {
        status.pod_ips = input.pod_ips.iter().map(|ip| HostIp { ip: ip.to_string() }).collect();
        status.pod_ip = status.pod_ips[0].ip.clone();
    }
    status.start_time = input.previous.start_time.or(Some(Timestamp::seconds(input.now)));
    status.qos_class = resources::qos(spec).name().into();
    status.observed_generation = input.pod.metadata.generation;
    let network = input.sandboxes.iter().any(|s| s.phase == Phase::Running)
        && (spec.host_network || !input.pod_ips.is_empty());
    conditions::update(&mut status, input, network);
    status
}

#[cfg(test)]
mod tests;

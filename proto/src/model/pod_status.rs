//! A pod as it is: phase, conditions, container states.

use crate::meta::Condition;
use crate::timestamp::Timestamp;

model! {
    PodStatus {
        /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
        phase: String,
        conditions: Vec<Condition>,
        message: String,
        reason: String,
        #[serde(rename = "hostIP")] host_ip: String,
        #[serde(rename = "hostIPs")] host_ips: Vec<HostIp>,
        #[serde(rename = "podIP")] pod_ip: String,
        #[serde(rename = "podIPs")] pod_ips: Vec<HostIp>,
        start_time: Option<Timestamp>,
        init_container_statuses: Vec<ContainerStatus>,
        container_statuses: Vec<ContainerStatus>,
        qos_class: String,
        nominated_node_name: String,
        observed_generation: i64,
    }
    HostIp { ip: String }
    ContainerStateTerminated {
        exit_code: i32,
        signal: i32,
        reason: String,
        message: String,
        started_at: Option<Timestamp>,
        finished_at: Option<Timestamp>,
        #[serde(rename = "containerID")] container_id: String,
    }
    ContainerStateRunning { started_at: Option<Timestamp> }
    ContainerStateWaiting { reason: String, message: String }
    /// At most one is there.
    ContainerStateStatus {
        waiting: Option<ContainerStateWaiting>,
        running: Option<ContainerStateRunning>,
        terminated: Option<ContainerStateTerminated>,
    }
}

/// Upstream writes `ready`, `restartCount` and the like even when they are false or zero.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    pub name: String,
    pub state: ContainerStateStatus,
    pub last_state: ContainerStateStatus,
    pub ready: bool,
    pub restart_count: i32,
    pub image: String,
    #[serde(rename = "imageID")]
    pub image_id: String,
    #[serde(rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<bool>,
}

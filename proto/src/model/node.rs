//! Node.

use std::collections::BTreeMap;

use crate::meta::{Condition, ObjectMeta};
use crate::quantity::Quantity;
use crate::timestamp::Timestamp;

model! {
    Node { metadata: ObjectMeta, spec: NodeSpec, status: NodeStatus }
    NodeSpec {
        #[serde(rename = "podCIDR")] pod_cidr: String,
        #[serde(rename = "podCIDRs")] pod_cidrs: Vec<String>,
        #[serde(rename = "providerID")] provider_id: String,
        taints: Vec<Taint>,
        unschedulable: bool,
    }
    /// `effect` is `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    Taint { key: String, value: String, effect: String, time_added: Option<Timestamp> }
    NodeStatus {
        capacity: BTreeMap<String, Quantity>,
        allocatable: BTreeMap<String, Quantity>,
        conditions: Vec<Condition>,
        addresses: Vec<NodeAddress>,
        daemon_endpoints: NodeDaemonEndpoints,
        node_info: NodeSystemInfo,
        images: Vec<ContainerImage>,
    }
    /// `type` is `InternalIP`, `Hostname`, `ExternalIP`, ...
    NodeAddress { #[serde(rename = "type")] type_: String, address: String }
    NodeDaemonEndpoints { kubelet_endpoint: DaemonEndpoint }
    DaemonEndpoint { #[serde(rename = "Port")] port: u16 }
    NodeSystemInfo {
        #[serde(rename = "machineID")] machine_id: String,
        #[serde(rename = "systemUUID")] system_uuid: String,
        #[serde(rename = "bootID")] boot_id: String,
        kernel_version: String,
        os_image: String,
        container_runtime_version: String,
        kubelet_version: String,
        kube_proxy_version: String,
        operating_system: String,
        architecture: String,
    }
    ContainerImage { names: Vec<String>, size_bytes: i64 }
}

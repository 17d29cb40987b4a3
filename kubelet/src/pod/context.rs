//! What all pod workers share.

use std::sync::Arc;

use skiff_client::event::Recorder;
use skiff_client::{Api, Cache};
use skiff_proto::model::{Container, ContainerPort, Pod, Service};
use skiff_proto::{ObjectReference, resource};
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::cgroup::Cgroups;
use crate::config::Config;
use crate::image::Images;
use crate::objects::Objects;
use crate::ports::{Network, PodRef, PortMapping, Runtime};
use crate::turns::Turns;

pub struct Context {
    pub api: Arc<dyn Api>,
    pub runtime: Arc<dyn Runtime>,
    pub network: Arc<dyn Network>,
    pub config: Config,
    pub recorder: Recorder,
    pub images: Images,
    pub objects: Objects,
    pub services: Arc<Cache<Service>>,
    pub cgroups: Cgroups,
    /// Bounds sandbox and container starts: on two cores, more at once only makes all late.
    pub starts: Arc<Turns>,
    pub admission: Admission,
    pub node: NodeSize,
    pub shutdown: CancellationToken,
}

/// What the node has to give.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeSize {
    pub milli_cpu: i64,
    pub memory_bytes: i64,
}

/// For events about the pod.
pub fn about_pod(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: resource::PODS.api_version(),
        kind: "Pod".into(),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: String::new(),
    }
}

/// For events about one of its containers.
pub fn about_container(pod: &Pod, container: &Container) -> ObjectReference {
    let init = pod.spec.init_containers.iter().any(|c| c.name == container.name);
    let list = if init { "initContainers" } else { "containers" };
    let field_path = format!("spec.{list}{{{}}}", container.name);
    ObjectReference { field_path, ..about_pod(pod) }
}

pub fn pod_ref(pod: &Pod) -> PodRef {
    PodRef {
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
    }
}

/// `name_namespace(uid)`, upstream's way to name a pod in messages.
pub fn full_name(pod: &PodRef) -> String {
    format!("{}_{}({})", pod.name, pod.namespace, pod.uid)
}

/// What the network knows a sandbox by: it needs its namespace before the runtime has an id for it.
pub fn network_key(pod: &PodRef, attempt: u32) -> String {
    format!("{}-{attempt}", pod.uid)
}

pub fn find_container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    pod.spec.init_containers.iter().chain(&pod.spec.containers).find(|c| c.name == name)
}

/// The node's ports that the pod asks for. One of the host's own network has them by itself.
pub fn host_ports(pod: &Pod) -> Vec<PortMapping> {
    if pod.spec.host_network {
        return Vec::new();
    }
    let sidecars = pod.spec.init_containers.iter().filter(|c| c.restart_policy == "Always");
    let asked = pod.spec.containers.iter().chain(sidecars).flat_map(|c| &c.ports);
    let asked = asked.filter(|p| p.host_port != 0);
    let mapping = |port: &ContainerPort| PortMapping {
        host_port: port.host_port,
        container_port: port.container_port,
        protocol: match port.protocol.as_str() {
            "" => "tcp".to_owned(),
            other => other.to_ascii_lowercase(),
        },
        host_ip: port.host_ip.clone(),
    };
    asked.map(mapping).collect()
}

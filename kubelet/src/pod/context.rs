//! What all pod workers share.

use std::sync::Arc;

use skiff_client::event::Recorder;
use skiff_client::{Api, Cache};
use skiff_proto::model::{Container, Pod, Service};
use skiff_proto::{ObjectReference, resource};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::cgroup::Cgroups;
use crate::config::Config;
use crate::image::Images;
use crate::objects::Objects;
use crate::ports::{Network, PodRef, Runtime};

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
    pub starts: Semaphore,
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

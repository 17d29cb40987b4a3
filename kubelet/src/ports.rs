//! The kubelet's two ports to the world: a container runtime and a pod network. The pod
//! workers know only these traits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Which pod a sandbox or container belongs to. Kept as labels in the runtime, so that a
/// restarted kubelet finds its own again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The reference it was asked for, normalised: `docker.io/library/busybox:1.36`.
    pub reference: String,
    /// Digest of the manifest or index: `sha256:...`.
    pub id: String,
    /// `repository@sha256:...`, what `imageID` in a container status shows.
    pub repo_digest: String,
    pub size_bytes: u64,
    pub config: ImageConfig,
}

/// What an image says about how to run it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub working_dir: String,
    /// `user`, `uid`, `user:group` or empty.
    pub user: String,
    pub stop_signal: String,
}

#[derive(Debug, Clone, Default)]
pub struct RegistryAuth {
    pub username: String,
    pub password: String,
}

#[derive(Debug, Clone)]
pub struct SandboxConfig {
    pub pod: PodRef,
    /// Counts the sandboxes of one pod: a new one after the old one died.
    pub attempt: u32,
    pub hostname: String,
    /// The pod's network namespace; `None` for hostNetwork.
    pub network_namespace: Option<PathBuf>,
    pub host_pid: bool,
    pub host_ipc: bool,
    /// Containers of the pod see each other's processes.
    pub share_process_namespace: bool,
    /// Parent cgroup of everything in the pod: `/skiff/burstable/pod<uid>`.
    pub cgroup_parent: String,
    pub sysctls: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu_shares: Option<u64>,
    pub cpu_quota_micros: Option<i64>,
    pub cpu_period_micros: Option<u64>,
    pub memory_limit_bytes: Option<i64>,
    pub pids_limit: Option<i64>,
    pub oom_score_adj: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub host_path: PathBuf,
    pub container_path: String,
    pub read_only: bool,
    /// `rprivate`, `rslave` or `rshared`.
    pub propagation: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// `None`: the image's own user.
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub run_as_non_root: bool,
    pub supplemental_groups: Vec<i64>,
    pub privileged: bool,
    pub read_only_root: bool,
    pub no_new_privileges: bool,
    /// As in a manifest: `NET_ADMIN`, `ALL`.
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct ContainerConfig {
    pub pod: PodRef,
    pub name: String,
    pub attempt: u32,
    pub image: Image,
    /// Already decided from the manifest and the image: what is executed.
    pub args: Vec<String>,
    /// `KEY=value`, the image's own first.
    pub env: Vec<String>,
    pub working_dir: String,
    pub mounts: Vec<Mount>,
    pub resources: Resources,
    pub security: Security,
    pub tty: bool,
    pub stdin: bool,
    /// CRI log file: `/var/log/pods/<ns>_<name>_<uid>/<container>/<attempt>.log`.
    pub log_path: PathBuf,
    /// Free words that come back in `ContainerState`: restart count, spec hash.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Created,
    Running,
    Exited,
    Unknown,
}

/// A sandbox as the runtime has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxState {
    pub id: String,
    pub pod: PodRef,
    pub attempt: u32,
    pub phase: Phase,
    pub created_at: SystemTime,
    pub network_namespace: Option<PathBuf>,
    pub pid: Option<u32>,
}

/// A container as the runtime has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerState {
    pub id: String,
    pub sandbox_id: String,
    pub pod: PodRef,
    pub name: String,
    pub attempt: u32,
    pub phase: Phase,
    pub image: String,
    pub image_id: String,
    pub created_at: SystemTime,
    pub started_at: Option<SystemTime>,
    pub finished_at: Option<SystemTime>,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    pub pid: Option<u32>,
    pub log_path: PathBuf,
    pub annotations: BTreeMap<String, String>,
}

/// Something about a container or a sandbox of this pod changed: look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeEvent {
    /// `None`: events may have been missed, look at every pod.
    pub pod: Option<PodRef>,
}

#[derive(Debug)]
pub struct ExecIo {
    pub stdin: Option<mpsc::Receiver<Bytes>>,
    pub stdout: mpsc::Sender<Bytes>,
    /// Unused with a terminal.
    pub stderr: mpsc::Sender<Bytes>,
    /// Width and height of the terminal.
    pub resize: Option<mpsc::Receiver<(u16, u16)>>,
    pub tty: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("{kind} {id} not found in the runtime")]
    NotFound { kind: &'static str, id: String },
    #[error("image {reference}: {why}")]
    InvalidImageName { reference: String, why: String },
    /// The registry has no such image, or refuses to give it.
    #[error("pull image {reference}: {why}")]
    Pull { reference: String, why: String },
    #[error("{operation}: {why}")]
    Failed { operation: String, why: String },
    #[error("containerd at {address} does not answer: {why}")]
    Unavailable { address: String, why: String },
}

/// A container runtime. Ids are the runtime's; every call may be repeated.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Name and version, as in a node's `containerRuntimeVersion`: `containerd://1.6.20`.
    async fn version(&self) -> Result<String, RuntimeError>;

    async fn images(&self) -> Result<Vec<Image>, RuntimeError>;
    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError>;
    async fn pull(
        &self,
        reference: &str,
        auth: Option<&RegistryAuth>,
    ) -> Result<Image, RuntimeError>;
    /// Reads an OCI or docker archive; returns what it held.
    async fn import(&self, archive: &Path) -> Result<Vec<Image>, RuntimeError>;
    async fn remove_image(&self, reference: &str) -> Result<(), RuntimeError>;

    /// Creates and starts the sandbox; returns its id.
    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<String, RuntimeError>;
    /// Kills what still runs in it. Not found is success.
    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    /// Removes it with its containers. Not found is success.
    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError>;

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
    ) -> Result<String, RuntimeError>;
    async fn start_container(&self, id: &str) -> Result<(), RuntimeError>;
    /// Sends the image's stop signal, waits `grace` for the end, then kills.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError>;
    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError>;

    /// Runs a command in a running container and returns its exit code.
    async fn exec(&self, id: &str, command: &[String], io: ExecIo) -> Result<i32, RuntimeError>;

    /// Everything of ours, one consistent look.
    async fn state(&self) -> Result<(Vec<SandboxState>, Vec<ContainerState>), RuntimeError>;
    /// The same for one pod.
    async fn pod_state(
        &self,
        pod_uid: &str,
    ) -> Result<(Vec<SandboxState>, Vec<ContainerState>), RuntimeError>;

    /// Changes from now on. The channel is bounded; after an overflow comes an event without a pod.
    fn events(&self) -> mpsc::Receiver<RuntimeEvent>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNetwork {
    pub namespace_path: PathBuf,
    pub ips: Vec<IpAddr>,
}

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No network configuration yet: the node says NetworkNotReady.
    #[error("no pod network: {0}")]
    NotReady(String),
    #[error("{operation} network of pod {pod}: {why}")]
    Failed { operation: &'static str, pod: String, why: String },
}

/// A port of the node that leads to a port of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    pub host_port: u16,
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Empty: every address of the node.
    #[serde(default, rename = "hostIP", skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
}

/// A pod network: makes the namespace and calls the configured plugin chain.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Why pods cannot be networked now, or nothing.
    fn not_ready(&self) -> Option<String>;
    /// Makes the pod's namespace and network. Repeating it returns what is there.
    async fn set_up(
        &self,
        pod: &PodRef,
        sandbox: &str,
        ports: &[PortMapping],
    ) -> Result<PodNetwork, NetworkError>;
    /// Removes network and namespace; nothing there is success.
    async fn tear_down(&self, pod: &PodRef, sandbox: &str) -> Result<(), NetworkError>;
}

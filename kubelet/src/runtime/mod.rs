//! containerd behind the `Runtime` port, over its own services: no CRI plugin is needed.
//!
//! ```text
//!   Containerd ── images     pull, import ──► content store ──► snapshots
//!      │      ├── sandbox    namespaces, pinned or held by pause
//!      │      ├── container  snapshot + spec ──► task; its logger belongs to the shim
//!      │      ├── exec       pipes in a private folder
//!      │      ├── state      records + tasks ──► what the kubelet sees
//!      │      └── events     containerd's stream ──► pods; ends are recorded
//! ```
//!
//! What must outlive skiff, containerd or the host is in containerd's own records (`record`).

mod accounts;
mod cgroup;
mod connection;
mod container;
mod embedded;
mod events;
mod exec;
mod host;
mod images;
mod keyed;
mod pins;
mod record;
pub mod reference;
mod sandbox;
mod spec;
mod state;
mod sweep;
mod task;
mod users;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use containerd_client::services::v1 as api;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use self::connection::Connection;
use crate::ports::{
    ContainerConfig, ContainerState, ExecIo, Image, PodRef, RegistryAuth, Runtime, RuntimeError,
    RuntimeEvent, SandboxConfig, SandboxState,
};

/// How skiff uses a containerd.
#[derive(Debug, Clone)]
pub struct Config {
    /// containerd's gRPC socket.
    pub address: PathBuf,
    /// containerd's own namespace: `skiff`.
    pub namespace: String,
    /// `None`: overlayfs where it works, else native.
    pub snapshotter: Option<String>,
    /// Gone after a reboot: pipes, shared memory, runc's state.
    pub state_dir: PathBuf,
    /// Kept: the embedded programs.
    pub data_dir: PathBuf,
    pub pause: Pause,
    /// `None`: `runc` in the path.
    pub runtime_binary: Option<PathBuf>,
    pub log_max_bytes: u64,
    pub log_max_files: u32,
    /// Containers being started at one time; more only take the cores from each other.
    pub starts_at_once: usize,
}

impl Config {
    pub fn new(address: impl Into<PathBuf>) -> Config {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Config {
            address: address.into(),
            namespace: "skiff".to_owned(),
            snapshotter: None,
            state_dir: PathBuf::from("/run/skiff"),
            data_dir: PathBuf::from("/var/lib/skiff"),
            pause: Pause::default(),
            runtime_binary: None,
            log_max_bytes: 10 << 20,
            log_max_files: 5,
            starts_at_once: (cores * 3).div_ceil(2),
        }
    }
}

/// Which sandboxes get a pause program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pause {
    /// All, as other runtimes have it.
    Always,
    /// Only pods with a common process namespace, where somebody has to be process 1. For the others the
    /// namespaces are pinned by mounts: half the processes to start, two thirds of the processor time. A pod sees no
    /// difference: its name, shared memory and network outlive each of its containers as they do with the program.
    #[default]
    WhenShared,
}

/// The real runtime. Cheap to clone; the event stream ends with the last one.
#[derive(Clone)]
pub struct Containerd {
    core: Arc<Core>,
    /// Ends the event task when the last clone goes.
    _events: Arc<events::Follower>,
}

/// What the parts of the runtime share.
struct Core {
    config: Config,
    connection: Connection,
    snapshotter: String,
    images: Arc<images::Images>,
    programs: embedded::Programs,
    host: spec::Host,
    boot_id: String,
    /// One change of a container at a time.
    locks: keyed::Keyed,
    starts: Arc<crate::turns::Turns>,
    /// Whose container an event is about.
    pods: Mutex<HashMap<String, PodRef>>,
    /// What `create_container` knows and `start_container` would have to ask for.
    created: Mutex<HashMap<String, container::Prepared>>,
    /// `/etc/passwd` and `/etc/group` of images that ran here: content never changes under a digest.
    accounts: Mutex<HashMap<String, Arc<users::Accounts>>>,
    connected: std::time::SystemTime,
    subscribers: events::Subscribers,
}

impl Containerd {
    /// Connects, writes the embedded programs out, and follows the events from here on.
    /// Boxed: see "Build time" in ARCHITECTURE.md.
    pub fn connect(config: Config) -> BoxFuture<'static, Result<Containerd, RuntimeError>> {
        Box::pin(async move {
            let connection = Connection::new(&config.address, &config.namespace)?;
            let answer = connection.version().version(connection.request(())).await;
            answer.map_err(|status| RuntimeError::Unavailable {
                address: config.address.display().to_string(),
                why: status.message().to_owned(),
            })?;
            let snapshotter = match &config.snapshotter {
                Some(name) => name.clone(),
                None => working_snapshotter(&connection).await?,
            };
            let io = |operation: &str| {
                let operation = operation.to_owned();
                move |e: std::io::Error| RuntimeError::Failed { operation, why: e.to_string() }
            };
            let programs = embedded::Programs::write(&config.data_dir.join("runtime"))
                .map_err(io("write the embedded programs to the data folder"))?;
            let containers_dir = config.state_dir.join("containers");
            std::fs::create_dir_all(&containers_dir).map_err(io("make the state folder"))?;
            let core = Arc::new(Core {
                images: Arc::new(images::Images::new(connection.clone(), &snapshotter)),
                host: host::look().map_err(io("read this process's limits in /proc"))?,
                boot_id: host::boot_id().map_err(io("read the boot id in /proc"))?,
                starts: crate::turns::Turns::new(config.starts_at_once),
                locks: keyed::Keyed::default(),
                pods: Mutex::default(),
                created: Mutex::default(),
                accounts: Mutex::default(),
                connected: std::time::SystemTime::now(),
                subscribers: events::Subscribers::default(),
                connection,
                snapshotter,
                programs,
                config,
            });
            let follower = Arc::new(events::Follower::start(core.clone()));
            Ok(Containerd { core, _events: follower })
        })
    }
}

impl Core {
    fn container_dir(&self, id: &str) -> PathBuf {
        self.config.state_dir.join("containers").join(id)
    }

    fn failed(operation: impl Into<String>, why: impl std::fmt::Display) -> RuntimeError {
        RuntimeError::Failed { operation: operation.into(), why: why.to_string() }
    }
}

/// overlayfs shares layers and starts fast; native copies, and works everywhere.
async fn working_snapshotter(connection: &Connection) -> Result<String, RuntimeError> {
    let filters = vec!["type==io.containerd.snapshotter.v1".to_owned()];
    let request = connection.request(api::PluginsRequest { filters });
    let answer = connection.introspection().plugins(request).await;
    let plugins = answer
        .map_err(|s| connection.failed("list containerd's plugins", &s))?
        .into_inner()
        .plugins;
    let works =
        |name: &str| plugins.iter().any(|plugin| plugin.id == name && plugin.init_err.is_none());
    ["overlayfs", "native"].into_iter().find(|name| works(name)).map(str::to_owned).ok_or_else(
        || RuntimeError::Failed {
            operation: "choose a snapshotter".to_owned(),
            why: "neither overlayfs nor native works in this containerd; see its log".to_owned(),
        },
    )
}

#[async_trait]
impl Runtime for Containerd {
    async fn version(&self) -> Result<String, RuntimeError> {
        let connection = &self.core.connection;
        let answer = connection.version().version(connection.request(())).await;
        let version = answer
            .map_err(|s| connection.failed("ask containerd's version", &s))?
            .into_inner()
            .version;
        // Debian says `1.6.20~ds1`.
        let plain = version.split(['~', '+']).next().unwrap_or_default();
        Ok(format!("containerd://{}", plain.trim_start_matches('v')))
    }

    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        self.core.images.list().await
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        self.core.images.get(reference).await
    }

    async fn pull(
        &self,
        reference: &str,
        auth: Option<&RegistryAuth>,
    ) -> Result<Image, RuntimeError> {
        self.core.images.pull(reference, auth).await
    }

    async fn import(&self, archive: &Path) -> Result<Vec<Image>, RuntimeError> {
        self.core.images.import(archive).await
    }

    async fn remove_image(&self, reference: &str) -> Result<(), RuntimeError> {
        self.core.images.remove(reference).await
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<String, RuntimeError> {
        self.core.run_sandbox(config).await
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        self.core.stop_sandbox(id).await
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        self.core.remove_sandbox(id).await
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
    ) -> Result<String, RuntimeError> {
        self.core.create_container(sandbox_id, config).await
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        self.core.start_container(id).await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        self.core.stop_container(id, grace).await
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        self.core.remove_container(id).await
    }

    async fn exec(&self, id: &str, command: &[String], io: ExecIo) -> Result<i32, RuntimeError> {
        self.core.exec(id, command, io).await
    }

    async fn state(&self) -> Result<(Vec<SandboxState>, Vec<ContainerState>), RuntimeError> {
        self.core.state(None).await
    }

    async fn pod_state(
        &self,
        pod_uid: &str,
    ) -> Result<(Vec<SandboxState>, Vec<ContainerState>), RuntimeError> {
        self.core.state(Some(pod_uid)).await
    }

    fn events(&self) -> mpsc::Receiver<RuntimeEvent> {
        self.core.subscribers.subscribe()
    }
}

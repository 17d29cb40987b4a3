//! `skiff server`: the parts of one process, wired. Who needs whom stands here and nowhere else.
//!
//! ```text
//!   store ──▶ apiserver ──┬──▶ controllers, scheduler, proxy, ingress
//!                         └──▶ kubelet ◀── containerd
//! ```

mod identities;
pub mod network;
pub mod parts;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use skiff_apiserver::Core;
use skiff_kit::graph::Graph;
use skiff_store::kv::Kv;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::ServerConfig;
use crate::kubeconfig;
pub use identities::Identities;

/// What parts leave for those that need them. A part reads only what a part that it needs
/// has written before it became ready.
#[derive(Default)]
struct Shared {
    store: OnceLock<Arc<dyn Kv>>,
    core: OnceLock<Arc<Core>>,
    containerd: OnceLock<std::path::PathBuf>,
}

impl Shared {
    fn store(&self) -> anyhow::Result<Arc<dyn Kv>> {
        self.store.get().cloned().context("the store is not there")
    }

    fn core(&self) -> anyhow::Result<Arc<Core>> {
        self.core.get().cloned().context("the API server is not there")
    }

    /// The API in this process, as one of upstream's component users.
    fn api(&self, user: &str, groups: &[&str]) -> anyhow::Result<Arc<dyn skiff_client::Api>> {
        let user = skiff_apiserver::authn::User::new(user, groups);
        Ok(self.core()?.as_user(user))
    }
}

/// What every part is made from.
#[derive(Clone)]
struct Wiring {
    config: Arc<ServerConfig>,
    identities: Arc<Identities>,
    shared: Arc<Shared>,
}

/// Runs until a signal, or until a part fails.
pub async fn run(config: ServerConfig) -> anyhow::Result<()> {
    skiff_kit::telemetry::init("info,openraft=warn,h2=warn,hyper=warn,tower=warn");
    let identities = Identities::load_or_create(&config)?;
    kubeconfig::write(&config, &identities)?;
    let config = Arc::new(config);
    let wiring = Wiring {
        config: config.clone(),
        identities: Arc::new(identities),
        shared: Arc::new(Shared::default()),
    };
    let mut graph = Graph::default();
    match &config.datastore {
        Some(datastore) => parts::add_datastore(&mut graph, wiring.clone(), datastore.clone()),
        None => parts::add_store(&mut graph, wiring.clone()),
    }
    parts::add_apiserver(&mut graph, wiring.clone());
    for (part, add) in parts::ON_THE_API {
        if config.enabled(part) {
            add(&mut graph, wiring.clone());
        }
    }
    if config.enabled("kubelet") {
        parts::add_containerd(&mut graph, wiring);
    }
    let shutdown = CancellationToken::new();
    let last_words = "stopping; containers go on, the next start takes them up again";
    tokio::spawn(stop_on_signal(shutdown.clone(), last_words));
    tracing::info!(node = config.node_name, address = %config.node_ip, data = %config.data_dir.display(), "starting");
    let waited_for = AtomicUsize::new(graph.parts());
    let report = |part: &'static str, after: Duration| {
        tracing::info!(part, after_ms = after.as_millis() as u64, "ready");
        if waited_for.fetch_sub(1, Ordering::Relaxed) == 1 {
            started();
        }
    };
    graph.run(shutdown, report).await
}

/// What only the start needed need not stay in memory.
pub fn started() {
    if let Err(error) = skiff_kit::memory::release_code() {
        tracing::debug!(%error, "the code of the start stays in memory");
    }
}

pub async fn stop_on_signal(shutdown: CancellationToken, last_words: &'static str) {
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be watched: end this process with SIGKILL");
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("{last_words}");
    shutdown.cancel();
}

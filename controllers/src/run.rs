//! Wires the controllers to their shared caches and runs them until shutdown.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use skiff_client::Api;
use skiff_client::event::Recorder;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::caches::Caches;
use crate::config::{Config, ConfigError};
use crate::deployment::DeploymentController;
use crate::endpoints::EndpointsController;
use crate::endpointslice::EndpointSliceController;
use crate::gc::GarbageCollector;
use crate::graph::{Feed, Table};
use crate::namespace::NamespaceController;
use crate::nodeipam::{Cidr, NodeIpamController};
use crate::nodelifecycle::NodeLifecycleController;
use crate::podgc::PodGcController;
use crate::replicaset::ReplicaSetController;
use crate::serviceaccount::ServiceAccountController;
use crate::timers::Timers;
use crate::worker;
use crate::write::Writer;

/// How long reconciles under way may take after shutdown.
const DRAIN: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum ControllersError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("a controller's task ended: {0}; restart the controllers")]
    Died(String),
}

/// Runs all controllers; `ready` is called once their caches hold everything. Of several
/// control planes only one may run this at a time: it is what a leader starts, and
/// cancelling `shutdown` is how it steps down.
/// Boxed: see "Build time" in ARCHITECTURE.md.
pub fn run(
    api: Arc<dyn Api>,
    config: Config,
    shutdown: CancellationToken,
    ready: Box<dyn FnOnce() + Send>,
) -> BoxFuture<'static, Result<(), ControllersError>> {
    Box::pin(async move {
        config.validate()?;
        // Stops everything below, on shutdown and after a fault alike.
        let stop = shutdown.child_token();
        let _guard = stop.clone().drop_guard();
        let Some(table) = stop.run_until_cancelled(Table::discover(&*api)).await else {
            return Ok(());
        };
        let mut tasks = JoinSet::new();
        let feed = Feed::new(table);
        let caches = Caches::new();
        let wired = Wired::new(&api, &config, &caches, &feed);
        caches.start(&api, &stop);
        feed.start(&api, &mut tasks, &stop);
        let synced = async {
            caches.synced().await;
            feed.synced().await;
        };
        if stop.run_until_cancelled(synced).await.is_none() {
            return Ok(());
        }
        wired.spawn(&mut tasks, config.workers, &stop);
        ready();
        let ended = tokio::select! {
            () = shutdown.cancelled() => None,
            ended = tasks.join_next() => ended,
        };
        stop.cancel();
        if tokio::time::timeout(DRAIN, drain(&mut tasks)).await.is_err() {
            tracing::warn!(?DRAIN, "reconciles under way did not end in time, leaving them");
        }
        match ended {
            Some(Err(error)) => Err(ControllersError::Died(error.to_string())),
            // Tasks end together with their token, whichever is noticed first.
            _ => Ok(()),
        }
    })
}

async fn drain(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// All controllers, subscribed to the caches.
struct Wired {
    deployments: Arc<DeploymentController>,
    replica_sets: Arc<ReplicaSetController>,
    endpoint_slices: Arc<EndpointSliceController>,
    endpoints: Arc<EndpointsController>,
    namespaces: Arc<NamespaceController>,
    service_accounts: Arc<ServiceAccountController>,
    garbage: Arc<GarbageCollector>,
    nodes: Arc<NodeLifecycleController>,
    pod_gc: Arc<PodGcController>,
    /// None when nodes bring their own networks.
    node_ipam: Option<Arc<NodeIpamController>>,
}

impl Wired {
    fn new(api: &Arc<dyn Api>, config: &Config, caches: &Arc<Caches>, feed: &Arc<Feed>) -> Self {
        let writer = Writer::new(api.clone());
        let recorder = |component: &str| Recorder::new(api.clone(), component, "");
        let (w, c) = (|| writer.clone(), || caches.clone());
        Self {
            // First: it settles its expectations before others act on the same events.
            replica_sets: ReplicaSetController::new(w(), c(), recorder("replicaset-controller")),
            deployments: DeploymentController::new(w(), c(), recorder("deployment-controller")),
            endpoint_slices: EndpointSliceController::new(w(), c()),
            endpoints: EndpointsController::new(w(), c()),
            namespaces: NamespaceController::new(w(), c(), feed.clone()),
            service_accounts: ServiceAccountController::new(w(), c(), config.root_ca_pem.clone()),
            garbage: GarbageCollector::new(w(), feed.clone()),
            nodes: NodeLifecycleController::new(
                w(),
                c(),
                recorder("node-controller"),
                config.node_monitor_grace,
            ),
            pod_gc: PodGcController::new(w(), c(), config.pod_gc_quarantine),
            node_ipam: config.cluster_cidr.as_deref().and_then(Cidr::parse).map(|cidr| {
                let bits = config.node_cidr_mask_bits;
                NodeIpamController::new(w(), c(), recorder("cidrAllocator"), cidr, bits)
            }),
        }
    }

    fn spawn(&self, tasks: &mut JoinSet<()>, workers: usize, stop: &CancellationToken) {
        worker::spawn(tasks, &self.deployments, workers, stop);
        worker::spawn(tasks, &self.replica_sets, workers, stop);
        worker::spawn(tasks, &self.endpoint_slices, workers, stop);
        worker::spawn(tasks, &self.endpoints, workers, stop);
        worker::spawn(tasks, &self.namespaces, workers, stop);
        worker::spawn(tasks, &self.service_accounts, workers, stop);
        worker::spawn(tasks, &self.garbage, workers, stop);
        worker::spawn(tasks, &self.nodes, workers, stop);
        worker::spawn(tasks, &self.pod_gc, workers, stop);
        if let Some(node_ipam) = &self.node_ipam {
            worker::spawn(tasks, node_ipam, 1, stop);
        }
        spawn_timers(tasks, self.nodes.timers(), stop);
        spawn_timers(tasks, self.pod_gc.timers(), stop);
        spawn_timers(tasks, self.deployments.timers(), stop);
        spawn_timers(tasks, self.replica_sets.timers(), stop);
        spawn_timers(tasks, self.namespaces.timers(), stop);
    }
}

fn spawn_timers<K>(tasks: &mut JoinSet<()>, timers: &Arc<Timers<K>>, stop: &CancellationToken)
where
    K: Clone + Eq + std::hash::Hash + Send + Sync + 'static,
{
    let (timers, stop) = (timers.clone(), stop.clone());
    tasks.spawn(async move { timers.run(&stop).await });
}

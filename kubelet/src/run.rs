//! The kubelet's wiring: what runs beside what, from start to shutdown.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use skiff_client::event::Recorder;
use skiff_client::{Api, Cache};
use skiff_proto::model::{Pod, Service};
use skiff_proto::{FieldSelector, resource};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::cgroup::Cgroups;
use crate::config::{Config, ConfigError};
use crate::image::Images;
use crate::node::driver::Driver;
use crate::node::facts::Machine;
use crate::node::lease;
use crate::objects::Objects;
use crate::pod::context::Context;
use crate::pod::orphans;
use crate::pod::pods::Pods;
use crate::ports::{Network, Runtime, RuntimeError};
use crate::server;
use crate::turns::Turns;

#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("create {path}: {why}")]
    Folder { path: String, why: std::io::Error },
    #[error("read the runtime's state: {0}")]
    Runtime(RuntimeError),
    #[error("left behind: {}; run it again once the cause is mended", .0.join(", "))]
    LeftBehind(Vec<String>),
}

/// Where the API server reaches this node for logs and exec.
pub struct NodeServer {
    pub listener: TcpListener,
    /// Must ask for client certificates of the cluster's CA.
    pub tls: Arc<rustls::ServerConfig>,
}

/// Runs until `shutdown`; containers stay as they are then, and are taken up again by the
/// next run. `ready` is called once, when the node is registered and its pods are known.
/// Boxed: see "Build time" in ARCHITECTURE.md.
pub fn run(
    api: Arc<dyn Api>,
    runtime: Arc<dyn Runtime>,
    network: Arc<dyn Network>,
    config: Config,
    node_server: Option<NodeServer>,
    shutdown: CancellationToken,
    ready: Box<dyn FnOnce() + Send>,
) -> BoxFuture<'static, Result<(), KubeletError>> {
    Box::pin(async move {
        config.validate()?;
        make_folders(&config).await?;
        // Before the first look, so that nothing between look and subscription is missed.
        let events = runtime.events();
        let machine = Machine::read(&config.root_dir);
        let ctx = Arc::new(context(api, runtime, network, config, &machine, &shutdown));
        let pods = Pods::new(ctx.clone());

        let mut tasks = tokio::task::JoinSet::new();
        let follow = pods.clone();
        tasks.spawn(async move { follow.follow(events).await });
        if let Some(server) = node_server {
            tasks.spawn(server::serve(ctx.clone(), server, shutdown.clone()));
        }
        let started = start(&ctx, pods, machine, &mut tasks);
        if shutdown.run_until_cancelled(started).await.is_some() {
            ready();
            shutdown.cancelled().await;
        }
        tasks.shutdown().await;
        Ok(())
    })
}

async fn start(
    ctx: &Arc<Context>,
    pods: Arc<Pods>,
    machine: Machine,
    tasks: &mut tokio::task::JoinSet<()>,
) {
    let mut driver = Driver::new(ctx.clone(), machine);
    driver.register().await;
    tasks.spawn(driver.run());
    tasks.spawn(lease::renew_forever(ctx.api.clone(), ctx.config.clone()));
    // Containers are told of the Services that exist when they start.
    ctx.services.synced().await;
    let changed = pods.clone();
    let cache = Cache::<Pod>::typed(ctx.api.clone(), &resource::PODS)
        .fields(FieldSelector::equal("spec.nodeName", &ctx.config.node_name))
        .on_change(move |change| changed.changed(&change))
        .start(&ctx.shutdown);
    cache.synced().await;
    // Only now is it known who is a stranger.
    tasks.spawn(orphans::sweep_forever(ctx.clone(), pods));
}

fn context(
    api: Arc<dyn Api>,
    runtime: Arc<dyn Runtime>,
    network: Arc<dyn Network>,
    config: Config,
    machine: &Machine,
    shutdown: &CancellationToken,
) -> Context {
    let recorder = Recorder::new(api.clone(), "kubelet", &config.node_name);
    let services = Cache::<Service>::typed(api.clone(), &resource::SERVICES).start(shutdown);
    Context {
        images: Images::new(runtime.clone(), recorder.clone(), config.parallel_pulls),
        objects: Objects::new(api.clone(), shutdown.clone()),
        starts: Turns::new(config.parallel_starts),
        admission: Admission::default(),
        cgroups: Cgroups::of_host(),
        node: machine.size(),
        shutdown: shutdown.clone(),
        api,
        runtime,
        network,
        config,
        recorder,
        services,
    }
}

async fn make_folders(config: &Config) -> Result<(), KubeletError> {
    for path in [config.root_dir.join("pods"), config.log_dir.clone()] {
        let made = tokio::fs::create_dir_all(&path).await;
        made.map_err(|why| KubeletError::Folder { path: path.display().to_string(), why })?;
    }
    Ok(())
}

/// Ends and removes every pod of ours: sandboxes, containers, networks, mounts, folders, logs,
/// cgroups. What cannot be removed is gathered and named.
/// Boxed: see "Build time" in ARCHITECTURE.md.
pub fn remove_everything(
    runtime: Arc<dyn Runtime>,
    network: Arc<dyn Network>,
    config: &Config,
) -> BoxFuture<'_, Result<(), KubeletError>> {
    Box::pin(async move {
        let left = orphans::remove_all(&*runtime, &*network, config).await;
        if left.is_empty() { Ok(()) } else { Err(KubeletError::LeftBehind(left)) }
    })
}

//! Connects the route table with the API: watches rebuild it, and the Ingresses served are
//! told the node's address.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::json;
use skiff_client::{Api, Cache, Target, WriteOptions};
use skiff_kit::backoff::Backoff;
use skiff_proto::model::{EndpointSlice, Ingress, IngressClass, SERVICE_NAME_LABEL, Service};
use skiff_proto::{ObjectKey, Status, resource};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::IngressError;
use crate::route::{
    CLASS_NAME, CONTROLLER, DEFAULT_CLASS_ANNOTATION, Endpoints, Observed, RouteTable,
};
use crate::routes::Routes;
use crate::server::Server;
use crate::status;

/// A rollout changes several objects at once; one table is made of them.
const SETTLE: Duration = Duration::from_millis(10);
/// Before a status that could not be written is tried again.
const STATUS_RETRY: Duration = Duration::from_secs(5);

/// Listens, then serves until `shutdown`. `ready` is called once the first table is in use.
/// Boxed: see "Build time" in ARCHITECTURE.md.
pub fn run(
    api: Arc<dyn Api>,
    config: Config,
    shutdown: CancellationToken,
    ready: Box<dyn FnOnce() + Send>,
) -> BoxFuture<'static, Result<(), IngressError>> {
    Box::pin(async move {
        config.validate().map_err(IngressError::Config)?;
        let server = Server::bind(&config)?;
        run_on(server, api, config, shutdown, ready).await
    })
}

/// As `run`, on a server that is bound already, whose addresses are known.
/// Boxed: see "Build time" in ARCHITECTURE.md.
pub fn run_on(
    server: Server,
    api: Arc<dyn Api>,
    config: Config,
    shutdown: CancellationToken,
    ready: Box<dyn FnOnce() + Send>,
) -> BoxFuture<'static, Result<(), IngressError>> {
    Box::pin(async move {
        let changed = Arc::new(Notify::new());
        let caches = Caches::start(&api, &changed, &shutdown);
        if shutdown.run_until_cancelled(caches.synced()).await.is_none() {
            return Ok(());
        }
        let routes = Arc::new(Routes::default());
        let mut endpoints = Endpoints::new();
        let table = RouteTable::build(&caches.observe(), &mut endpoints, 0);
        routes.replace(table);
        tracing::info!(addrs = ?server.local_addrs(), "ingress serves");
        // The server's end ends the rest, whether it was asked to or failed.
        let stop = shutdown.child_token();
        let follower = Follower { api, changed, caches, routes: routes.clone(), endpoints, config };
        let follower = tokio::spawn(stop.clone().run_until_cancelled_owned(follower.follow()));
        ready();
        let outcome = server.serve(routes, shutdown).await;
        stop.cancel();
        // Cancelled between two steps; a panic in it has been logged and changes no outcome.
        let _ = follower.await;
        outcome
    })
}

struct Caches {
    ingresses: Arc<Cache<Ingress>>,
    classes: Arc<Cache<IngressClass>>,
    services: Arc<Cache<Service>>,
    slices: Arc<Cache<EndpointSlice>>,
}

impl Caches {
    fn start(api: &Arc<dyn Api>, changed: &Arc<Notify>, shutdown: &CancellationToken) -> Self {
        macro_rules! cache {
            ($resource:expr) => {{
                let changed = changed.clone();
                Cache::typed(api.clone(), &$resource)
                    .on_change(move |_| changed.notify_one())
                    .start(shutdown)
            }};
        }
        Self {
            ingresses: cache!(resource::INGRESSES),
            classes: cache!(resource::INGRESS_CLASSES),
            services: cache!(resource::SERVICES),
            slices: cache!(resource::ENDPOINT_SLICES),
        }
    }

    async fn synced(&self) {
        tokio::join!(
            self.ingresses.synced(),
            self.classes.synced(),
            self.services.synced(),
            self.slices.synced()
        );
    }

    fn observe(&self) -> Observed {
        let mut observed = Observed {
            ingresses: self.ingresses.list().into_iter().map(|entry| entry.value).collect(),
            classes: self.classes.list().into_iter().map(|entry| entry.value).collect(),
            ..Observed::default()
        };
        for entry in self.services.list() {
            observed.services.insert(entry.object.key(), entry.value);
        }
        for entry in self.slices.list() {
            if let Some(service) = entry.object.labels().get(SERVICE_NAME_LABEL) {
                let key = ObjectKey::new(entry.object.namespace(), service);
                observed.slices.entry(key).or_default().push(entry.value);
            }
        }
        observed
    }
}

struct Follower {
    api: Arc<dyn Api>,
    changed: Arc<Notify>,
    caches: Caches,
    routes: Arc<Routes>,
    endpoints: Endpoints,
    config: Config,
}

impl Follower {
    async fn follow(self) {
        let api = self.api.clone();
        let known = self.caches.classes.get("", CLASS_NAME).is_some();
        // Routes must not wait for an API that refuses to take the class.
        let class = async {
            if !known {
                create_class(&*api).await;
            }
        };
        tokio::join!(class, self.follow_changes());
    }

    async fn follow_changes(mut self) {
        for turn in 1.. {
            let observed = self.caches.observe();
            let table = RouteTable::build(&observed, &mut self.endpoints, turn);
            self.routes.replace(table);
            let mut failed = false;
            for write in status::plan(&observed, &self.config.node_addresses) {
                failed |= !status::write(&*self.api, &write).await;
            }
            let changed = self.changed.notified();
            if failed {
                // Either way the loop looks again.
                let _ = tokio::time::timeout(STATUS_RETRY, changed).await;
            } else {
                changed.await;
            }
            tokio::time::sleep(SETTLE).await;
        }
    }
}

/// Makes our class, the default one, unless somebody did meanwhile.
async fn create_class(api: &dyn Api) {
    let class = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": CLASS_NAME, "annotations": {DEFAULT_CLASS_ANNOTATION: "true"}},
        "spec": {"controller": CONTROLLER},
    });
    let json = Bytes::from(class.to_string());
    let target = Target::all(&resource::INGRESS_CLASSES, "");
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    loop {
        match api.create(&target, json.clone(), &WriteOptions::default()).await {
            Ok(_) => return,
            Err(status) if status.is_already_exists() => return,
            Err(status) => retry(&mut backoff, &status).await,
        }
    }
}

async fn retry(backoff: &mut Backoff, status: &Status) {
    let wait = backoff.next();
    tracing::warn!(?wait, "creating IngressClass {CLASS_NAME} failed, trying again: {status}");
    tokio::time::sleep(wait).await;
}

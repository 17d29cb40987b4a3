//! The core: one meaning for every face. A face authenticates, turns its request into a call
//! of `client::Api`, and turns the answer back; everything else happens here.
//!
//! ```text
//! write: authz -> decode -> defaults -> admission -> prepare, validate -> one transaction
//! read:  authz -> the watch cache, once it is as fresh as the store
//! ```

pub mod admission;
pub mod bootstrap;
pub mod caller;
pub mod config;
pub mod create;
pub mod delete;
pub mod event_lease;
pub mod list;
pub mod meta;
pub mod node;
pub mod patch;
pub mod pod;
pub mod scale;
pub mod service;
pub mod stored;
pub mod update;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use skiff_client::Api;
use skiff_proto::status::reason;
use skiff_proto::{Resource, Status};
use skiff_store::kv::{Kv, KvError};

pub use config::{Config, NodeClient};

use crate::authn::User;
use crate::cache::Hub;
use crate::registry::{self, Kind};
use event_lease::EventLease;
use service::Addresses;

/// The API server without its faces.
pub struct Core {
    kv: Arc<dyn Kv>,
    hub: Arc<Hub>,
    config: Config,
    addresses: Addresses,
    event_lease: EventLease,
    nodes: node::Nodes,
}

/// Why the API server could not start.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    #[error("configuration of the API server: {}", .0.join("; "))]
    Config(Vec<String>),
    #[error("watching the store: {0}")]
    Store(#[from] KvError),
    #[error("making the default objects: {0}")]
    Bootstrap(Status),
}

impl Core {
    /// Starts the watch of the store and makes the objects that every cluster has.
    /// Boxed: see "Build time" in ARCHITECTURE.md.
    pub fn new(
        kv: Arc<dyn Kv>,
        config: Config,
    ) -> BoxFuture<'static, Result<Arc<Self>, CoreError>> {
        Box::pin(async move {
            config.validate().map_err(CoreError::Config)?;
            let hub = Hub::start(kv.clone(), config.limits, config.shutdown.clone()).await?;
            let addresses =
                Addresses::new(&config).map_err(|fault| CoreError::Config(vec![fault]))?;
            let core = Arc::new(Self {
                event_lease: EventLease::default(),
                nodes: node::Nodes::new(config.node_client.clone()),
                kv,
                hub,
                addresses,
                config,
            });
            crate::storage::compactor::start(
                core.kv.clone(),
                core.hub.follow(),
                core.config.compaction_interval,
                core.config.shutdown.clone(),
            );
            bootstrap::run(&core).await.map_err(CoreError::Bootstrap)?;
            Ok(core)
        })
    }

    /// The API as this user may use it.
    pub fn as_user(self: &Arc<Self>, user: User) -> Arc<dyn Api> {
        Arc::new(self.caller(Arc::new(user)))
    }

    /// The same, for a face that keeps its callers by value.
    pub fn caller(self: &Arc<Self>, user: Arc<User>) -> caller::Caller {
        caller::Caller::new(self.clone(), user)
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Whether the store answers: what readiness is about.
    pub async fn ready(&self) -> Result<(), Status> {
        self.hub.fresh().await.map(drop)
    }

    fn kind(&self, resource: &Resource) -> Result<&'static Kind, Status> {
        registry::find(&resource.group, &resource.version, &resource.plural).ok_or_else(|| {
            Status::new(reason::NOT_FOUND, "the server could not find the requested resource")
        })
    }
}

//! What a member meets the machine through. The real ones by default; a simulation gives
//! its own.

use std::path::Path;
use std::sync::Arc;

use crate::background::Background;
use crate::config::Config;
use crate::engine::redb::RedbEngine;
use crate::engine::{Engine, EngineError};
use crate::raft::network::grpc::GrpcTransport;
use crate::raft::network::transport::Transport;
use crate::wal::disk::{Disk, RealDisk};

/// Opens the engine in a folder, which need not exist.
pub type OpenEngine =
    Arc<dyn Fn(&Path, &Config) -> Result<Arc<dyn Engine>, EngineError> + Send + Sync>;

#[derive(Clone)]
pub struct Ports {
    /// For everything that has to last: identity, log and snapshots.
    pub disk: Arc<dyn Disk>,
    pub open_engine: OpenEngine,
    pub background: Background,
    /// To the other members; gRPC if there is none.
    pub transport: Option<Arc<dyn Transport>>,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            disk: Arc::new(RealDisk),
            open_engine: Arc::new(|path, config| {
                Ok(Arc::new(RedbEngine::open(path, config.engine_cache_bytes)?))
            }),
            background: Background::Threads,
            transport: None,
        }
    }
}

impl Ports {
    pub(crate) fn transport(&self, config: &Config) -> Arc<dyn Transport> {
        let real =
            || -> Arc<dyn Transport> { Arc::new(GrpcTransport::new(config.peer_tls.clone())) };
        self.transport.clone().unwrap_or_else(real)
    }
}

//! What a member meets the machine through. The real ones by default; a simulation gives
//! its own.

use std::path::Path;
use std::sync::Arc;

use crate::background::Background;
use crate::config::Config;
use crate::engine::segments::SegmentEngine;
use crate::engine::{Engine, EngineError};
use crate::raft::network::grpc::GrpcTransport;
use crate::raft::network::transport::Transport;
use crate::wal::disk::{Disk, RealDisk};

#[derive(Clone)]
pub struct Ports {
    /// For identity, log, snapshots and the engine.
    pub disk: Arc<dyn Disk>,
    pub background: Background,
    /// To the other members; gRPC if there is none.
    pub transport: Option<Arc<dyn Transport>>,
}

impl Default for Ports {
    fn default() -> Self {
        Self { disk: Arc::new(RealDisk), background: Background::Threads, transport: None }
    }
}

impl Ports {
    /// In a folder that need not exist.
    pub(crate) fn open_engine(
        &self,
        folder: &Path,
        config: &Config,
    ) -> Result<Arc<dyn Engine>, EngineError> {
        let bytes = config.engine_segment_bytes;
        Ok(Arc::new(SegmentEngine::open(self.disk.clone(), folder, bytes)?))
    }

    pub(crate) fn transport(&self, config: &Config) -> Arc<dyn Transport> {
        let real =
            || -> Arc<dyn Transport> { Arc::new(GrpcTransport::new(config.peer_tls.clone())) };
        self.transport.clone().unwrap_or_else(real)
    }
}

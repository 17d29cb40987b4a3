//! What the node serves to the API server: logs and exec, by `skiff.node.v1`.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::pod::context::Context;
use crate::run::NodeServer;

pub async fn serve(_ctx: Arc<Context>, _server: NodeServer, shutdown: CancellationToken) {
    shutdown.cancelled().await;
}

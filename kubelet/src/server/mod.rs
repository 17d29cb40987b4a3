//! What the node serves to the API server: logs and exec, by `skiff.node.v1`, to clients whose
//! certificate the configuration names, and to nobody else.

use std::sync::Arc;
use std::time::Duration;

use skiff_proto::grpc::node::node_server;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Request, Status};

use crate::pod::context::Context;
use crate::run::NodeServer;

pub mod cri_log;
pub mod exec;
pub mod follow;
pub mod logs;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Accepted connections that wait for the server; the API server keeps one.
const WAITING_CONNECTIONS: usize = 16;
/// After a failed accept, which mostly means that descriptors ran out.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

type Incoming = Result<TlsStream<TcpStream>, std::io::Error>;

/// Serves until shutdown.
pub async fn serve(ctx: Arc<Context>, server: NodeServer, shutdown: CancellationToken) {
    let (sender, connections) = mpsc::channel(WAITING_CONNECTIONS);
    let accepting = shutdown.clone();
    tokio::spawn(async move {
        accepting.run_until_cancelled(accept(server, sender)).await;
    });
    let allowed = ctx.config.allowed_clients.clone();
    let service =
        node_server::NodeServer::with_interceptor(Service { ctx }, move |request: Request<()>| {
            check_client(request, &allowed)
        });
    let served = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), shutdown.cancelled())
        .await;
    if let Err(why) = served {
        tracing::error!("the node server ended, logs and exec are off: {why}");
    }
}

async fn accept(server: NodeServer, connections: mpsc::Sender<Incoming>) {
    let acceptor = TlsAcceptor::from(server.tls);
    loop {
        let (stream, address) = match server.listener.accept().await {
            Ok(accepted) => accepted,
            Err(why) => {
                tracing::warn!("node server: accept: {why}");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let (acceptor, connections) = (acceptor.clone(), connections.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    // The server is gone at shutdown only.
                    let _ = connections.send(Ok(stream)).await;
                }
                Ok(Err(why)) => tracing::debug!(%address, "node server: handshake: {why}"),
                Err(_) => tracing::debug!(%address, "node server: handshake took too long"),
            }
        });
    }
}

/// The common name or one of the organisations must be allowed.
fn check_client(request: Request<()>, allowed: &[String]) -> Result<Request<()>, Status> {
    let info = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
    let certs = info.and_then(|info| info.peer_certs());
    let Some(cert) = certs.as_ref().and_then(|certs| certs.first()) else {
        return Err(Status::unauthenticated("the node server wants a client certificate"));
    };
    let peer = skiff_kit::tls::peer(cert)
        .map_err(|why| Status::unauthenticated(format!("client certificate: {why}")))?;
    let is_allowed =
        allowed.iter().any(|name| *name == peer.common_name || peer.organizations.contains(name));
    if is_allowed {
        return Ok(request);
    }
    Err(Status::permission_denied(format!(
        "{:?} may not use the node server: only {} may",
        peer.common_name,
        allowed.join(", ")
    )))
}

/// The gRPC service.
pub struct Service {
    pub ctx: Arc<Context>,
}

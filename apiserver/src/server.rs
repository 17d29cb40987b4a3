//! The API's one port: TLS, HTTP/1.1 and HTTP/2, gRPC and plain requests together. The
//! connection says who speaks; a request says what to do.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{Request, Response, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use skiff_kit::cork::cork;
use skiff_kit::tls;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;

use crate::authn::{self, User};
use crate::core::Core;
use crate::{grpc, plain};

/// Open connections; each costs some 60 KiB with TLS and HTTP/2 buffers. Who comes later waits.
const MAX_CONNECTIONS: usize = 4096;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that vanished is noticed after one interval and one timeout.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Streams of one connection: a client may watch many collections over one.
const MAX_STREAMS: u32 = 1000;
/// How long running requests may take once the server stops.
const DRAIN: Duration = Duration::from_secs(5);
/// A pause when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("listening for API clients: {0}")]
    Listener(#[from] io::Error),
}

/// Serves until `shutdown`, then lets running requests finish for a moment.
/// Boxed: see "Build time" in ARCHITECTURE.md.
pub fn serve(
    core: Arc<Core>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), ServeError>> {
    Box::pin(async move {
        let server = Server {
            faces: Arc::new(Faces { grpc: grpc::services(core.clone())?, core }),
            acceptor: TlsAcceptor::from(tls),
            shutdown: shutdown.clone(),
        };
        let connections = TaskTracker::new();
        let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        tracing::info!(address = %listener.local_addr()?, "the API is served");
        loop {
            let Ok(permit) = limit.clone().acquire_owned().await else { break };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let server = server.clone();
                    connections.spawn(async move {
                        if let Err(error) = server.connection(stream).await {
                            tracing::debug!(%peer, "connection ended: {error}");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!("accepting a connection failed: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        connections.close();
        if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
            tracing::debug!(left = connections.len(), "connections cut off after the drain time");
        }
        Ok(())
    })
}

#[derive(Clone)]
struct Server {
    faces: Arc<Faces>,
    acceptor: TlsAcceptor,
    shutdown: CancellationToken,
}

/// Who answers requests; shared by all connections.
struct Faces {
    core: Arc<Core>,
    grpc: grpc::Services,
}

type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

impl Server {
    async fn connection(self, stream: TcpStream) -> Result<(), ConnectionError> {
        stream.set_nodelay(true)?;
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream))
            .await
            .map_err(|_| "TLS handshake timed out")??;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let peer = certificate.map(tls::peer).transpose()?;
        let user = authn::authenticate(peer);

        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .max_send_buf_size(1 << 20);
        let Self { faces, shutdown, .. } = self;
        let service = service_fn(move |request| {
            let (faces, user) = (faces.clone(), user.clone());
            async move { Ok::<_, Infallible>(faces.answer(request, user).await) }
        });
        let (stream, outlet) = cork(stream);
        let mut connection = outlet.run(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            result = &mut connection => return result,
            () = shutdown.cancelled() => connection.connection().graceful_shutdown(),
        }
        connection.await
    }
}

impl Faces {
    async fn answer(
        &self,
        mut request: Request<Incoming>,
        user: Option<Arc<User>>,
    ) -> Response<Body> {
        if !is_grpc(&request) {
            return plain::answer(&self.core, request.method(), request.uri().path(), user).await;
        }
        let Some(user) = user else {
            return tonic::Status::from(authn::unauthorized()).into_http();
        };
        request.extensions_mut().insert(user);
        self.grpc.answer(request).await
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

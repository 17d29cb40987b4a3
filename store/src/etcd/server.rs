//! Connections: TLS, HTTP/2, and which service a request is for.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use skiff_kit::cork::cork;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Face;
use super::authority::Mended;
use super::calls::{Beginner, WithCalls};
use super::services::Services;
use crate::store::Store;

/// Open connections; each costs some 50 KiB with TLS and HTTP/2 buffers. Who comes later waits.
const MAX_CONNECTIONS: usize = 4096;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that vanished is noticed after one interval and one timeout.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Calls at a time on one connection; a load generator's clients share one.
const MAX_STREAMS: u32 = 10_000;
/// How long running calls may take once the server stops.
const DRAIN: Duration = Duration::from_secs(2);
/// A pause when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("etcd API: listen for clients")]
    Listener(#[from] io::Error),
}

/// Serves etcd's clients until `shutdown`, then lets running calls finish for a moment;
/// streams end at once. Whom `tls` lets in may do everything; without it anybody may who
/// can connect, so the listener must be on loopback.
/// Boxed: see "Build time" in ARCHITECTURE.md.
pub fn serve(
    store: Arc<Store>,
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), ServeError>> {
    Box::pin(async move {
        let address = listener.local_addr()?;
        let server = Server {
            services: Arc::new(Services::new(Face { store, shutdown: shutdown.clone() })),
            acceptor: tls.map(TlsAcceptor::from),
            shutdown: shutdown.clone(),
            cut: CancellationToken::new(),
        };
        let connections = TaskTracker::new();
        let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        tracing::info!(%address, "the etcd API is served");
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = accept(&listener, &limit) => accepted,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let server = server.clone();
                    connections.spawn(async move {
                        if let Err(error) = server.connection(stream).await {
                            tracing::debug!(error, "a client's connection ended");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%address, %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        connections.close();
        if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
            tracing::debug!(left = connections.len(), "connections are cut off");
        }
        server.cut.cancel();
        Ok(())
    })
}

async fn accept(
    listener: &TcpListener,
    limit: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = limit.clone().acquire_owned().await.map_err(io::Error::other)?;
    Ok((listener.accept().await?.0, permit))
}

#[derive(Clone)]
struct Server {
    services: Arc<Services>,
    acceptor: Option<TlsAcceptor>,
    /// Nothing new is taken on.
    shutdown: CancellationToken,
    /// What still runs is given up.
    cut: CancellationToken,
}

type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

impl Server {
    async fn connection(self, stream: TcpStream) -> Result<(), String> {
        let cut = self.cut.clone();
        tokio::select! {
            ended = self.serve(stream) => ended.map_err(|error| error.to_string()),
            () = cut.cancelled() => Ok(()),
        }
    }

    async fn serve(self, stream: TcpStream) -> Result<(), ConnectionError> {
        // An answer is a single small write, which must not wait for more.
        stream.set_nodelay(true)?;
        let Some(acceptor) = self.acceptor.clone() else { return self.http(stream).await };
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
        let stream = tokio::select! {
            stream = handshake => stream.map_err(|_| "the TLS handshake timed out")??,
            () = self.shutdown.cancelled() => return Ok(()),
        };
        self.http(stream).await
    }

    async fn http<S>(self, stream: S) -> Result<(), ConnectionError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let calls = Beginner::default();
        let mut builder = auto::Builder::new(calls.clone());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            // Nor does etcd say the time with every answer.
            .auto_date_header(false)
            .max_concurrent_streams(MAX_STREAMS)
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .max_send_buf_size(1 << 20);
        let services = self.services;
        let service = service_fn(move |request| {
            let call = services.clone().call(request);
            async move { Ok::<_, Infallible>(call.await) }
        });
        let (stream, outlet) = cork(Mended::new(stream));
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = outlet.run(WithCalls::new(connection, calls));
        tokio::select! {
            result = &mut connection => return result,
            () = self.shutdown.cancelled() => {
                connection.connection().get_mut().connection().graceful_shutdown();
            }
        }
        connection.await
    }
}

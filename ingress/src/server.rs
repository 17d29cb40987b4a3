//! Threads that serve: each has a current-thread runtime, its own listening sockets
//! (SO_REUSEPORT spreads clients over them) and its own pool. Nothing is shared by
//! requests but the route table and the endpoints' counters.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, Limits};
use crate::error::IngressError;
use crate::proxy::Proxy;
use crate::proxy::headers::Client;
use crate::proxy::io::WriteTimeout;
use crate::routes::Routes;

/// Clients that wait to be accepted, per socket; what the kernel allows by default.
const BACKLOG: i32 = 4096;
/// After a failed accept (no file descriptors left), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Sockets that listen already, one set a worker; clients wait until workers run.
pub struct Server {
    sockets: Vec<Vec<StdListener>>,
    addrs: Vec<SocketAddr>,
    limits: Limits,
}

impl Server {
    /// Takes every address, or says which one cannot be had.
    pub fn bind(config: &Config) -> Result<Self, IngressError> {
        let workers = config.worker_count();
        let mut sockets: Vec<Vec<StdListener>> = (0..workers).map(|_| Vec::new()).collect();
        let mut addrs = Vec::new();
        for addr in &config.listen {
            let failed = |source| IngressError::Listen { addr: *addr, source };
            let mut addr = *addr;
            for (n, of_worker) in sockets.iter_mut().enumerate() {
                let listener = listen(addr, n > 0).map_err(failed)?;
                // The first takes a free port, the others join it.
                addr = listener.local_addr().map_err(failed)?;
                of_worker.push(listener);
            }
            addrs.push(addr);
        }
        Ok(Self { sockets, addrs, limits: config.limits.clone() })
    }

    /// The addresses with their real ports.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Serves until `shutdown`, then ends the requests under way within the drain time.
    pub async fn serve(
        self,
        routes: Arc<Routes>,
        shutdown: CancellationToken,
    ) -> Result<(), IngressError> {
        let connections = Arc::new(Semaphore::new(self.limits.max_connections));
        let mut workers = Vec::new();
        for (n, sockets) in self.sockets.into_iter().enumerate() {
            let worker = Worker {
                sockets,
                routes: routes.clone(),
                limits: self.limits.clone(),
                connections: connections.clone(),
                shutdown: shutdown.clone(),
            };
            workers.push(worker.start(n)?);
        }
        let mut outcome = Ok(());
        for (n, ended) in workers.into_iter().enumerate() {
            // A worker that panics drops its sender.
            if !matches!(ended.await, Ok(Ok(()))) {
                outcome = Err(IngressError::Worker(n));
                shutdown.cancel();
            }
        }
        outcome
    }
}

/// The first on an address shares it only once it has it: SO_REUSEPORT from the start would
/// join the socket of another ingress of the same user.
fn listen(addr: SocketAddr, joins: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        // [::]:80 and 0.0.0.0:80 can both be listened on.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(joins)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.set_reuse_port(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

struct Worker {
    sockets: Vec<StdListener>,
    routes: Arc<Routes>,
    limits: Limits,
    connections: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Worker {
    fn start(self, n: usize) -> Result<oneshot::Receiver<io::Result<()>>, IngressError> {
        let (sender, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name(format!("ingress-{n}"));
        let body = move || {
            let result = self.run();
            if let Err(error) = &result {
                tracing::error!(worker = n, %error, "ingress worker failed");
            }
            // Nobody waits if the whole ingress has been dropped.
            let _ = sender.send(result);
        };
        thread.spawn(body).map_err(IngressError::Thread)?;
        Ok(ended)
    }

    fn run(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, self.work())
    }

    async fn work(self) -> io::Result<()> {
        let tracker = TaskTracker::new();
        let proxy = Rc::new(Proxy::new(self.routes, self.limits.clone(), tracker.clone()));
        let acceptor = Rc::new(Acceptor {
            proxy,
            limits: self.limits.clone(),
            connections: self.connections,
            shutdown: self.shutdown.clone(),
            tracker: tracker.clone(),
        });
        for socket in self.sockets {
            let (listener, acceptor) = (TcpListener::from_std(socket)?, acceptor.clone());
            let port = listener.local_addr()?.port();
            tracker.spawn_local(async move { acceptor.accept(listener, port).await });
        }
        self.shutdown.cancelled().await;
        tracker.close();
        if tokio::time::timeout(self.limits.drain_timeout, tracker.wait()).await.is_err() {
            tracing::warn!(
                left = tracker.len(),
                "connections cut off at the end of the drain time"
            );
        }
        Ok(())
    }
}

struct Acceptor {
    proxy: Rc<Proxy>,
    limits: Limits,
    connections: Arc<Semaphore>,
    shutdown: CancellationToken,
    tracker: TaskTracker,
}

impl Acceptor {
    async fn accept(self: Rc<Self>, listener: TcpListener, port: u16) {
        while let Some(accepted) = self.shutdown.run_until_cancelled(listener.accept()).await {
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting a client failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Accepted first: a socket that waited with a permit in hand would keep it from
            // the other workers.
            let permit = self.connections.clone().acquire_owned();
            let Some(Ok(permit)) = self.shutdown.run_until_cancelled(permit).await else { return };
            // Without it small responses wait for the client's acknowledgement.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "client left at once");
                continue;
            }
            let client = Client {
                address: header(peer.ip().to_canonical()),
                port: header(port),
                scheme: HeaderValue::from_static("http"),
            };
            let io = WriteTimeout::new(TokioIo::new(stream), self.limits.idle_timeout);
            self.tracker.spawn_local(self.clone().connection(io, client, permit));
        }
    }

    /// Serves one client; TLS comes in here as another `io` and scheme.
    async fn connection<I>(self: Rc<Self>, io: I, client: Client, _permit: OwnedSemaphorePermit)
    where
        I: Read + Write + Unpin + Send + 'static,
    {
        let proxy = &self.proxy;
        let service = service_fn(|request| {
            let client = &client;
            async move { Ok::<_, Infallible>(proxy.serve(client, request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_buf_size(self.limits.max_header_bytes)
            .max_header_size(self.limits.max_header_bytes)
            .serve_connection(io, service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = self.shutdown.cancelled() => {
                // The request under way is the last; an idle connection closes now.
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "client connection ended");
        }
    }
}

/// Addresses and numbers are always valid header values.
fn header(value: impl ToString) -> HeaderValue {
    HeaderValue::try_from(value.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

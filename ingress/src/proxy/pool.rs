//! Open connections to pods, kept by each worker for itself: no lock, and a connection
//! never changes its thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::body::RequestBody;

/// Shorter than what most servers keep an idle connection for, so that they seldom close
/// one in the moment it is used.
const IDLE_FOR: Duration = Duration::from_secs(30);

pub type Sender = SendRequest<RequestBody>;

struct Idle {
    sender: Sender,
    since: Instant,
}

pub struct Pool {
    idle: RefCell<HashMap<SocketAddr, Vec<Idle>>>,
    max_idle_per_endpoint: usize,
    reaping: Cell<bool>,
}

impl Pool {
    pub fn new(max_idle_per_endpoint: usize) -> Rc<Self> {
        let idle = RefCell::default();
        Rc::new(Self { idle, max_idle_per_endpoint, reaping: Cell::new(false) })
    }

    /// The connection used last, if one is open.
    pub fn take(&self, addr: SocketAddr) -> Option<Sender> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&addr)?;
        while let Some(Idle { sender, .. }) = connections.pop() {
            if sender.is_ready() && !sender.is_closed() {
                return Some(sender);
            }
        }
        idle.remove(&addr);
        None
    }

    /// Gives a connection back once its exchange is over; until then it waits here.
    pub fn give_back(self: &Rc<Self>, addr: SocketAddr, mut sender: Sender) {
        if sender.is_ready() {
            return self.put(addr, sender);
        }
        let pool = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            if sender.ready().await.is_ok()
                && let Some(pool) = pool.upgrade()
            {
                pool.put(addr, sender);
            }
        });
    }

    fn put(self: &Rc<Self>, addr: SocketAddr, sender: Sender) {
        {
            let mut idle = self.idle.borrow_mut();
            let connections = idle.entry(addr).or_default();
            if connections.len() < self.max_idle_per_endpoint {
                connections.push(Idle { sender, since: Instant::now() });
            }
        }
        // One reaper at a time, and none while there is nothing to reap.
        if !self.reaping.replace(true) {
            let pool = Rc::downgrade(self);
            tokio::task::spawn_local(async move {
                loop {
                    tokio::time::sleep(IDLE_FOR).await;
                    let Some(pool) = pool.upgrade() else { return };
                    if !pool.reap() {
                        return pool.reaping.set(false);
                    }
                }
            });
        }
    }

    /// Closes what was idle too long; whether something is left.
    fn reap(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|_, connections| {
            connections.retain(|c| c.since.elapsed() < IDLE_FOR && !c.sender.is_closed());
            !connections.is_empty()
        });
        !idle.is_empty()
    }

    /// Opens a connection to a pod.
    pub async fn connect(addr: SocketAddr, within: Duration) -> io::Result<Sender> {
        let stream =
            tokio::time::timeout(within, TcpStream::connect(addr)).await.map_err(|_| {
                io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {within:?}"))
            })??;
        stream.set_nodelay(true)?;
        let handshake = Builder::new().handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        tokio::task::spawn_local(async move {
            // Its failure shows in the request that uses it.
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%addr, %error, "connection to a pod ended");
            }
        });
        Ok(sender)
    }
}

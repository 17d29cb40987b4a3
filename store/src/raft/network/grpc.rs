//! The real [`Transport`]: gRPC as `skiff.raft.v1` says, over connections that are opened
//! when they are first needed.

use std::collections::HashMap;
use std::error::Error;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use skiff_proto::grpc::raft::SnapshotChunk;
use skiff_proto::grpc::raft::raft_client::RaftClient;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{ConnectError, Status};

use super::link::{Fault, Link};
use super::transport::{CallError, Method, Target, Transport};
use super::{MAX_MESSAGE_BYTES, PeerTls, WINDOW_BYTES};
use crate::raft::types::MemberId;
use crate::snapshot::SnapshotFile;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// While a call runs, a member that answers no ping for so long, twice, is taken for lost. Calls
/// have shorter timeouts of their own; a snapshot, which takes as long as it takes, has not.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// A connection on which nothing has been answered for so long is given up when a call on it
/// times out: the other may be reached on a new one. A slow disk is no reason to.
const SILENCE: Duration = Duration::from_secs(1);
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks read ahead of the network.
const CHUNKS_AHEAD: usize = 4;

pub(super) type Client = RaftClient<Channel>;

/// Calls that share a connection. What keeps the cluster alive waits behind nothing large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Lane {
    Control,
    Log,
    Forward,
}

fn lane(method: Method) -> Lane {
    match method {
        Method::AppendEntries => Lane::Log,
        Method::Propose => Lane::Forward,
        Method::Heartbeat | Method::Vote | Method::TransferLeader => Lane::Control,
        Method::ReadIndex | Method::Lease | Method::Member | Method::Members => Lane::Control,
    }
}

struct Connection {
    link: Arc<Link>,
    /// Tells this connection from a later one.
    number: u64,
    urls: Vec<String>,
    heard: Instant,
}

#[derive(Default)]
struct Connections {
    open: HashMap<(MemberId, Lane), Connection>,
    /// Counts, so that the next URL of a member gets its turn.
    opened: u64,
}

pub struct GrpcTransport {
    tls: Option<PeerTls>,
    /// Where the sockets are; who calls runs elsewhere.
    sockets: Handle,
    connections: Mutex<Connections>,
}

impl std::fmt::Debug for GrpcTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrpcTransport").field("tls", &self.tls).finish()
    }
}

impl GrpcTransport {
    /// Within the runtime that its connections are to live on. Without TLS for loopback only.
    pub fn new(tls: Option<PeerTls>) -> Self {
        Self { tls, sockets: Handle::current(), connections: Mutex::default() }
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open connection or a new one, and its number.
    fn link(&self, to: &Target, lane: Lane) -> Result<(Arc<Link>, u64), CallError> {
        let mut connections = self.connections();
        if let Some(connection) = connections.open.get(&(to.id, lane))
            && connection.urls == to.urls
            && !connection.link.is_over()
        {
            return Ok((connection.link.clone(), connection.number));
        }
        let (client, number) = self.client(to, &mut connections)?;
        let link = Arc::new(Link::open(client, &self.sockets));
        let (urls, heard) = (to.urls.clone(), Instant::now());
        let connection = Connection { link: link.clone(), number, urls, heard };
        connections.open.insert((to.id, lane), connection);
        Ok((link, number))
    }

    /// For a new connection, which is opened when it is first used.
    fn client(&self, to: &Target, all: &mut Connections) -> Result<(Client, u64), CallError> {
        let number = all.opened;
        all.opened += 1;
        let endpoint = self.endpoint(to, number).map_err(|cause| not_sent(to, cause))?;
        let _sockets = self.sockets.enter();
        let client = RaftClient::new(endpoint.connect_lazy())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok((client, number))
    }

    fn endpoint(&self, to: &Target, attempt: u64) -> Result<Endpoint, String> {
        let at = attempt as usize % to.urls.len().max(1);
        let url = to.urls.get(at).ok_or("it has no peer URL")?;
        let text = |error: tonic::transport::Error| format!("{url}: {}", chain(&error));
        let endpoint = Endpoint::from_shared(url.clone()).map_err(text)?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE);
        let Some(tls) = &self.tls else { return Ok(endpoint) };
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&tls.ca_pem))
            .identity(Identity::from_pem(&tls.cert_pem, &tls.key_pem));
        endpoint.tls_config(tls).map_err(text)
    }

    fn heard(&self, to: &Target, lane: Lane, number: u64) {
        if let Some(connection) = self.connections().open.get_mut(&(to.id, lane))
            && connection.number == number
        {
            connection.heard = Instant::now();
        }
    }

    /// Closes a connection, unless it has been replaced already or (with `silent`) the other
    /// has been heard on it lately.
    fn close(&self, to: &Target, lane: Lane, number: u64, silent: bool) {
        let mut connections = self.connections();
        let broken = connections.open.get(&(to.id, lane)).is_some_and(|connection| {
            connection.number == number && (!silent || connection.heard.elapsed() > SILENCE)
        });
        if broken {
            connections.open.remove(&(to.id, lane));
        }
    }
}

fn not_sent(to: &Target, cause: String) -> CallError {
    CallError::NotSent { to: to.to_string(), cause }
}

fn lost(to: &Target, cause: String) -> CallError {
    CallError::Lost { to: to.to_string(), cause }
}

/// An error and its causes, once each.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn never_connected(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(cause) = source {
        if cause.is::<ConnectError>() {
            return true;
        }
        source = cause.source();
    }
    false
}

#[async_trait]
impl Transport for GrpcTransport {
    async fn call(
        &self,
        to: &Target,
        method: Method,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let lane = lane(method);
        let (link, number) = self.link(to, lane)?;
        let mut sent = false;
        match tokio::time::timeout(timeout, link.call(method, body, &mut sent)).await {
            Ok(Ok(answer)) => {
                self.heard(to, lane, number);
                Ok(answer)
            }
            Ok(Err(fault)) => {
                self.close(to, lane, number, false);
                Err(match fault {
                    Fault::NotSent(cause) => not_sent(to, cause),
                    Fault::Lost(cause) => lost(to, cause),
                })
            }
            Err(_) => {
                self.close(to, lane, number, true);
                let cause = format!("{} ms are over", timeout.as_millis());
                Err(if sent { lost(to, cause) } else { not_sent(to, cause) })
            }
        }
    }

    async fn send_snapshot(
        &self,
        to: &Target,
        header: Bytes,
        file: SnapshotFile,
    ) -> Result<Bytes, CallError> {
        // A snapshot is rare: its connection, and the buffers that grow on it, are its own.
        let (mut client, _) = self.client(to, &mut self.connections())?;
        let chunks = ReceiverStream::new(read_chunks(file, header));
        let answer = client.install_snapshot(chunks).await;
        let failed = |status: Status| {
            let cause = chain(&status);
            if never_connected(&status) { not_sent(to, cause) } else { lost(to, cause) }
        };
        Ok(answer.map_err(failed)?.into_inner().body)
    }
}

/// Reads the file ahead of the network, a few chunks at most. If reading fails the stream
/// just ends; the receiver finds the snapshot incomplete and refuses it.
fn read_chunks(file: SnapshotFile, header: Bytes) -> mpsc::Receiver<SnapshotChunk> {
    let (chunks, receiver) = mpsc::channel(CHUNKS_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut header = header;
        let mut read = || -> Result<(), Box<dyn Error>> {
            let mut input = file.open()?;
            loop {
                let mut data = vec![0; CHUNK_BYTES];
                let read = input.read(&mut data)?;
                data.truncate(read);
                let header = std::mem::take(&mut header);
                let chunk = SnapshotChunk { header, data: data.into() };
                if read == 0 || chunks.blocking_send(chunk).is_err() {
                    return Ok(());
                }
            }
        };
        if let Err(error) = read() {
            tracing::error!(path = %file.path().display(), %error, "cannot read a snapshot to send it");
        }
    });
    receiver
}

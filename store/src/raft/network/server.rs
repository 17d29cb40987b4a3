//! The answering side over gRPC, on the peers' port with the peers' TLS.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use skiff_proto::grpc::raft::raft_server::{Raft, RaftServer};
use skiff_proto::grpc::raft::{self as wire, Answer, Call, Message, SnapshotChunk};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::receiver::Receiver;
use super::transport::Method;
use super::{MAX_MESSAGE_BYTES, PeerTls, WINDOW_BYTES};
use crate::store::Store;

/// Takes what other members send.
pub struct PeerService {
    receiver: Receiver,
    shutdown: CancellationToken,
}

impl PeerService {
    pub(crate) fn server(receiver: Receiver, shutdown: CancellationToken) -> RaftServer<Self> {
        RaftServer::new(Self { receiver, shutdown })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

type Answered = Result<Response<Message>, Status>;

#[tonic::async_trait]
impl Raft for PeerService {
    type ExchangeStream = BoxStream<'static, Result<Answer, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<Call>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let receiver = self.receiver.clone();
        let calls = request.into_inner().take_until(self.shutdown.clone().cancelled_owned());
        let answers = calls.map_ok(move |call| {
            let receiver = receiver.clone();
            async move {
                let body = match method(call.method()) {
                    Some(method) => receiver.answer(method, call.body).await,
                    None => Receiver::unknown(call.method),
                };
                Ok(Answer { id: call.id, body })
            }
        });
        Ok(Response::new(answers.try_buffer_unordered(MAX_CALLS).boxed()))
    }

    async fn install_snapshot(&self, request: Request<Streaming<SnapshotChunk>>) -> Answered {
        let mut chunks = request.into_inner();
        let first = chunks.message().await?;
        let first = first.ok_or_else(|| Status::invalid_argument("an empty snapshot"))?;
        let rest = chunks.map(|chunk| chunk.map(|chunk| chunk.data));
        let data = futures_util::stream::iter([Ok::<Bytes, Status>(first.data)]).chain(rest);
        let body = self.receiver.snapshot(first.header, data).await;
        Ok(Response::new(Message { body }))
    }
}

fn method(method: wire::Method) -> Option<Method> {
    Some(match method {
        wire::Method::Unspecified => return None,
        wire::Method::AppendEntries => Method::AppendEntries,
        wire::Method::Heartbeat => Method::Heartbeat,
        wire::Method::Vote => Method::Vote,
        wire::Method::TransferLeader => Method::TransferLeader,
        wire::Method::Propose => Method::Propose,
        wire::Method::ReadIndex => Method::ReadIndex,
        wire::Method::Lease => Method::Lease,
        wire::Method::ChangeMember => Method::Member,
        wire::Method::Members => Method::Members,
    })
}

/// Calls of one stream that are answered at a time; the others wait on the network.
const MAX_CALLS: usize = 1024;
/// How long running calls may take once the server stops.
const DRAIN: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
#[error("peers: {0}")]
pub struct PeersError(#[from] tonic::transport::Error);

/// Serves other members until `shutdown`. With TLS, who connects must show a certificate of
/// the peers' CA; without it the listener must be on loopback.
/// Boxed: see "Build time" in ARCHITECTURE.md.
pub fn serve_peers(
    store: &Store,
    listener: TcpListener,
    tls: Option<PeerTls>,
    shutdown: CancellationToken,
) -> BoxFuture<'_, Result<(), PeersError>> {
    Box::pin(async move {
        let mut server = Server::builder()
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        if let Some(tls) = tls {
            let config = ServerTlsConfig::new()
                .identity(Identity::from_pem(&tls.cert_pem, &tls.key_pem))
                .client_ca_root(Certificate::from_pem(&tls.ca_pem));
            server = server.tls_config(config)?;
        }
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let served = server
            .add_service(store.peer_service(shutdown.clone()))
            .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
        let drained = async {
            shutdown.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            served = served => Ok(served?),
            () = drained => Ok(()),
        }
    })
}

//! The answering side over gRPC, on the peers' port with the peers' TLS.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use skiff_proto::grpc::raft::raft_server::{Raft, RaftServer};
use skiff_proto::grpc::raft::{Message, SnapshotChunk};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::receiver::Receiver;
use super::transport::Method;
use super::{MAX_MESSAGE_BYTES, PeerTls};
use crate::store::Store;

/// Takes what other members send.
pub struct PeerService {
    receiver: Receiver,
}

impl PeerService {
    pub(crate) fn server(receiver: Receiver) -> RaftServer<Self> {
        RaftServer::new(Self { receiver })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    async fn answer(&self, method: Method, request: Request<Message>) -> Answered {
        let body = self.receiver.answer(method, request.into_inner().body).await;
        Ok(Response::new(Message { body }))
    }
}

type Answered = Result<Response<Message>, Status>;

#[tonic::async_trait]
impl Raft for PeerService {
    async fn append_entries(&self, request: Request<Message>) -> Answered {
        self.answer(Method::AppendEntries, request).await
    }

    async fn vote(&self, request: Request<Message>) -> Answered {
        self.answer(Method::Vote, request).await
    }

    async fn transfer_leader(&self, request: Request<Message>) -> Answered {
        self.answer(Method::TransferLeader, request).await
    }

    async fn propose(&self, request: Request<Message>) -> Answered {
        self.answer(Method::Propose, request).await
    }

    async fn read_index(&self, request: Request<Message>) -> Answered {
        self.answer(Method::ReadIndex, request).await
    }

    async fn lease(&self, request: Request<Message>) -> Answered {
        self.answer(Method::Lease, request).await
    }

    async fn change_member(&self, request: Request<Message>) -> Answered {
        self.answer(Method::Member, request).await
    }

    async fn members(&self, request: Request<Message>) -> Answered {
        self.answer(Method::Members, request).await
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
        let mut server = Server::builder();
        if let Some(tls) = tls {
            let config = ServerTlsConfig::new()
                .identity(Identity::from_pem(&tls.cert_pem, &tls.key_pem))
                .client_ca_root(Certificate::from_pem(&tls.ca_pem));
            server = server.tls_config(config)?;
        }
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let served = server
            .add_service(store.peer_service())
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

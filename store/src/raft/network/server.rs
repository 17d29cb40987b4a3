//! The answering side over gRPC. The caller mounts it on the peers' port, with the peers'
//! TLS.

use bytes::Bytes;
use futures_util::StreamExt;
use skiff_proto::grpc::raft::raft_server::{Raft, RaftServer};
use skiff_proto::grpc::raft::{Message, SnapshotChunk};
use tonic::{Request, Response, Status, Streaming};

use super::MAX_MESSAGE_BYTES;
use super::receiver::Receiver;
use super::transport::Method;

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

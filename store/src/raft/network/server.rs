//! The answering side. The caller mounts it on the peers' port, with the peers' TLS.

use std::io::Write;
use std::sync::Arc;

use openraft::storage::Snapshot;
use skiff_proto::grpc::raft::raft_server::{Raft, RaftServer};
use skiff_proto::grpc::raft::{Message, SnapshotChunk};
use tonic::{Request, Response, Status, Streaming};

use super::{MAX_MESSAGE_BYTES, messages};
use crate::codec::DecodeError;
use crate::core::Core;
use crate::raft::types::AppliedTo;
use crate::snapshot::SnapshotFile;
use crate::store::RaftHandle;

/// Takes what other members send.
pub struct PeerService {
    raft: RaftHandle,
    core: Arc<Core>,
}

impl PeerService {
    pub(crate) fn server(raft: RaftHandle, core: Arc<Core>) -> RaftServer<Self> {
        RaftServer::new(Self { raft, core })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

fn malformed(error: DecodeError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn failed(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

fn reply(body: bytes::Bytes) -> Result<Response<Message>, Status> {
    Ok(Response::new(Message { body }))
}

#[tonic::async_trait]
impl Raft for PeerService {
    async fn append_entries(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        let request = messages::decode_append(request.into_inner().body).map_err(malformed)?;
        let answer = self.raft.append_entries(request).await.map_err(failed)?;
        reply(messages::encode_appended(&answer))
    }

    async fn vote(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        let (request, pre) =
            messages::decode_vote_request(request.into_inner().body).map_err(malformed)?;
        let answer =
            if pre { self.raft.pre_vote(request).await } else { self.raft.vote(request).await };
        reply(messages::encode_voted(&answer.map_err(failed)?))
    }

    async fn transfer_leader(
        &self,
        request: Request<Message>,
    ) -> Result<Response<Message>, Status> {
        let request = messages::decode_transfer(request.into_inner().body).map_err(malformed)?;
        let answer = self.raft.handle_transfer_leader(request).await.map_err(failed)?;
        reply(messages::encode_transferred(&answer))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<Message>, Status> {
        let mut chunks = request.into_inner();
        let first =
            chunks.message().await?.ok_or_else(|| Status::invalid_argument("an empty snapshot"))?;
        let (vote, applied) = messages::decode_snapshot_header(first.header).map_err(malformed)?;
        let (file, mut out) = self.core.snapshots.temporary().map_err(failed)?;
        let mut data = Some(first.data);
        while let Some(bytes) = data {
            out = write_chunk(out, bytes).await?;
            data = chunks.message().await?.map(|chunk| chunk.data);
        }
        let file = verified(file, self.core.cluster_id, applied.clone()).await?;
        let snapshot = Snapshot { meta: applied.snapshot_meta(), snapshot: file };
        let answer = self.raft.install_full_snapshot(vote, snapshot).await.map_err(failed)?;
        reply(messages::encode_installed(&answer))
    }
}

async fn write_chunk(mut out: std::fs::File, bytes: bytes::Bytes) -> Result<std::fs::File, Status> {
    let written = tokio::task::spawn_blocking(move || out.write_all(&bytes).map(|()| out));
    written.await.map_err(failed)?.map_err(failed)
}

/// Raft must be given only what can be installed: a failure there would stop it.
async fn verified(
    file: SnapshotFile,
    cluster_id: u64,
    applied: AppliedTo,
) -> Result<SnapshotFile, Status> {
    let check = move || {
        let header = file.verify().map_err(|error| Status::data_loss(error.to_string()))?;
        if header.cluster_id != cluster_id {
            return Err(Status::failed_precondition(format!(
                "the snapshot is of cluster {:x}, this is {cluster_id:x}",
                header.cluster_id
            )));
        }
        if header.meta.applied != applied.encode() {
            return Err(Status::invalid_argument("the snapshot is not the one that was announced"));
        }
        Ok(file)
    };
    tokio::task::spawn_blocking(check).await.map_err(failed)?
}

//! The answering side, whatever the transport: bytes in, bytes out.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use openraft::storage::Snapshot;

use super::envelope::{Envelope, Refusal, encode_answer};
use super::messages;
use super::transport::Method;
use crate::core::Core;
use crate::raft::types::{AppliedTo, MemberId};
use crate::snapshot::SnapshotFile;
use crate::store::RaftHandle;
use crate::wal::disk::Stream;

/// Answers what other members ask of this one.
#[derive(Clone)]
pub struct Receiver {
    raft: RaftHandle,
    core: Arc<Core>,
    id: MemberId,
}

fn unable(error: impl std::fmt::Display) -> Refusal {
    Refusal::Unable(error.to_string())
}

impl Receiver {
    pub(crate) fn new(raft: RaftHandle, core: Arc<Core>, id: MemberId) -> Self {
        Self { raft, core, id }
    }

    /// The answer to one call. What cannot be taken is refused, in the answer's bytes.
    pub async fn answer(&self, method: Method, message: Bytes) -> Bytes {
        let answer = match self.open(message) {
            Ok(body) => self.take(method, body).await,
            Err(refusal) => Err(refusal),
        };
        encode_answer(answer)
    }

    /// The answer to a snapshot: its header, then the file's bytes as they come. A stream
    /// that breaks off leaves nothing behind.
    pub async fn snapshot<E: std::fmt::Display>(
        &self,
        header: Bytes,
        data: impl futures_util::Stream<Item = Result<Bytes, E>>,
    ) -> Bytes {
        let answer = match self.open(header) {
            Ok(header) => self.take_snapshot(header, data).await,
            Err(refusal) => Err(refusal),
        };
        encode_answer(answer)
    }

    /// Takes the body out of its envelope, if it is for this member.
    fn open(&self, message: Bytes) -> Result<Bytes, Refusal> {
        let (envelope, body) = Envelope::unwrap(message)?;
        if envelope.cluster_id != self.core.cluster_id {
            return Err(Refusal::WrongCluster(self.core.cluster_id));
        }
        if envelope.to != self.id {
            return Err(Refusal::WrongMember(self.id));
        }
        Ok(body)
    }

    async fn take(&self, method: Method, body: Bytes) -> Result<Bytes, Refusal> {
        match method {
            Method::AppendEntries | Method::Heartbeat => {
                let request = messages::decode_append(body)?;
                let answer = self.raft.append_entries(request).await.map_err(unable)?;
                Ok(messages::encode_appended(&answer))
            }
            Method::Vote => {
                let (request, pre) = messages::decode_vote_request(body)?;
                let answer = if pre {
                    self.raft.pre_vote(request).await
                } else {
                    self.raft.vote(request).await
                };
                Ok(messages::encode_voted(&answer.map_err(unable)?))
            }
            Method::TransferLeader => {
                let request = messages::decode_transfer(body)?;
                let answer = self.raft.handle_transfer_leader(request).await.map_err(unable)?;
                Ok(messages::encode_transferred(&answer))
            }
        }
    }

    async fn take_snapshot<E: std::fmt::Display>(
        &self,
        header: Bytes,
        data: impl futures_util::Stream<Item = Result<Bytes, E>>,
    ) -> Result<Bytes, Refusal> {
        let (vote, applied) = messages::decode_snapshot_header(header)?;
        let (file, mut out) = self.core.snapshots.temporary().map_err(unable)?;
        let mut data = std::pin::pin!(data);
        while let Some(bytes) = data.next().await {
            out = write_chunk(&self.core, out, bytes.map_err(unable)?).await?;
        }
        let file = verified(&self.core, file, applied.clone()).await?;
        let snapshot = Snapshot { meta: applied.snapshot_meta(), snapshot: file };
        let answer = self.raft.install_full_snapshot(vote, snapshot).await.map_err(unable)?;
        Ok(messages::encode_installed(&answer))
    }
}

async fn write_chunk(core: &Core, mut out: Stream, bytes: Bytes) -> Result<Stream, Refusal> {
    let write = move || out.write_all(&bytes).map(|()| out);
    let written = core.background.run("write snapshot chunk", write);
    written.await.map_err(unable)?.map_err(unable)
}

/// Raft must be given only what can be installed: a failure there would stop it.
async fn verified(
    core: &Core,
    file: SnapshotFile,
    applied: AppliedTo,
) -> Result<SnapshotFile, Refusal> {
    let cluster_id = core.cluster_id;
    let check = move || {
        let header = file.verify().map_err(|error| Refusal::Malformed(error.to_string()))?;
        if header.cluster_id != cluster_id {
            return Err(Refusal::Malformed(format!(
                "the snapshot is of cluster {:x}, this is {cluster_id:x}",
                header.cluster_id
            )));
        }
        if header.meta.applied != applied.encode() {
            let text = "the snapshot is not the one that was announced";
            return Err(Refusal::Malformed(text.into()));
        }
        Ok(file)
    };
    core.background.run("check snapshot", check).await.map_err(unable)?
}

//! The answering side, whatever the transport: bytes in, bytes out.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::AppendEntriesResponse;
use openraft::storage::Snapshot;

use super::envelope::{Envelope, Refusal, encode_answer};
use super::transport::Method;
use super::{forward, messages};
use crate::codec::Encoder;
use crate::command::Proposal;
use crate::core::Core;
use crate::raft::types::{AppliedTo, MemberId, StoredMembership, encode_members};
use crate::snapshot::SnapshotFile;
use crate::store::Inner;
use crate::wal::disk::Stream;

/// Answers what other members ask of this one.
#[derive(Clone)]
pub struct Receiver {
    inner: Arc<Inner>,
}

fn unable(error: impl std::fmt::Display) -> Refusal {
    Refusal::Unable(error.to_string())
}

impl Receiver {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// The answer to one call. What cannot be taken is refused, in the answer's bytes.
    pub async fn answer(&self, method: Method, message: Bytes) -> Bytes {
        let answer = match self.open(method == Method::Members, message) {
            Ok((from, body)) => self.take(from, method, body).await,
            Err(refusal) => Err(refusal),
        };
        encode_answer(answer)
    }

    /// The answer to a call that a newer release may know.
    pub fn unknown(method: i32) -> Bytes {
        encode_answer(Err(Refusal::Malformed(format!("it does not know method {method}"))))
    }

    /// The answer to a snapshot: its header, then the file's bytes as they come. A stream
    /// that breaks off leaves nothing behind.
    pub async fn snapshot<E: std::fmt::Display>(
        &self,
        header: Bytes,
        data: impl futures_util::Stream<Item = Result<Bytes, E>>,
    ) -> Bytes {
        let answer = match self.open(false, header) {
            Ok((_, header)) => self.take_snapshot(header, data).await,
            Err(refusal) => Err(refusal),
        };
        encode_answer(answer)
    }

    /// Takes sender and body out of the envelope, if it is for this member. Who joins knows
    /// neither the cluster nor whom it asks.
    fn open(&self, joins: bool, message: Bytes) -> Result<(MemberId, Bytes), Refusal> {
        let (envelope, body) = Envelope::unwrap(message)?;
        let identity = &self.inner.identity;
        if !joins && envelope.cluster_id != identity.cluster_id {
            return Err(Refusal::WrongCluster(identity.cluster_id));
        }
        if !joins && envelope.to != identity.member_id {
            return Err(Refusal::WrongMember(identity.member_id));
        }
        Ok((envelope.from, body))
    }

    /// Refuses one who has been removed. Only where a no does not slow the cluster down: a
    /// member that lags may not know the sender yet.
    fn check_member(&self, from: MemberId) -> Result<(), Refusal> {
        let (committed, effective) = {
            let metrics = self.inner.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            (metrics.committed_membership_config.clone(), metrics.membership_config.clone())
        };
        let knows = |members: &StoredMembership| members.nodes().any(|(id, _)| *id == from);
        match committed.log_id() {
            Some(id) if !knows(&committed) && !knows(&effective) => {
                Err(Refusal::NotMember(id.index()))
            }
            _ => Ok(()),
        }
    }

    async fn take(&self, from: MemberId, method: Method, body: Bytes) -> Result<Bytes, Refusal> {
        let inner = &self.inner;
        match method {
            Method::AppendEntries | Method::Heartbeat => {
                let request = messages::decode_append(body)?;
                let answer = inner.raft.append_entries(request).await.map_err(unable)?;
                if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                    inner.leadership.hear();
                }
                Ok(messages::encode_appended(&answer))
            }
            Method::Vote => self.vote(from, body).await,
            Method::TransferLeader => {
                let request = messages::decode_transfer(body)?;
                let answer = inner.raft.handle_transfer_leader(request).await.map_err(unable)?;
                Ok(messages::encode_transferred(&answer))
            }
            Method::Members => {
                let mut e = Encoder::default();
                e.u64(inner.identity.cluster_id);
                let members = {
                    let metrics = inner.raft.server_metrics();
                    metrics.borrow_watched().membership_config.clone()
                };
                encode_members(&mut e, members.membership());
                Ok(e.finish().into())
            }
            Method::Propose | Method::ReadIndex | Method::Lease | Method::Member => {
                self.check_member(from)?;
                self.lead(method, body).await
            }
        }
    }

    async fn vote(&self, from: MemberId, body: Bytes) -> Result<Bytes, Refusal> {
        let (request, pre) = messages::decode_vote_request(body)?;
        let raft = &self.inner.raft;
        let answer = if pre { raft.pre_vote(request).await } else { raft.vote(request).await };
        let answer = answer.map_err(unable)?;
        if !answer.vote_granted {
            self.check_member(from)?;
        }
        Ok(messages::encode_voted(&answer))
    }

    /// What a follower asks of the leader, if this still is it.
    async fn lead(&self, method: Method, body: Bytes) -> Result<Bytes, Refusal> {
        let inner = &self.inner;
        Ok(match method {
            Method::Propose => {
                let answer = match inner.proposer() {
                    Some(proposer) => proposer.propose_for_member(Proposal(body)).await?,
                    None => forward::Forwarded::NotLeader,
                };
                forward::encode_applied(&answer)
            }
            Method::Lease => {
                forward::encode_lease(&inner.lease_here(forward::LeaseCall::decode(body)?).await)
            }
            Method::Member => {
                let change = forward::MemberChange::decode(body)?;
                forward::encode_changed(&inner.change_here(change).await)
            }
            _ => forward::encode_index(&inner.confirm_here().await),
        })
    }

    async fn take_snapshot<E: std::fmt::Display>(
        &self,
        header: Bytes,
        data: impl futures_util::Stream<Item = Result<Bytes, E>>,
    ) -> Result<Bytes, Refusal> {
        let (vote, applied) = messages::decode_snapshot_header(header)?;
        let core = &self.inner.core;
        let (file, mut out) = core.snapshots.temporary().map_err(unable)?;
        let mut data = std::pin::pin!(data);
        while let Some(bytes) = data.next().await {
            out = write_chunk(core, out, bytes.map_err(unable)?).await?;
        }
        let file = verified(core, file, applied.clone()).await?;
        let snapshot = Snapshot { meta: applied.snapshot_meta(), snapshot: file };
        let answer = self.inner.raft.install_full_snapshot(vote, snapshot).await.map_err(unable)?;
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

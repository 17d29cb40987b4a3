//! The Raft library's network over a [`Transport`]: encodes, calls, decodes.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::sync::watch;

use super::envelope::{Envelope, Refusal, decode_answer};
use super::messages;
use super::transport::{CallError, Method, Target, Transport};
use crate::codec::DecodeError;
use crate::raft::machine::SnapshotOf;
use crate::raft::types::*;
use crate::snapshot::SnapshotFile;

/// Makes the clients of all members.
#[derive(Debug, Clone)]
pub struct Network {
    pub transport: Arc<dyn Transport>,
    pub cluster_id: u64,
    pub id: MemberId,
    /// The newest list of members, by its entry, on which another did not find this one.
    pub refused: watch::Sender<u64>,
}

impl Network {
    pub fn new(transport: Arc<dyn Transport>, cluster_id: u64, id: MemberId) -> Self {
        Self { transport, cluster_id, id, refused: watch::Sender::new(0) }
    }

    /// To call a member for anything but appends.
    pub fn peer(&self, target: MemberId, node: &MemberNode) -> Peer {
        self.append_peer(target, node, Method::AppendEntries)
    }

    fn append_peer(&self, target: MemberId, node: &MemberNode, append: Method) -> Peer {
        Peer {
            transport: self.transport.clone(),
            refused: self.refused.clone(),
            envelope: Envelope { cluster_id: self.cluster_id, from: self.id, to: target },
            target: Target { id: target, name: node.name.clone(), urls: node.peer_urls.clone() },
            append,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: MemberId, node: &MemberNode) -> Peer {
        self.peer(target, node)
    }

    async fn new_heartbeat_client(&mut self, target: MemberId, node: &MemberNode) -> Peer {
        self.append_peer(target, node, Method::Heartbeat)
    }
}

/// A member that is called.
pub struct Peer {
    transport: Arc<dyn Transport>,
    refused: watch::Sender<u64>,
    envelope: Envelope,
    target: Target,
    /// How its appends are sent.
    append: Method,
}

impl Peer {
    fn unreachable(&self, error: impl std::fmt::Display) -> Unreachable<TypeConfig> {
        Unreachable::from_string(format!("{}: {error}", self.target))
    }

    fn opened<T>(
        &self,
        answer: Bytes,
        decode: impl FnOnce(Bytes) -> Result<T, DecodeError>,
    ) -> Result<T, Unreachable<TypeConfig>> {
        let body = decode_answer(answer).map_err(|error| self.unreachable(error))?;
        let body = body.map_err(|refusal| {
            self.note(&refusal);
            self.unreachable(refusal)
        })?;
        decode(body).map_err(|error| self.unreachable(error))
    }

    fn note(&self, refusal: &Refusal) {
        if let Refusal::NotMember(index) = refusal {
            self.refused.send_if_modified(|known| {
                let newer = *index > *known;
                *known = (*known).max(*index);
                newer
            });
        }
    }

    /// One call that is not Raft's, and the body of its answer.
    pub async fn ask(
        &self,
        method: Method,
        body: &[u8],
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let message = self.envelope.wrap(body);
        let answer = self.transport.call(&self.target, method, message, timeout).await?;
        let to = || self.target.to_string();
        let body = decode_answer(answer)
            .map_err(|error| CallError::Lost { to: to(), cause: error.to_string() })?;
        body.map_err(|refusal| {
            self.note(&refusal);
            CallError::NotSent { to: to(), cause: refusal.to_string() }
        })
    }

    /// One call and its answer, within the time Raft allows.
    async fn call<T>(
        &self,
        option: &RPCOption,
        method: Method,
        body: Bytes,
        decode: impl FnOnce(Bytes) -> Result<T, DecodeError>,
    ) -> Result<T, RPCError<TypeConfig>> {
        let message = self.envelope.wrap(&body);
        let answer = self.transport.call(&self.target, method, message, option.soft_ttl()).await;
        let answer = answer.map_err(|error| Unreachable::new(&error))?;
        self.opened(answer, decode).map_err(RPCError::Unreachable)
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = messages::encode_append(rpc);
        self.call(&option, self.append, body, messages::decode_appended).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = messages::encode_vote_request(&rpc, false);
        self.call(&option, Method::Vote, body, messages::decode_voted).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = messages::encode_vote_request(&rpc, true);
        self.call(&option, Method::Vote, body, messages::decode_voted).await
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = messages::encode_transfer(&req);
        self.call(&option, Method::TransferLeader, body, messages::decode_transferred).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let applied = AppliedTo {
            log_id: snapshot.meta.last_log_id,
            membership: snapshot.meta.last_membership.clone(),
        };
        let header = self.envelope.wrap(&messages::encode_snapshot_header(&vote, &applied));
        let answer = tokio::select! {
            biased;
            answer = self.transport.send_snapshot(&self.target, header, snapshot.snapshot) => answer,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        let answer =
            answer.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))?;
        self.opened(answer, messages::decode_installed).map_err(StreamingError::Unreachable)
    }
}

//! Who belongs to the cluster: learners added, promoted, removed; and the peers' service.

use std::collections::{BTreeMap, BTreeSet};

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use skiff_proto::grpc::raft::raft_server::RaftServer;

use super::Store;
use crate::kv::KvError;
use crate::raft::network::receiver::Receiver;
use crate::raft::network::server::PeerService;
use crate::raft::types::{MemberId, MemberNode, TypeConfig};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: MemberId,
    pub node: MemberNode,
    pub is_learner: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    #[error("member {0:x} is not in this cluster")]
    NotFound(MemberId),
    #[error("a member with these peer URLs is in this cluster already")]
    Exists,
    #[error("member {0:x} is a voter already")]
    NotLearner(MemberId),
    #[error("member {0:x} has not caught up with the leader yet")]
    NotReady(MemberId),
    #[error(transparent)]
    Store(#[from] KvError),
}

/// A learner may vote when it lacks at most so many entries.
const READY_LAG: u64 = 1000;

impl Store {
    /// The service other members call. To be served on this member's peer URLs, with the
    /// peers' TLS.
    pub fn peer_service(&self) -> RaftServer<PeerService> {
        PeerService::server(self.receiver())
    }

    /// Answers other members' calls, for a transport of the caller's own.
    pub fn receiver(&self) -> Receiver {
        let inner = &self.inner;
        Receiver::new(inner.raft.clone(), inner.core.clone(), inner.identity.member_id)
    }

    /// Voters and learners, as this member knows them.
    pub fn members(&self) -> Vec<Member> {
        let metrics = self.inner.raft.server_metrics().borrow_watched().clone();
        let voters: Vec<_> = metrics.membership_config.voter_ids().collect();
        let member = |(id, node): (&MemberId, &MemberNode)| Member {
            id: *id,
            node: node.clone(),
            is_learner: !voters.contains(id),
        };
        metrics.membership_config.nodes().map(member).collect()
    }

    fn member(&self, id: MemberId) -> Result<Member, MemberError> {
        let found = self.members().into_iter().find(|member| member.id == id);
        found.ok_or(MemberError::NotFound(id))
    }

    /// Adds a learner, and makes it a voter at once if asked to. Returns its id, which it
    /// finds by itself from the same URLs and cluster token.
    pub async fn member_add(
        &self,
        node: MemberNode,
        learner: bool,
    ) -> Result<MemberId, MemberError> {
        let id = self.inner.config.member_id(&node.peer_urls);
        if self.member(id).is_ok() {
            return Err(MemberError::Exists);
        }
        let nodes = BTreeMap::from([(id, node)]);
        self.change(ChangeMembers::AddNodes(nodes)).await?;
        if !learner {
            self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await?;
        }
        Ok(id)
    }

    pub async fn member_promote(&self, id: MemberId) -> Result<(), MemberError> {
        if !self.member(id)?.is_learner {
            return Err(MemberError::NotLearner(id));
        }
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let last = metrics.last_log_index.unwrap_or(0);
        let replication = metrics.replication.ok_or(KvError::NoLeader)?;
        let has = replication
            .get(&id)
            .and_then(|matched| matched.as_ref())
            .map_or(0, |log_id| log_id.index());
        if last.saturating_sub(has) > READY_LAG {
            return Err(MemberError::NotReady(id));
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await
    }

    pub async fn member_remove(&self, id: MemberId) -> Result<(), MemberError> {
        let ids = BTreeSet::from([id]);
        if self.member(id)?.is_learner {
            return self.change(ChangeMembers::RemoveNodes(ids)).await;
        }
        self.change(ChangeMembers::RemoveVoters(ids)).await
    }

    /// Other addresses for a member.
    pub async fn member_update(
        &self,
        id: MemberId,
        peer_urls: Vec<String>,
    ) -> Result<(), MemberError> {
        let mut node = self.member(id)?.node;
        node.peer_urls = peer_urls;
        self.change(ChangeMembers::SetNodes(BTreeMap::from([(id, node)]))).await
    }

    async fn change(&self, change: ChangeMembers<MemberId, MemberNode>) -> Result<(), MemberError> {
        let result = self.inner.raft.change_membership(change, false).await;
        result.map(|_| ()).map_err(|error| MemberError::Store(refused(error)))
    }

    /// Gives the lead to another voter.
    pub async fn move_leader(&self, to: MemberId) -> Result<(), MemberError> {
        if self.member(to)?.is_learner {
            return Err(MemberError::NotReady(to));
        }
        if !self.inner.raft.is_leader() {
            return Err(KvError::NoLeader.into());
        }
        if to == self.inner.identity.member_id {
            // Raft would step down in favour of nobody.
            return Ok(());
        }
        let asked = self.inner.raft.trigger().transfer_leader(to).await;
        asked.map_err(|_| KvError::Stopped.into())
    }
}

fn refused(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> KvError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => KvError::NoLeader,
        RaftError::APIError(error) => KvError::Internal(error.to_string()),
        RaftError::Fatal(_) => KvError::Stopped,
    }
}

//! Who belongs to the cluster: members added, promoted, removed; and the peers' service.
//!
//! Any member takes a change; the leader carries it out, one at a time. What would cost the
//! cluster its majority is refused, as etcd does with its strict reconfiguration check.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _};
use skiff_proto::grpc::raft::raft_server::RaftServer;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::forward::{Fault, TIMEOUT};
use super::{Inner, Store};
use crate::kv::KvError;
use crate::raft::network::forward::{Forwarded, MemberChange, MemberChanged, decode_changed};
use crate::raft::network::receiver::Receiver;
use crate::raft::network::server::PeerService;
use crate::raft::network::transport::Method;
use crate::raft::types::{MemberId, MemberNode, TypeConfig};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: MemberId,
    pub node: MemberNode,
    pub is_learner: bool,
}

impl Member {
    /// It has told its name.
    fn started(&self) -> bool {
        !self.node.name.is_empty()
    }
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
    #[error("not all voters that are needed for a majority can be reached")]
    Unhealthy,
    #[error("not enough voters have started to be a majority after this change")]
    TooFewStarted,
    #[error("there is a learner already")]
    TooManyLearners,
    #[error(transparent)]
    Store(#[from] KvError),
}

/// A learner may vote when it lacks at most so many entries.
const READY_LAG: u64 = 1000;
/// Learners cost the leader as much as voters; etcd allows as many.
const MAX_LEARNERS: usize = 1;

type Changes = ChangeMembers<MemberId, MemberNode>;

impl Store {
    /// The service other members call. To be served on this member's peer URLs, with the
    /// peers' TLS. Its streams take no more calls after `shutdown`, and end once those that run
    /// are answered.
    pub fn peer_service(&self, shutdown: CancellationToken) -> RaftServer<PeerService> {
        PeerService::server(self.receiver(), shutdown)
    }

    /// Answers other members' calls, for a transport of the caller's own.
    pub fn receiver(&self) -> Receiver {
        Receiver::new(self.inner.clone())
    }

    /// Voters and learners, as this member knows them.
    pub fn members(&self) -> Vec<Member> {
        self.inner.members()
    }

    /// Adds a learner, or one that votes as soon as it has caught up. Returns the new id,
    /// which the member learns when it joins.
    pub async fn member_add(
        &self,
        peer_urls: Vec<String>,
        learner: bool,
    ) -> Result<MemberId, MemberError> {
        self.inner.change(MemberChange::Add { peer_urls, learner }).await
    }

    pub async fn member_promote(&self, id: MemberId) -> Result<(), MemberError> {
        self.inner.change(MemberChange::Promote(id)).await.map(|_| ())
    }

    pub async fn member_remove(&self, id: MemberId) -> Result<(), MemberError> {
        self.inner.change(MemberChange::Remove(id)).await.map(|_| ())
    }

    /// Other addresses for a member.
    pub async fn member_update(
        &self,
        id: MemberId,
        peer_urls: Vec<String>,
    ) -> Result<(), MemberError> {
        self.inner.change(MemberChange::Update { id, peer_urls }).await.map(|_| ())
    }

    /// Gives the lead to another voter, and returns when it has it.
    pub async fn move_leader(&self, to: MemberId) -> Result<(), MemberError> {
        let inner = &self.inner;
        if !inner.raft.is_leader() {
            return Err(KvError::NoLeader.into());
        }
        if inner.member(to)?.is_learner {
            return Err(MemberError::NotReady(to));
        }
        if to == inner.identity.member_id {
            return Ok(());
        }
        let asked = inner.raft.trigger().transfer_leader(to).await;
        asked.map_err(|_| KvError::Stopped)?;
        let mut leader = inner.leadership.watch();
        let moved = leader.wait_for(|leader| *leader == Some(to));
        match tokio::time::timeout(TIMEOUT, moved).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(KvError::Stopped.into()),
            Err(_) => Err(KvError::Timeout.into()),
        }
    }
}

impl Inner {
    pub(super) fn members(&self) -> Vec<Member> {
        let members = {
            let metrics = self.raft.server_metrics();
            metrics.borrow_watched().membership_config.clone()
        };
        let voters: BTreeSet<_> = members.voter_ids().collect();
        let member = |(id, node): (&MemberId, &MemberNode)| Member {
            id: *id,
            node: node.clone(),
            is_learner: !voters.contains(id),
        };
        members.nodes().map(member).collect()
    }

    fn member(&self, id: MemberId) -> Result<Member, MemberError> {
        let found = self.members().into_iter().find(|member| member.id == id);
        found.ok_or(MemberError::NotFound(id))
    }

    /// Has the leader carry out a change; it is known here too when this returns.
    pub(super) async fn change(&self, change: MemberChange) -> Result<MemberId, MemberError> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let leader = self.leadership.wait(deadline).await.ok_or(KvError::NoLeader)?;
            let answer = if leader == self.identity.member_id {
                self.change_here(change.clone()).await
            } else {
                let asked = self.ask(leader, Method::Member, change.encode(), deadline).await;
                match asked.and_then(|body| decode_changed(body).map_err(Fault::from)) {
                    Ok(Forwarded::Failed(KvError::Stopped)) => Forwarded::Failed(KvError::Timeout),
                    Ok(answer) => answer,
                    Err(Fault::NotSent(_)) => Forwarded::NotLeader,
                    Err(Fault::Lost(_)) => Forwarded::Failed(KvError::Timeout),
                }
            };
            match answer {
                Forwarded::Done(changed) => {
                    let (id, index) = changed?;
                    let _ = self.applied(index, deadline).await;
                    return Ok(id);
                }
                Forwarded::Failed(error) => return Err(error.into()),
                Forwarded::NotLeader if Instant::now() >= deadline => {
                    return Err(KvError::NoLeader.into());
                }
                Forwarded::NotLeader => self.leadership.reconsider(leader, self.pause()).await,
            }
        }
    }

    /// As the leader.
    pub async fn change_here(&self, change: MemberChange) -> Forwarded<MemberChanged> {
        let deadline = Instant::now() + TIMEOUT;
        let Ok(_only) = tokio::time::timeout_at(deadline, self.changing.lock()).await else {
            return Forwarded::Failed(KvError::Timeout);
        };
        let (id, changes) = match self.plan(change) {
            Ok(planned) => planned,
            Err(refused) => return Forwarded::Done(Err(refused)),
        };
        let changed = self.raft.change_membership(changes, false);
        match tokio::time::timeout_at(deadline, changed).await {
            Ok(Ok(response)) => Forwarded::Done(Ok((id, response.log_id().index()))),
            Ok(Err(error)) => refused(error),
            Err(_) => Forwarded::Failed(KvError::Timeout),
        }
    }

    /// What Raft is asked to do for a change, or why it must not be done.
    fn plan(&self, change: MemberChange) -> Result<(MemberId, Changes), MemberError> {
        let members = self.members();
        match change {
            MemberChange::Add { peer_urls, learner } => {
                let taken = |url: &String| peer_urls.contains(url);
                if members.iter().any(|member| member.node.peer_urls.iter().any(taken)) {
                    return Err(MemberError::Exists);
                }
                if learner {
                    let learners = |member: &&Member| member.is_learner && !member.node.promote;
                    if members.iter().filter(learners).count() >= MAX_LEARNERS {
                        return Err(MemberError::TooManyLearners);
                    }
                } else {
                    self.check_majority(&members, None)?;
                }
                let id = self.config.new_member_id(&peer_urls);
                let (name, client_urls) = (String::new(), Vec::new());
                let node = MemberNode { name, peer_urls, client_urls, promote: !learner };
                Ok((id, ChangeMembers::AddNodes(BTreeMap::from([(id, node)]))))
            }
            MemberChange::Promote(id) => {
                if !self.member(id)?.is_learner {
                    return Err(MemberError::NotLearner(id));
                }
                if !self.caught_up(id) {
                    return Err(MemberError::NotReady(id));
                }
                Ok((id, ChangeMembers::AddVoterIds(BTreeSet::from([id]))))
            }
            MemberChange::Remove(id) => {
                if self.member(id)?.is_learner {
                    return Ok((id, ChangeMembers::RemoveNodes(BTreeSet::from([id]))));
                }
                self.check_majority(&members, Some(id))?;
                Ok((id, ChangeMembers::RemoveVoters(BTreeSet::from([id]))))
            }
            MemberChange::Update { id, peer_urls } => {
                let mut node = self.member(id)?.node;
                node.peer_urls = peer_urls;
                Ok((id, ChangeMembers::SetNodes(BTreeMap::from([(id, node)]))))
            }
            MemberChange::Publish { id, name, client_urls } => {
                let mut node = self.member(id)?.node;
                (node.name, node.client_urls) = (name, client_urls);
                Ok((id, ChangeMembers::SetNodes(BTreeMap::from([(id, node)]))))
            }
        }
    }

    /// Would the voters, after one is added or `removed`, still have a majority that has
    /// started and answers?
    fn check_majority(
        &self,
        members: &[Member],
        removed: Option<MemberId>,
    ) -> Result<(), MemberError> {
        let voters: Vec<_> = members.iter().filter(|member| !member.is_learner).collect();
        let started =
            voters.iter().filter(|member| member.started() && Some(member.id) != removed).count();
        let Some(removed) = removed else {
            if voters.len() > 1 && started < voters.len().div_ceil(2) + 1 {
                return Err(MemberError::TooFewStarted);
            }
            let all = voters.iter().all(|member| self.is_active(member.id));
            return if all { Ok(()) } else { Err(MemberError::Unhealthy) };
        };
        let left = voters.len() - 1;
        if started < left / 2 + 1 {
            return Err(MemberError::TooFewStarted);
        }
        if !self.is_active(removed) {
            // It is no part of the majority that works now.
            return Ok(());
        }
        let active = voters.iter().filter(|member| self.is_active(member.id)).count();
        if active - 1 < left / 2 + 1 { Err(MemberError::Unhealthy) } else { Ok(()) }
    }

    /// It has answered the leader, which this is, lately.
    fn is_active(&self, id: MemberId) -> bool {
        if id == self.identity.member_id {
            return true;
        }
        let timeout = Duration::from_millis(self.config.election_timeout_ms);
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let answered = metrics.heartbeat.as_ref().and_then(|heartbeat| *heartbeat.get(&id)?);
        answered.is_some_and(|at| at.elapsed() < timeout)
    }

    pub(super) fn caught_up(&self, id: MemberId) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or(0);
        let matched = metrics.replication.as_ref().and_then(|all| all.get(&id).cloned().flatten());
        matched.is_some_and(|log_id| last.saturating_sub(log_id.index()) <= READY_LAG)
    }
}

fn refused(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Forwarded<MemberChanged> {
    use openraft::errors::ChangeMembershipError::{InProgress, UncommittedLeaderLog};
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => Forwarded::NotLeader,
        // The one before is not finished, or the leader is new; this one has not begun.
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            InProgress(_) | UncommittedLeaderLog(_),
        )) => Forwarded::NotLeader,
        // An earlier leader's change was adopted in between.
        RaftError::APIError(ClientWriteError::PreconditionFailed(_)) => Forwarded::NotLeader,
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
            Forwarded::Failed(KvError::Timeout)
        }
        RaftError::APIError(error) => Forwarded::Failed(KvError::Internal(error.to_string())),
        RaftError::Fatal(_) => Forwarded::Failed(KvError::Stopped),
    }
}

/// A refused change is tried again after this.
const RETRY: Duration = Duration::from_secs(1);

/// Tells the cluster this member's name and client URLs, if it does not know them.
pub(super) async fn publish(inner: Arc<Inner>) {
    let mut metrics = inner.raft.server_metrics();
    let me = inner.identity.member_id;
    loop {
        metrics.borrow_and_update();
        let Ok(member) = inner.member(me) else {
            if metrics.changed().await.is_err() {
                return;
            }
            continue;
        };
        let (name, client_urls) = (inner.identity.name.clone(), inner.config.client_urls.clone());
        if member.node.name == name && member.node.client_urls == client_urls {
            return;
        }
        let told = inner.change(MemberChange::Publish { id: me, name, client_urls }).await;
        if let Err(error) = told {
            tracing::debug!(%error, "this member's client URLs could not be told yet");
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// On the leader: gives a vote to members that were added as voters, once they have caught
/// up. Until then the cluster's majority does not depend on them.
pub(super) async fn promote_ready(inner: Arc<Inner>) {
    let mut server = inner.raft.server_metrics();
    let mut all = inner.raft.metrics();
    loop {
        server.borrow_and_update();
        all.borrow_and_update();
        let waiting: Vec<_> = if inner.raft.is_leader() {
            let due = |member: &Member| member.is_learner && member.node.promote;
            inner.members().into_iter().filter(due).map(|member| member.id).collect()
        } else {
            Vec::new()
        };
        for id in waiting.iter().copied().filter(|id| inner.caught_up(*id)) {
            if let Err(error) = inner.change(MemberChange::Promote(id)).await {
                tracing::warn!(member = format!("{id:x}"), %error, "a member cannot vote yet");
                tokio::time::sleep(RETRY).await;
            }
        }
        // Progress changes often, so it is followed only while somebody waits for it.
        tokio::select! {
            biased;
            changed = server.changed() => if changed.is_err() { return },
            changed = all.changed(), if !waiting.is_empty() => if changed.is_err() { return },
        }
    }
}

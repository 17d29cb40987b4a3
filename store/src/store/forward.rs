//! Requests that only the leader can serve, on their way to it and at it.
//!
//! A request is sent again only if it certainly had no effect: it never left this member, or
//! the one it reached does not lead. Otherwise a write's outcome is not known, and the client
//! is told so.

use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use tokio::time::Instant;

use super::Inner;
use crate::codec::DecodeError;
use crate::command::Proposal;
use crate::kv::KvError;
use crate::raft::network::forward::{Applied, Forwarded, decode_applied};
use crate::raft::network::transport::{CallError, Method};
use crate::raft::types::{MemberId, TypeConfig};

/// As long as etcd waits before it says that the outcome is not known.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(7);

/// Why there is no answer of the leader.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// It had no effect.
    #[error("{0}")]
    NotSent(String),
    /// It may have had its effect.
    #[error("{0}")]
    Lost(String),
}

impl From<CallError> for Fault {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NotSent { .. } => Fault::NotSent(error.to_string()),
            CallError::Lost { .. } => Fault::Lost(error.to_string()),
        }
    }
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        Fault::Lost(error.to_string())
    }
}

impl Inner {
    /// How long to wait before the same leader is asked again.
    pub(super) fn pause(&self) -> Duration {
        Duration::from_millis(self.config.heartbeat_ms)
    }

    /// One call to the leader; given up when another leads.
    pub(super) async fn ask(
        &self,
        to: MemberId,
        method: Method,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Bytes, Fault> {
        let node = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics
                .membership_config
                .nodes()
                .find(|(id, _)| **id == to)
                .map(|(_, node)| node.clone())
        };
        let unknown = || Fault::NotSent(format!("member {to:x} is not known"));
        let peer = self.network.peer(to, &node.ok_or_else(unknown)?);
        let timeout = deadline.saturating_duration_since(Instant::now());
        tokio::select! {
            biased;
            answer = peer.ask(method, &body, timeout) => Ok(answer?),
            // It may be cut off, and others must not wait behind this.
            () = self.leadership.moved(to) => Err(Fault::Lost(format!("{to:x} leads no more"))),
        }
    }

    /// Writes commands through the leader, whoever it is. They have been applied here too
    /// when this returns, so that this member's clients read what they wrote.
    pub(super) async fn write(
        &self,
        proposal: Proposal,
        deadline: Instant,
    ) -> Result<Applied, KvError> {
        loop {
            let leader = self.leadership.wait(deadline).await.ok_or(KvError::NoLeader)?;
            let answer = if leader == self.identity.member_id {
                self.write_here(proposal.clone(), deadline).await
            } else {
                let asked = self.ask(leader, Method::Propose, proposal.0.clone(), deadline).await;
                match asked.and_then(|body| decode_applied(body).map_err(Fault::from)) {
                    // It stopped in the middle, and may have appended them.
                    Ok(Forwarded::Failed(KvError::Stopped)) => Forwarded::Failed(KvError::Timeout),
                    Ok(answer) => answer,
                    Err(Fault::NotSent(cause)) => {
                        tracing::debug!(cause, "commands could not be forwarded");
                        Forwarded::NotLeader
                    }
                    Err(Fault::Lost(cause)) => {
                        tracing::debug!(cause, "the outcome of forwarded commands is not known");
                        Forwarded::Failed(KvError::Timeout)
                    }
                }
            };
            match answer {
                Forwarded::Done(applied) => {
                    // Told of a revision that this member does not have yet, a client could read
                    // an older one here afterwards. If it lags too long the client hears, as
                    // with etcd, that the outcome is not known.
                    let applied_here = self.applied(applied.index, deadline).await;
                    return applied_here.map(|()| applied).map_err(|_| KvError::Timeout);
                }
                Forwarded::Failed(error) => return Err(error),
                Forwarded::NotLeader if Instant::now() >= deadline => {
                    return Err(KvError::NoLeader);
                }
                Forwarded::NotLeader => self.leadership.reconsider(leader, self.pause()).await,
            }
        }
    }

    /// As the leader: appends commands as one entry, and waits until it is applied.
    pub async fn write_here(&self, proposal: Proposal, deadline: Instant) -> Forwarded<Applied> {
        if let Err(error) = self.check_room(&proposal) {
            return Forwarded::Failed(error);
        }
        let (responder, response) =
            ProgressResponder::<TypeConfig, ClientWriteResult<TypeConfig>>::complete_only();
        let written = async {
            self.raft.client_write_ff(proposal, Some(responder)).await.ok()?;
            response.await.ok()
        };
        match tokio::time::timeout_at(deadline, written).await {
            Ok(Some(Ok(response))) => {
                let index = response.log_id().index();
                Forwarded::Done(Applied { index, answers: response.data })
            }
            // Before it was appended, so it had no effect.
            Ok(Some(Err(ClientWriteError::ForwardToLeader(_)))) => Forwarded::NotLeader,
            // Another leader may have committed it.
            Ok(Some(Err(ClientWriteError::LogEntryDiscarded(_)))) | Err(_) => {
                Forwarded::Failed(KvError::Timeout)
            }
            Ok(Some(Err(error))) => Forwarded::Failed(KvError::Internal(error.to_string())),
            Ok(None) => Forwarded::Failed(KvError::Stopped),
        }
    }
}

//! Leases in time. The leader keeps the clock; what is due it proposes to revoke, and only
//! the proposal, once applied, takes the lease away. Calls that depend on the clock are
//! passed on to the leader.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;

use tokio::time::Instant;

use super::Inner;
use super::forward::{Fault, TIMEOUT};
use crate::command::{Command, Proposal};
use crate::core::LeaseNews;
use crate::kv::{Alarm, KvError, LeaseId, LeaseInfo};
use crate::raft::network::forward::{Forwarded, LeaseCall, decode_lease};
use crate::raft::network::transport::Method;

impl Inner {
    pub fn lease_clock(&self) -> std::sync::MutexGuard<'_, crate::mvcc::lease::LeaseClock> {
        self.lease_clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time of the leases' clock: monotonic, from the start of this process.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn follow_news(&self) {
        let now = self.now();
        let mut clock = self.lease_clock();
        for news in self.core.take_lease_news() {
            match news {
                LeaseNews::Granted { id, ttl_seconds } => clock.renew(id, ttl_seconds, now),
                LeaseNews::Gone { id } => clock.remove(id),
            }
        }
    }

    /// A new leader does not know when leases were renewed last, so all get their full time,
    /// as in etcd.
    fn restart_clock(&self) {
        let leases: Vec<_> = {
            let mvcc = self.core.mvcc();
            mvcc.leases().iter().map(|(id, lease)| (id, lease.ttl_seconds)).collect()
        };
        let now = self.now();
        let mut clock = self.lease_clock();
        clock.clear();
        for (id, ttl_seconds) in leases {
            clock.renew(id, ttl_seconds, now);
        }
    }
}

/// Proposals of one round; the rest follow in the next.
const REVOKE_AT_ONCE: usize = 100;
/// After a refused revoke (no space, no leader) the next attempt waits.
const RETRY: Duration = Duration::from_secs(1);

pub(super) async fn run(inner: Arc<Inner>) {
    let mut metrics = inner.raft.server_metrics();
    let mut led = None;
    loop {
        let leads = {
            let metrics = metrics.borrow_and_update();
            (metrics.current_leader == Some(inner.identity.member_id))
                .then_some(metrics.vote.leader_id.term)
        };
        if let Some(term) = leads
            && leads != led
        {
            inner.restart_clock();
            inner.lease_term.store(term, Ordering::Release);
        }
        led = leads;
        inner.follow_news();
        let mut wait = None;
        if led.is_some() {
            let refused = revoke_expired(&inner).await;
            let now = inner.now();
            wait = inner.lease_clock().next().map(|at| at.saturating_sub(now));
            if refused {
                wait = Some(RETRY);
            }
        }
        tokio::select! {
            biased;
            () = inner.core.lease_wake.notified() => {}
            changed = metrics.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = sleep_or_forever(wait) => {}
        }
    }
}

pub(super) async fn sleep_or_forever(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// Returns whether some could not be revoked. Only as the leader: a member that does not
/// lead any more must not have another revoke what the other has renewed.
async fn revoke_expired(inner: &Inner) -> bool {
    let mut expired = inner.lease_clock().expired(inner.now());
    expired.truncate(REVOKE_AT_ONCE);
    if expired.is_empty() {
        return false;
    }
    if inner.core.mvcc().alarms().is_set(Alarm::Corrupt) {
        // It would be refused, and the log would grow by every attempt.
        return true;
    }
    let revoke = |id: LeaseId| Command::LeaseRevoke { id }.encode();
    let commands: Vec<_> = expired.into_iter().map(revoke).collect();
    let proposal = Proposal::join(commands.len(), commands.iter().map(Vec::as_slice));
    let answer = inner.write_here(proposal, Instant::now() + TIMEOUT).await;
    inner.follow_news();
    let Forwarded::Done(applied) = answer else {
        tracing::warn!(?answer, "leases that ran out could not be revoked yet");
        return true;
    };
    let refused = |answer: &_| !matches!(answer, Ok(_) | Err(KvError::LeaseNotFound(_)));
    applied.answers.iter().any(refused)
}

impl Inner {
    /// Answered by the leader. Repeating one is harmless.
    pub(super) async fn lease_call(&self, call: LeaseCall) -> Result<LeaseInfo, KvError> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let leader = self.leadership.wait(deadline).await.ok_or(KvError::NoLeader)?;
            let answer = if leader == self.identity.member_id {
                self.lease_here(call).await
            } else {
                let asked = self.ask(leader, Method::Lease, call.encode(), deadline).await;
                match asked.and_then(|body| decode_lease(body).map_err(Fault::from)) {
                    Ok(Forwarded::Failed(KvError::Stopped)) => Forwarded::NotLeader,
                    Ok(answer) => answer,
                    Err(Fault::NotSent(_) | Fault::Lost(_)) => Forwarded::NotLeader,
                }
            };
            match answer {
                Forwarded::Done(info) => return Ok(info),
                Forwarded::Failed(error) => return Err(error),
                Forwarded::NotLeader if Instant::now() >= deadline => {
                    return Err(KvError::NoLeader);
                }
                Forwarded::NotLeader => self.leadership.reconsider(leader, self.pause()).await,
            }
        }
    }

    /// As the leader, which makes sure of that first.
    pub async fn lease_here(&self, call: LeaseCall) -> Forwarded<LeaseInfo> {
        if !self.sole_voter.is_settled() {
            let index = match self.confirm_here().await {
                Forwarded::Done(index) => index,
                Forwarded::NotLeader => return Forwarded::NotLeader,
                Forwarded::Failed(error) => return Forwarded::Failed(error),
            };
            if let Err(error) = self.applied(index, Instant::now() + TIMEOUT).await {
                return Forwarded::Failed(error);
            }
        }
        let term = {
            let metrics = self.raft.server_metrics();
            metrics.borrow_watched().vote.leader_id.term
        };
        if self.lease_term.load(Ordering::Acquire) != term {
            // A new leader whose clock does not run yet.
            return Forwarded::NotLeader;
        }
        match call {
            LeaseCall::KeepAlive(id) => self.keep_alive(id),
            LeaseCall::TimeToLive { id, keys } => Forwarded::Done(self.time_to_live(id, keys)),
        }
    }

    fn keep_alive(&self, id: LeaseId) -> Forwarded<LeaseInfo> {
        let lease = self.core.mvcc().leases().get(id).map(|lease| lease.ttl_seconds);
        let gone = Forwarded::Failed(KvError::LeaseNotFound(id));
        let Some(ttl_seconds) = lease else { return gone };
        let now = self.now();
        let mut clock = self.lease_clock();
        // What is due is as good as gone, even if its revocation is still on its way.
        if clock.remaining(id, now).is_some_and(|left| left.is_zero()) {
            return gone;
        }
        clock.renew(id, ttl_seconds, now);
        let granted_ttl_seconds = ttl_seconds;
        Forwarded::Done(LeaseInfo { id, granted_ttl_seconds, ttl_seconds, keys: Vec::new() })
    }

    fn time_to_live(&self, id: LeaseId, keys: bool) -> LeaseInfo {
        let lease = self.core.mvcc().leases().get(id).cloned();
        let Some(lease) = lease else {
            return LeaseInfo { id, granted_ttl_seconds: 0, ttl_seconds: -1, keys: Vec::new() };
        };
        let remaining = self.lease_clock().remaining(id, self.now());
        LeaseInfo {
            id,
            granted_ttl_seconds: lease.ttl_seconds,
            ttl_seconds: remaining.map_or(lease.ttl_seconds, |left| left.as_secs() as i64),
            keys: if keys { lease.keys.into_iter().collect() } else { Vec::new() },
        }
    }
}

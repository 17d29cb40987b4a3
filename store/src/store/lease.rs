//! Leases in time. The leader keeps the clock; what is due it proposes to revoke, and only
//! the proposal, once applied, takes the lease away.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;

use super::Inner;
use super::batch::Proposer;
use crate::command::Command;
use crate::core::LeaseNews;

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

pub(super) async fn run(inner: Arc<Inner>, proposer: Proposer) {
    let mut metrics = inner.raft.server_metrics();
    let mut led = None;
    loop {
        let leads = {
            let metrics = metrics.borrow_and_update();
            (metrics.current_leader == Some(inner.identity.member_id))
                .then_some(metrics.vote.leader_id.term)
        };
        if leads.is_some() && leads != led {
            inner.restart_clock();
        }
        led = leads;
        inner.follow_news();
        let mut wait = None;
        if led.is_some() {
            let refused = revoke_expired(&inner, &proposer).await;
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

async fn sleep_or_forever(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// Returns whether some could not be revoked.
async fn revoke_expired(inner: &Inner, proposer: &Proposer) -> bool {
    let mut expired = inner.lease_clock().expired(inner.now());
    expired.truncate(REVOKE_AT_ONCE);
    let limit = inner.config.max_request_bytes;
    let commands: Vec<_> = expired.into_iter().map(|id| Command::LeaseRevoke { id }).collect();
    let proposals = commands.iter().map(|command| proposer.propose(command, limit));
    let answers = futures_util::future::join_all(proposals).await;
    inner.follow_news();
    answers.into_iter().any(|answer| {
        let refused = !matches!(answer, Ok(_) | Err(crate::kv::KvError::LeaseNotFound(_)));
        if refused {
            tracing::warn!(?answer, "a lease that ran out could not be revoked yet");
        }
        refused
    })
}

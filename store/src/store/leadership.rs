//! Who leads, as far as this member can tell, and for how long it has been sure.
//!
//! Raft itself goes on believing in the last leader it knew until there is a new one. Here a
//! leader counts only while it is in touch: a follower has heard it, or, on the leader, a
//! majority has answered it, within an election timeout. So clients of a member that is cut
//! off learn of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Inner;
use crate::raft::types::MemberId;

/// Written by the receiver of the leader's messages, read by the task that decides.
pub(crate) struct Leadership {
    since: Instant,
    /// Milliseconds from `since` to the leader's last message.
    heard_ms: AtomicU64,
    lost: AtomicBool,
    again: Notify,
    leader: watch::Sender<Option<MemberId>>,
}

impl Leadership {
    pub fn new() -> Self {
        Self {
            since: Instant::now(),
            heard_ms: AtomicU64::new(0),
            lost: AtomicBool::new(true),
            again: Notify::new(),
            leader: watch::Sender::new(None),
        }
    }

    /// A message of a leader was accepted.
    pub fn hear(&self) {
        self.heard_ms.store(self.since.elapsed().as_millis() as u64, Ordering::Release);
        if self.lost.load(Ordering::Acquire) {
            self.again.notify_one();
        }
    }

    fn heard(&self) -> Instant {
        self.since + Duration::from_millis(self.heard_ms.load(Ordering::Acquire))
    }

    pub fn current(&self) -> Option<MemberId> {
        *self.leader.borrow()
    }

    pub fn watch(&self) -> watch::Receiver<Option<MemberId>> {
        self.leader.subscribe()
    }

    /// The leader, or the next one if there is none now; `None` if the deadline passes.
    pub async fn wait(&self, deadline: Instant) -> Option<MemberId> {
        let mut leader = self.watch();
        let known = leader.wait_for(Option::is_some);
        *tokio::time::timeout_at(deadline, known).await.ok()?.ok()?
    }

    /// Returns when another than this one leads.
    pub async fn moved(&self, from: MemberId) {
        let mut leader = self.watch();
        let other = leader.wait_for(|leader| leader.is_some_and(|id| id != from));
        if other.await.is_err() {
            std::future::pending().await
        }
    }

    /// Returns when there may be another leader than the one that just refused: at its
    /// change, or after a pause.
    pub async fn reconsider(&self, refused: MemberId, pause: Duration) {
        let _ = tokio::time::timeout(pause, self.moved(refused)).await;
    }
}

/// What holds now, and until when it can hold without another sign of life.
struct Verdict {
    leader: Option<MemberId>,
    until: Option<Instant>,
}

fn judge(inner: &Inner, leader: Option<MemberId>) -> Verdict {
    let lost = Verdict { leader: None, until: None };
    let Some(leader) = leader else { return lost };
    let me = inner.identity.member_id;
    if leader == me && inner.sole_voter.is_only() {
        return Verdict { leader: Some(me), until: None };
    }
    let timeout = Duration::from_millis(inner.config.election_timeout_ms);
    let seen = if leader == me {
        let metrics = inner.raft.metrics();
        let acked = metrics.borrow_watched().last_quorum_acked;
        acked.map(|acked| Instant::now() - acked.elapsed())
    } else {
        Some(inner.leadership.heard())
    };
    match seen.map(|seen| seen + timeout) {
        Some(until) if until > Instant::now() => {
            Verdict { leader: Some(leader), until: Some(until) }
        }
        _ => lost,
    }
}

/// Looks once; returns until when that can hold, and whether it is this member that has lost
/// its majority.
fn look(inner: &Inner) -> (Verdict, bool) {
    let leadership = &inner.leadership;
    let believed = {
        let metrics = inner.raft.server_metrics();
        metrics.borrow_watched().current_leader
    };
    leadership.lost.store(true, Ordering::Release);
    let verdict = judge(inner, believed);
    let lost = verdict.leader.is_none();
    leadership.lost.store(lost, Ordering::Release);
    let leader = verdict.leader;
    let changed =
        leadership.leader.send_if_modified(|known| std::mem::replace(known, leader) != leader);
    match leader {
        _ if !changed => {}
        Some(leader) => tracing::info!(leader = format!("{leader:x}"), "there is a leader"),
        None => tracing::warn!("there is no leader, or it cannot be reached"),
    }
    (verdict, lost && believed == Some(inner.identity.member_id))
}

/// What is known at the start need not be waited for.
pub(super) fn refresh(inner: &Inner) {
    look(inner);
}

pub(super) async fn run(inner: Arc<Inner>) {
    let mut server = inner.raft.server_metrics();
    let mut all = inner.raft.metrics();
    let leadership = &inner.leadership;
    loop {
        server.borrow_and_update();
        all.borrow_and_update();
        let (verdict, isolated) = look(&inner);
        // Only a leader that has lost its majority waits for numbers, which change often.
        tokio::select! {
            biased;
            changed = server.changed() => if changed.is_err() { return },
            changed = all.changed(), if isolated => if changed.is_err() { return },
            () = leadership.again.notified() => {}
            () = until(verdict.until) => {}
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

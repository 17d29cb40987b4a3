//! Space on the members' disks: what is refused while there is little, and how the cluster
//! learns of it.
//!
//! ```text
//! free space          what the leader takes
//! >= minimum          everything
//! >= half of it       what frees some: deletes, compactions, revoked leases
//! less                alarms
//! ```
//!
//! A member whose disk is full raises the alarm NOSPACE of itself, through the log, so that
//! every member can tell; it lowers it when there is space again, and nobody has to disarm
//! it. By itself that alarm refuses nothing: one of three with a full disk costs no more than
//! one that is away. Only when the others are no majority does the leader refuse what takes
//! space, instead of leaving clients to wait for an answer that cannot come. An alarm that is
//! raised by hand refuses as etcd's does; see `mvcc::alarm`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::forward::TIMEOUT;
use super::lease::sleep_or_forever;
use super::{Inner, Store};
use crate::command::{Command, Outcome, Proposal};
use crate::kv::{Alarm, KvError};
use crate::mvcc::alarm::{AlarmChange, RaisedAlarm};

/// No event of the kernel tells of free space, so a disk that was full is looked at again.
const RETRY: Duration = Duration::from_secs(1);

impl Inner {
    fn free_bytes(&self) -> u64 {
        self.disk.free_bytes(&self.config.data_dir).unwrap_or(u64::MAX)
    }

    fn is_full(&self) -> bool {
        self.free_bytes() < self.config.min_free_bytes || !self.wal.admit(0)
    }

    /// As the leader: refuses commands for which there is no room.
    pub(super) fn check_room(&self, proposal: &Proposal) -> Result<(), KvError> {
        let (free, minimum) = (self.free_bytes(), self.config.min_free_bytes);
        let fits = self.wal.admit(proposal.0.len() as u64);
        if fits && free >= minimum && !self.majority_is_full() {
            return Ok(());
        }
        if free < minimum || !fits {
            self.core.space_wake.notify_one();
        }
        if fits && is_small(proposal, free >= minimum / 2) {
            return Ok(());
        }
        if fits && free >= minimum {
            return Err(KvError::Alarmed(Alarm::NoSpace));
        }
        Err(KvError::NoSpace { path: self.config.data_dir.display().to_string() })
    }

    /// Whether the voters with space are too few to write anything down.
    fn majority_is_full(&self) -> bool {
        let full: Vec<u64> = {
            let mvcc = self.core.mvcc();
            let full = mvcc.alarms().iter().filter(|raised| raised.alarm == Alarm::NoSpace);
            full.map(|raised| raised.member).collect()
        };
        if full.is_empty() {
            return false;
        }
        let mut voters = self.members();
        voters.retain(|member| !member.is_learner);
        let me = self.identity.member_id;
        let away = voters.iter().filter(|voter| voter.id != me && full.contains(&voter.id)).count();
        voters.len() - away < voters.len() / 2 + 1
    }

    async fn say(&self, change: AlarmChange) -> Result<Option<RaisedAlarm>, KvError> {
        let command = Command::Alarm(change).encode();
        let proposal = Proposal::join(1, [command.as_slice()].into_iter());
        let mut applied = self.write(proposal, Instant::now() + TIMEOUT).await?;
        match applied.answers.pop() {
            Some(Ok(Outcome::Alarm(alarm))) => Ok(alarm),
            Some(Err(error)) => Err(error),
            other => Err(KvError::Internal(format!("an alarm was answered with {other:?}"))),
        }
    }
}

/// Nothing but alarms, or, where there is some room, nothing that takes space.
fn is_small(proposal: &Proposal, some_room: bool) -> bool {
    let small = |command: &Command| match command {
        Command::Alarm(_) => true,
        command => some_room && !command.takes_space(),
    };
    proposal.decode().is_ok_and(|commands| commands.iter().all(small))
}

impl Store {
    /// Of all members. What this one says of its own disk is as of now.
    pub fn alarms(&self) -> Vec<RaisedAlarm> {
        let own = self.inner.own_alarm();
        let mut alarms: Vec<_> = self.inner.core.mvcc().alarms().iter().collect();
        alarms.retain(|raised| *raised != own);
        let known =
            alarms.iter().any(|raised| (raised.alarm, raised.member) == (own.alarm, own.member));
        if !known && self.inner.is_full() {
            alarms.push(own);
            alarms.sort_by_key(|raised| (raised.alarm, raised.member));
        }
        alarms
    }

    /// Raises or lowers an alarm on all members. The alarm that is raised now, or was.
    pub async fn alarm(&self, change: AlarmChange) -> Result<Option<RaisedAlarm>, KvError> {
        self.check_open()?;
        self.inner.say(change).await
    }
}

impl Inner {
    fn own_alarm(&self) -> RaisedAlarm {
        let member = self.identity.member_id;
        RaisedAlarm { member, alarm: Alarm::NoSpace, by_itself: true }
    }

    /// What the cluster does not know yet of this member's disk.
    fn news(&self, full: bool) -> Option<AlarmChange> {
        let own = self.own_alarm();
        let known = self.core.mvcc().alarms().get(own.alarm, own.member);
        let change = |raise| Some(AlarmChange { raise, of: own });
        match known {
            None if full => change(true),
            Some(raised) if raised == own && !full => change(false),
            _ => None,
        }
    }
}

/// Keeps the cluster's knowledge of this member's disk up to date.
pub(super) async fn run(inner: Arc<Inner>) {
    loop {
        let full = inner.is_full();
        let news = inner.news(full);
        let mut unknown = false;
        if let Some(change) = news {
            tracing::warn!(
                path = %inner.config.data_dir.display(),
                "{}",
                if full { "the disk is full" } else { "the disk has space again" }
            );
            if let Err(error) = inner.say(change).await {
                tracing::debug!(%error, "the cluster could not be told of this member's disk yet");
                unknown = true;
            }
        }
        let again = (full || unknown).then_some(RETRY);
        tokio::select! {
            () = inner.core.space_wake.notified(), if again.is_none() => {}
            () = sleep_or_forever(again) => {}
        }
    }
}

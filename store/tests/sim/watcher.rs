//! Watches: one client each, which comes back after every end and goes on where it was.

use std::time::Duration;

use skiff_store::kv::*;

use super::bugs::Bug;
use super::history::{Audit, History, Watched};
use super::network::At;
use super::random::Random;
use super::traffic::{Face, Faces};

pub struct Watcher {
    pub number: usize,
    pub prefix: &'static str,
    pub random: Random,
    pub faces: Faces,
    pub history: History,
    pub bug: Option<Bug>,
}

impl Watcher {
    fn with<T>(&self, change: impl FnOnce(&mut Watched) -> T) -> T {
        change(&mut self.history.record().watches[self.number])
    }

    pub async fn run(mut self) {
        loop {
            let member = self.random.below(self.faces.len() as u64) as At;
            if let Some(face) = self.faces.get(member) {
                self.follow(face).await;
            }
            let pause = self.random.between(1, 100);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// One stream, until it ends or is given up.
    async fn follow(&mut self, face: Face) {
        let next = self.with(|watched| watched.next);
        let begins = self.with(|watched| watched.reconnections == 0);
        let skip = i64::from(self.bug == Some(Bug::WatchSkipsOne) && !begins);
        let request = WatchRequest {
            range: KeyRange::Prefix(self.prefix.into()),
            start_revision: next + skip,
            prev_kv: self.random.percent(30),
        };
        let store = face.store.clone();
        let started = face.handle.spawn(async move { store.watch_with_handle(request).await });
        let Ok(Ok(Ok((mut watch, progress)))) =
            tokio::time::timeout(Duration::from_secs(1), started).await
        else {
            return;
        };
        self.with(|watched| watched.reconnections += 1);
        drop(face);
        let stays_ms = self.random.between(100, 4000);
        let deadline = tokio::time::Instant::now() + Duration::from_millis(stays_ms);
        loop {
            if self.random.percent(5) {
                // Slow readers are cut off, and must lose nothing by it.
                let pause = self.random.between(1, 300);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            if self.random.percent(10) {
                progress.request_progress();
            }
            match tokio::time::timeout_at(deadline, watch.messages.recv()).await {
                Ok(Some(message)) => {
                    if !self.take(message) {
                        return;
                    }
                }
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Whether the stream goes on.
    fn take(&self, message: WatchMessage) -> bool {
        self.with(|watched| match message {
            WatchMessage::Events { revision, events } => {
                for event in &events {
                    if event.kv.mod_revision < watched.next || event.kv.mod_revision > revision {
                        watched.faults.push(format!(
                            "an event of revision {} in a batch up to {revision}, when {} is next",
                            event.kv.mod_revision, watched.next
                        ));
                    }
                }
                watched.events.extend(events);
                watched.next = watched.next.max(revision + 1);
                true
            }
            WatchMessage::Progress { revision } => {
                watched.next = watched.next.max(revision + 1);
                true
            }
            WatchMessage::Compacted { compacted } => {
                if compacted <= watched.next {
                    watched.faults.push(format!(
                        "revision {} is said to be compacted, yet the oldest kept is {compacted}",
                        watched.next
                    ));
                }
                watched.gaps.push((watched.next, compacted));
                watched.next = watched.next.max(compacted);
                false
            }
            WatchMessage::TooSlow => false,
        })
    }
}

/// Follows all that a member applies, from within; the ground that all else is held against.
pub async fn audit(face: Face, history: History, at: At) {
    loop {
        let next = history.record().audits[at].next;
        let request = WatchRequest {
            range: KeyRange::From(bytes::Bytes::from_static(b"\0")),
            start_revision: next,
            prev_kv: false,
        };
        let Ok(mut watch) = face.store.watch(request).await else { return };
        while let Some(message) = watch.messages.recv().await {
            let mut record = history.record();
            let audit: &mut Audit = &mut record.audits[at];
            match message {
                WatchMessage::Events { revision, events } => {
                    audit.next = audit.next.max(revision + 1);
                    audit.events.extend(events.iter().cloned());
                    let now_ms = record.now_ms;
                    for event in events {
                        record.seen_ms.entry(event.kv.mod_revision).or_insert(now_ms);
                    }
                }
                WatchMessage::Progress { .. } | WatchMessage::TooSlow => {}
                WatchMessage::Compacted { compacted } => audit.next = audit.next.max(compacted),
            }
        }
    }
}

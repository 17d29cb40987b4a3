//! Watches: history first, then what happens.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Inner, Store};
use crate::core::QueueSink;
use crate::engine::EngineError;
use crate::kv::*;
use crate::mvcc::Change;
use crate::mvcc::record::Record;
use crate::mvcc::revision::Rev;
use crate::mvcc::watch::{WatchId, event};

/// To ask a watch for its progress. Empty while it is still catching up.
#[derive(Clone)]
pub struct WatchHandle {
    inner: Arc<Inner>,
    id: Arc<std::sync::OnceLock<WatchId>>,
}

impl WatchHandle {
    /// The watch gets a [`WatchMessage::Progress`], in order with its events; not before it
    /// has caught up.
    pub fn request_progress(&self) {
        if let Some(id) = self.id.get() {
            self.inner.core.hub().progress(*id);
        }
    }
}

impl Store {
    /// As [`Kv::watch`], with a handle to ask for progress.
    pub async fn watch_with_handle(
        &self,
        request: WatchRequest,
    ) -> Result<(Watch, WatchHandle), KvError> {
        request.range.check()?;
        self.check_open()?;
        let inner = &self.inner;
        let (queue, messages) = mpsc::channel(inner.config.watch_queue_messages + 1);
        let last = queue.clone().reserve_owned().await.map_err(|_| KvError::Stopped)?;
        let id = Arc::new(std::sync::OnceLock::new());
        let handle = WatchHandle { inner: inner.clone(), id: id.clone() };
        let mut feed = Feed { next: request.start_revision, request, queue, last: Some(last), id };
        let revision = inner.core.hub().notified();
        if feed.next == 0 {
            feed.next = revision + 1;
        }
        if !feed.join(inner) {
            tokio::spawn(feed.catch_up(inner.clone()));
        }
        Ok((Watch { revision, messages }, handle))
    }
}

/// A watch on its way to being up to date.
struct Feed {
    request: WatchRequest,
    next: Revision,
    queue: mpsc::Sender<WatchMessage>,
    last: Option<mpsc::OwnedPermit<WatchMessage>>,
    id: Arc<std::sync::OnceLock<WatchId>>,
}

/// Records looked at in one portion of history.
const PORTION: usize = 1024;

enum Portion {
    /// Everything up to the revision.
    Events {
        upto: Revision,
        events: Vec<Event>,
    },
    Compacted(Revision),
}

impl Feed {
    /// Joins those who are told as it happens, if nothing before is missing.
    fn join(&mut self, inner: &Inner) -> bool {
        let mut hub = inner.core.hub();
        if self.next <= hub.notified() {
            return false;
        }
        if let Some(last) = self.last.take() {
            let sink = QueueSink::new(self.queue.clone(), last);
            let id = hub.add(self.request.range.clone(), self.next, self.request.prev_kv, sink);
            let _ = self.id.set(id);
        }
        true
    }

    /// Reads history in portions. The queue's own bound slows it to what is taken.
    async fn catch_up(mut self, inner: Arc<Inner>) {
        loop {
            match self.portion(&inner) {
                Ok(Portion::Events { upto, events }) => {
                    if !events.is_empty() {
                        let message = WatchMessage::Events { revision: upto, events };
                        if self.queue.send(message).await.is_err() {
                            return;
                        }
                    }
                    self.next = upto + 1;
                }
                Ok(Portion::Compacted(compacted)) => {
                    return self.end(WatchMessage::Compacted { compacted });
                }
                Err(error) => {
                    tracing::error!(%error, "a watch cannot read its history");
                    return self.end(WatchMessage::TooSlow);
                }
            }
            if self.join(&inner) {
                return;
            }
        }
    }

    fn end(&mut self, message: WatchMessage) {
        if let Some(last) = self.last.take() {
            last.send(message);
        }
    }

    /// The next events of history. Whole revisions only.
    fn portion(&self, inner: &Inner) -> Result<Portion, EngineError> {
        let core = &inner.core;
        // Only what the watches have been told of is history; the rest they will be told.
        let newest = core.hub().notified();
        let from = Rev::first_of(self.next);
        let wanted = |record: &Record| self.request.range.contains(&record.key);
        let (boundary, memory) = {
            let mvcc = core.mvcc();
            let records = mvcc.recent().from(from).take_while(|(rev, _)| rev.main <= newest);
            let memory: Vec<_> = records.filter(|(_, record)| wanted(record)).cloned().collect();
            (mvcc.recent().first(), memory)
        };
        let mut changes = Vec::new();
        let mut upto = newest;
        if boundary.is_none_or(|boundary| from < boundary) {
            // Older than what is in memory: the engine has it, up to there.
            let mut seen = 0;
            let mut last = from;
            core.engine.scan(from, Rev::new(newest, u32::MAX), &mut |rev, record| {
                if boundary.is_some_and(|boundary| rev >= boundary) {
                    return false;
                }
                if seen >= PORTION && rev.main != last.main {
                    upto = last.main;
                    return false;
                }
                seen += 1;
                last = rev;
                if wanted(&record) {
                    changes.push((rev, record));
                }
                true
            })?;
        }
        if upto == newest {
            changes.extend(memory);
        }
        let events =
            changes.into_iter().map(|(rev, record)| self.to_event(inner, rev, record)).collect();
        // Asked last: a compaction in between may have taken what should have been here.
        let compacted = core.mvcc().compacted();
        if self.next < compacted {
            return Ok(Portion::Compacted(compacted));
        }
        Ok(Portion::Events { upto, events })
    }

    fn to_event(&self, inner: &Inner, rev: Rev, record: Record) -> Event {
        let previous =
            if self.request.prev_kv { inner.core.mvcc().before(rev, &record) } else { None };
        let change = Change { rev, record, previous };
        let prev = inner.core.replaced(&change);
        event(&change, prev)
    }
}

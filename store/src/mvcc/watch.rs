//! Watches: who hears of which change.
//!
//! Watches of the same range form a group, and its events are put together once. This part
//! handles those that are up to date; catching up on history happens outside, before a
//! watch is added here. Who does not take its messages is cut off: nobody waits for it.

use std::collections::HashMap;

use bytes::Bytes;

use super::Change;
use crate::kv::{Event, EventType, KeyRange, KeyValue, Revision, WatchMessage};

pub type WatchId = u64;

/// Where a watch's messages go.
pub trait Sink {
    fn offer(&mut self, message: WatchMessage) -> Offer;
    /// The last message; there is room for it in any case.
    fn close(&mut self, message: WatchMessage);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    Taken,
    Full,
    /// Nobody listens any more.
    Gone,
}

#[derive(Debug)]
struct Watcher<S> {
    range: KeyRange,
    prev_kv: bool,
    /// Changes before it have been delivered, or are not wanted.
    next: Revision,
    sink: S,
}

#[derive(Debug)]
pub struct WatchGroups<S> {
    watchers: HashMap<WatchId, Watcher<S>>,
    /// Watches of one key, which are the most.
    by_key: HashMap<Bytes, Vec<WatchId>>,
    by_range: Vec<(KeyRange, Vec<WatchId>)>,
    next_id: WatchId,
    /// All changes up to here have been handed out.
    notified: Revision,
    /// Watchers that were cut off because their queue was full.
    pub too_slow: u64,
    sweep_at: usize,
}

/// Sweeping dead watches is not worth it below this many.
const SWEEP_FLOOR: usize = 64;

impl<S: Sink> WatchGroups<S> {
    pub fn new(revision: Revision) -> Self {
        Self {
            watchers: HashMap::new(),
            by_key: HashMap::new(),
            by_range: Vec::new(),
            next_id: 1,
            notified: revision,
            too_slow: 0,
            sweep_at: SWEEP_FLOOR,
        }
    }

    pub fn notified(&self) -> Revision {
        self.notified
    }

    pub fn len(&self) -> usize {
        self.watchers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// Adds a watch that has everything before `next`.
    pub fn add(&mut self, range: KeyRange, next: Revision, prev_kv: bool, sink: S) -> WatchId {
        if self.watchers.len() >= self.sweep_at {
            self.sweep();
        }
        let id = self.next_id;
        self.next_id += 1;
        match &range {
            KeyRange::One(key) => self.by_key.entry(key.clone()).or_default().push(id),
            range => match self.by_range.iter_mut().find(|(known, _)| known == range) {
                Some((_, ids)) => ids.push(id),
                None => self.by_range.push((range.clone(), vec![id])),
            },
        }
        self.watchers.insert(id, Watcher { range, prev_kv, next, sink });
        id
    }

    pub fn remove(&mut self, id: WatchId) {
        let Some(watcher) = self.watchers.remove(&id) else { return };
        match &watcher.range {
            KeyRange::One(key) => {
                if let Some(ids) = self.by_key.get_mut(key) {
                    ids.retain(|other| *other != id);
                    if ids.is_empty() {
                        self.by_key.remove(key);
                    }
                }
            }
            range => {
                for (known, ids) in &mut self.by_range {
                    if known == range {
                        ids.retain(|other| *other != id);
                    }
                }
                self.by_range.retain(|(_, ids)| !ids.is_empty());
            }
        }
    }

    /// Dead watches of quiet keys are found only by asking; done when their number doubles.
    fn sweep(&mut self) {
        let ids: Vec<_> = self.watchers.keys().copied().collect();
        for id in ids {
            // An empty batch takes no place in the queue: sinks only report who is gone.
            if let Some(watcher) = self.watchers.get_mut(&id)
                && watcher.sink.offer(WatchMessage::Events { revision: 0, events: vec![] })
                    == Offer::Gone
            {
                self.remove(id);
            }
        }
        self.sweep_at = SWEEP_FLOOR.max(self.watchers.len() * 2);
    }

    /// Hands out the changes of some transactions, all up to `revision`.
    /// `prev` finds what a change replaced.
    pub fn notify(
        &mut self,
        revision: Revision,
        changes: &[Change],
        prev: &mut dyn FnMut(&Change) -> Option<KeyValue>,
    ) {
        self.notified = revision;
        if changes.is_empty() || self.watchers.is_empty() {
            return;
        }
        let mut lost = Vec::new();
        if !self.by_key.is_empty() {
            let mut by_key: HashMap<&Bytes, Vec<&Change>> = HashMap::new();
            for change in changes {
                if self.by_key.contains_key(&change.record.key) {
                    by_key.entry(&change.record.key).or_default().push(change);
                }
            }
            for (key, changes) in by_key {
                let ids = &self.by_key[key];
                deliver(&mut self.watchers, ids, revision, &changes, prev, &mut lost);
            }
        }
        for (range, ids) in &self.by_range {
            let hits: Vec<_> = changes.iter().filter(|c| range.contains(&c.record.key)).collect();
            if !hits.is_empty() {
                deliver(&mut self.watchers, ids, revision, &hits, prev, &mut lost);
            }
        }
        for (id, offer) in lost {
            if offer == Offer::Full {
                self.too_slow += 1;
                if let Some(watcher) = self.watchers.get_mut(&id) {
                    watcher.sink.close(WatchMessage::TooSlow);
                }
            }
            self.remove(id);
        }
    }

    /// Cuts everybody off: changes were missed up to `revision`.
    pub fn restart(&mut self, revision: Revision) {
        for watcher in self.watchers.values_mut() {
            watcher.sink.close(WatchMessage::TooSlow);
        }
        self.watchers.clear();
        self.by_key.clear();
        self.by_range.clear();
        self.notified = revision;
    }

    /// Tells one watch, or all, that everything up to now has been delivered.
    pub fn progress(&mut self, only: Option<WatchId>) {
        let revision = self.notified;
        for (id, watcher) in &mut self.watchers {
            if only.is_none_or(|only| only == *id) && watcher.next <= revision + 1 {
                // A full queue holds events that say the same.
                let _ = watcher.sink.offer(WatchMessage::Progress { revision });
            }
        }
    }
}

/// Gives every watch of a group the same events; two lists, with and without `prev`.
fn deliver<S: Sink>(
    watchers: &mut HashMap<WatchId, Watcher<S>>,
    ids: &[WatchId],
    revision: Revision,
    changes: &[&Change],
    prev: &mut dyn FnMut(&Change) -> Option<KeyValue>,
    lost: &mut Vec<(WatchId, Offer)>,
) {
    let mut plain: Option<Vec<Event>> = None;
    let mut with_prev: Option<Vec<Event>> = None;
    for id in ids {
        let Some(watcher) = watchers.get_mut(id) else { continue };
        let events = if watcher.prev_kv {
            with_prev.get_or_insert_with(|| changes.iter().map(|c| event(c, prev(c))).collect())
        } else {
            plain.get_or_insert_with(|| changes.iter().map(|c| event(c, None)).collect())
        };
        let events = if watcher.next <= changes[0].rev.main {
            events.clone()
        } else {
            let wanted = |e: &&Event| e.kv.mod_revision >= watcher.next;
            events.iter().filter(wanted).cloned().collect()
        };
        if events.is_empty() {
            continue;
        }
        match watcher.sink.offer(WatchMessage::Events { revision, events }) {
            Offer::Taken => watcher.next = watcher.next.max(revision + 1),
            offer => lost.push((*id, offer)),
        }
    }
}

/// A change as a watch reports it.
pub fn event(change: &Change, prev: Option<KeyValue>) -> Event {
    let kv = change.record.to_key_value(change.rev);
    let kind = if change.record.is_tombstone() { EventType::Delete } else { EventType::Put };
    Event { kind, kv, prev }
}

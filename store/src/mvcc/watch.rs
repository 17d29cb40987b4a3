//! Watches: who hears of which change.
//!
//! Watches of the same range form a group, and its events are put together once. This part
//! handles those that are up to date; catching up on history happens outside, before a
//! watch is added here. Who does not take its messages is cut off: nobody waits for it.

use std::collections::{BTreeMap, HashMap};

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
    prev_kv: bool,
    /// Changes before it have been delivered, or are not wanted.
    next: Revision,
    sink: S,
}

/// Watches of the same range.
type Group<S> = BTreeMap<WatchId, Watcher<S>>;

#[derive(Debug)]
pub struct WatchGroups<S> {
    /// Where each watch is.
    ranges: HashMap<WatchId, KeyRange>,
    /// Watches of one key, which are the most.
    by_key: HashMap<Bytes, Group<S>>,
    by_range: HashMap<KeyRange, Group<S>>,
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
            ranges: HashMap::new(),
            by_key: HashMap::new(),
            by_range: HashMap::new(),
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
        self.ranges.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Adds a watch that has everything before `next`.
    pub fn add(&mut self, range: KeyRange, next: Revision, prev_kv: bool, sink: S) -> WatchId {
        if self.len() >= self.sweep_at {
            self.sweep();
        }
        let id = self.next_id;
        self.next_id += 1;
        let group = match &range {
            KeyRange::One(key) => self.by_key.entry(key.clone()).or_default(),
            range => self.by_range.entry(range.clone()).or_default(),
        };
        group.insert(id, Watcher { prev_kv, next, sink });
        self.ranges.insert(id, range);
        id
    }

    pub fn remove(&mut self, id: WatchId) {
        let Some(range) = self.ranges.remove(&id) else { return };
        let Some(group) = self.group(&range) else { return };
        group.remove(&id);
        if group.is_empty() {
            match &range {
                KeyRange::One(key) => drop(self.by_key.remove(key)),
                range => drop(self.by_range.remove(range)),
            }
        }
    }

    fn group(&mut self, range: &KeyRange) -> Option<&mut Group<S>> {
        match range {
            KeyRange::One(key) => self.by_key.get_mut(key),
            range => self.by_range.get_mut(range),
        }
    }

    fn groups(&mut self) -> impl Iterator<Item = &mut Group<S>> {
        self.by_key.values_mut().chain(self.by_range.values_mut())
    }

    /// Dead watches of quiet keys are found only by asking; done when their number doubles.
    fn sweep(&mut self) {
        let mut gone = Vec::new();
        for (id, watcher) in self.groups().flatten() {
            // An empty batch takes no place in the queue: sinks only report who is gone.
            let nothing = WatchMessage::Events { revision: 0, events: vec![] };
            if watcher.sink.offer(nothing) == Offer::Gone {
                gone.push(*id);
            }
        }
        for id in gone {
            self.remove(id);
        }
        self.sweep_at = SWEEP_FLOOR.max(self.len() * 2);
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
        if changes.is_empty() || self.is_empty() {
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
                if let Some(group) = self.by_key.get_mut(key) {
                    deliver(group, revision, &changes, prev, &mut lost);
                }
            }
        }
        for (range, group) in &mut self.by_range {
            let hits: Vec<_> = changes.iter().filter(|c| range.contains(&c.record.key)).collect();
            if !hits.is_empty() {
                deliver(group, revision, &hits, prev, &mut lost);
            }
        }
        for (id, offer) in lost {
            if offer == Offer::Full {
                self.too_slow += 1;
                if let Some(watcher) = self.watcher(id) {
                    watcher.sink.close(WatchMessage::TooSlow);
                }
            }
            self.remove(id);
        }
    }

    fn watcher(&mut self, id: WatchId) -> Option<&mut Watcher<S>> {
        let range = self.ranges.get(&id)?.clone();
        self.group(&range)?.get_mut(&id)
    }

    /// Cuts everybody off: changes were missed up to `revision`.
    pub fn restart(&mut self, revision: Revision) {
        for watcher in self.groups().flat_map(BTreeMap::values_mut) {
            watcher.sink.close(WatchMessage::TooSlow);
        }
        self.ranges.clear();
        self.by_key.clear();
        self.by_range.clear();
        self.notified = revision;
    }

    /// Tells a watch that everything up to now has been delivered.
    pub fn progress(&mut self, id: WatchId) {
        let revision = self.notified;
        if let Some(watcher) = self.watcher(id)
            && watcher.next <= revision + 1
        {
            // A full queue holds events that say the same.
            let _ = watcher.sink.offer(WatchMessage::Progress { revision });
        }
    }
}

/// Gives every watch of a group the same events; two lists, with and without `prev`.
fn deliver<S: Sink>(
    group: &mut Group<S>,
    revision: Revision,
    changes: &[&Change],
    prev: &mut dyn FnMut(&Change) -> Option<KeyValue>,
    lost: &mut Vec<(WatchId, Offer)>,
) {
    let mut plain: Option<Vec<Event>> = None;
    let mut with_prev: Option<Vec<Event>> = None;
    for (id, watcher) in group {
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

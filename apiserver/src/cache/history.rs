//! The recent changes of one resource, for watches that begin in the past. Bounded in
//! bytes; what a watch asks for beyond its start is gone (`Expired`).

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use skiff_client::WatchEvent;
use skiff_proto::Object;

use super::entry::Entry;
use super::filter::Filter;

/// One change: `old` is what was there before, `new` what is there now.
#[derive(Debug)]
pub struct Change {
    pub revision: i64,
    pub old: Option<Arc<Entry>>,
    pub new: Option<Arc<Entry>>,
    /// `old` under this change's revision, made when the first watcher needs it.
    gone: OnceLock<Arc<Object>>,
}

impl Change {
    pub fn new(revision: i64, old: Option<Arc<Entry>>, new: Option<Arc<Entry>>) -> Self {
        Self { revision, old, new, gone: OnceLock::new() }
    }

    /// What a watcher with this filter sees: an object that steps into the selection is
    /// added, one that steps out is deleted.
    pub fn seen_by(&self, filter: &Filter) -> Option<WatchEvent> {
        let old = self.old.as_ref().filter(|e| filter.matches(e));
        let new = self.new.as_ref().filter(|e| filter.matches(e));
        match (old, new) {
            (None, None) => None,
            (None, Some(new)) => Some(WatchEvent::Added(new.object.clone())),
            (Some(_), Some(new)) => Some(WatchEvent::Modified(new.object.clone())),
            (Some(old), None) => {
                let gone = self.gone.get_or_init(|| old.object_at(self.revision));
                Some(WatchEvent::Deleted(gone.clone()))
            }
        }
    }

    /// Roughly what it keeps in memory. `old` is counted where it was `new`.
    fn bytes(&self) -> usize {
        /// Index, map nodes and counters of one object.
        const OVERHEAD: usize = 512;
        self.new.as_ref().or(self.old.as_ref()).map_or(0, |e| e.object.json.len()) + OVERHEAD
    }
}

/// The changes after `floor`, oldest first.
#[derive(Debug)]
pub struct History {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    limit_bytes: usize,
    /// Everything after this revision is known.
    floor: i64,
}

impl History {
    pub fn new(floor: i64, limit_bytes: usize) -> Self {
        Self { changes: VecDeque::new(), bytes: 0, limit_bytes, floor }
    }

    pub fn push(&mut self, change: Arc<Change>) {
        self.bytes += change.bytes();
        self.changes.push_back(change);
        while self.bytes > self.limit_bytes
            && let Some(oldest) = self.changes.pop_front()
        {
            self.bytes -= oldest.bytes();
            self.floor = oldest.revision;
        }
    }

    pub fn floor(&self) -> i64 {
        self.floor
    }

    /// The changes after `revision`; `None` when some of them are gone. A revision that was
    /// dropped in part counts as gone, so a transaction is never seen halfway.
    pub fn after(&self, revision: i64) -> Option<Vec<Arc<Change>>> {
        if revision < self.floor {
            return None;
        }
        let start = self.changes.partition_point(|c| c.revision <= revision);
        Some(self.changes.range(start..).cloned().collect())
    }
}

//! The watch cache of one resource: every object, in the store's order, the recent changes,
//! and the watchers.
//!
//! Only the hub writes, one revision after the other. A reader takes the lock, so it sees the
//! state between two revisions:
//!
//! ```text
//! hub's progress   ... 40 ... 43 ...      everything up to it is in every cache
//! this cache           40   42            42 changed this resource, 41 and 43 another
//! a list at that time carries max(progress, last change here): 43, or 42 while 43 is not yet known
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use skiff_proto::Status;

use super::entry::Entry;
use super::filter::Filter;
use super::history::{Change, History};
use super::watchers::{Backlog, Subscription, Watchers};
use crate::registry::Kind;
use crate::storage::key;

/// What the store said about one path.
#[derive(Debug)]
pub struct Update {
    pub path: Box<str>,
    pub revision: i64,
    /// `None`: removed.
    pub entry: Option<Arc<Entry>>,
}

pub struct ResourceCache {
    pub kind: &'static Kind,
    /// `/registry/pods/`
    pub prefix: String,
    limits: Limits,
    state: RwLock<State>,
    /// The server stops: watches end without a complaint.
    stopping: AtomicBool,
}

/// What one resource's cache may hold beyond the objects themselves.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub history_bytes: usize,
    pub queue_events: usize,
}

struct State {
    objects: BTreeMap<Box<str>, Arc<Entry>>,
    /// The revision of the first list.
    filled_at: i64,
    /// The revision of the first list or of the last change since.
    revision: i64,
    history: History,
    watchers: Watchers,
    /// What came in before the first list did; `None` once it is there.
    early: Option<Vec<Update>>,
}

/// One page of a list.
#[derive(Debug, Default)]
pub struct Page {
    pub entries: Vec<Arc<Entry>>,
    pub revision: i64,
    /// The last path looked at, when there is more.
    pub more_after: Option<Box<str>>,
    /// Of a list that only the namespace narrows.
    pub remaining: Option<i64>,
}

impl ResourceCache {
    pub fn new(kind: &'static Kind, limits: Limits) -> Self {
        let state = State {
            objects: BTreeMap::new(),
            filled_at: 0,
            revision: 0,
            history: History::new(0, limits.history_bytes),
            watchers: Watchers::default(),
            early: Some(Vec::new()),
        };
        Self {
            kind,
            prefix: key::prefix(&kind.resource),
            limits,
            state: RwLock::new(state),
            stopping: AtomicBool::new(false),
        }
    }

    /// The first list. Changes that came in meanwhile follow.
    pub fn fill(&self, objects: Vec<(Box<str>, Arc<Entry>)>, revision: i64) {
        let mut state = self.write();
        state.objects = objects.into_iter().collect();
        (state.filled_at, state.revision) = (revision, revision);
        state.history = History::new(revision, self.limits.history_bytes);
        if let Some(early) = state.early.take() {
            state.apply(early);
        }
    }

    /// The hub's entry point: changes of this resource in the order of their revisions.
    pub fn apply(&self, updates: Vec<Update>) {
        let mut state = self.write();
        match &mut state.early {
            Some(early) => early.extend(updates),
            None => state.apply(updates),
        }
    }

    pub fn get(&self, path: &str) -> Option<Arc<Entry>> {
        self.read().objects.get(path).cloned()
    }

    /// `progress`: the hub's, read before.
    pub fn list(&self, filter: &Filter, after: Option<&str>, limit: usize, progress: i64) -> Page {
        self.read().list(filter, after, limit, progress)
    }

    /// The page as of `revision`, if nothing of this resource changed since.
    pub fn list_at(
        &self,
        filter: &Filter,
        after: Option<&str>,
        limit: usize,
        revision: i64,
    ) -> Option<Page> {
        let state = self.read();
        (state.revision <= revision).then(|| state.list(filter, after, limit, revision))
    }

    /// Calls `visit` for every object of a namespace, or of all.
    pub fn visit(&self, namespace: &str, mut visit: impl FnMut(&Arc<Entry>)) {
        let state = self.read();
        for (_, entry) in state.range(namespace, None) {
            visit(entry);
        }
    }

    /// A watch of the changes after `from`, or with every object that exists first.
    pub fn subscribe(
        self: &Arc<Self>,
        filter: Filter,
        from: Option<i64>,
        bookmarks: bool,
        progress: i64,
    ) -> Result<Subscription, Status> {
        let mut state = self.write();
        let backlog = match from {
            None => {
                let page = state.list(&filter, None, usize::MAX, progress);
                let entries = VecDeque::from(page.entries);
                Backlog::State { entries, bookmark: bookmarks.then_some(page.revision) }
            }
            Some(from) => match state.history.after(from) {
                Some(changes) => Backlog::Changes(changes.into()),
                None => {
                    let floor = state.history.floor();
                    let message = format!("too old resource version: {from} ({floor})");
                    return Err(Status::expired(message));
                }
            },
        };
        let (id, queue) = state.watchers.add(filter.clone(), bookmarks, self.limits.queue_events);
        Ok(Subscription { cache: self.clone(), id, filter, backlog, queue, done: false })
    }

    pub fn unsubscribe(&self, id: u64) {
        self.write().watchers.remove(id);
    }

    pub fn watchers(&self) -> usize {
        self.read().watchers.count()
    }

    pub fn len(&self) -> usize {
        self.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends all watches: `stopping` without an error, else telling them to list again.
    pub fn close(&self, stopping: bool) {
        self.stopping.store(stopping, Ordering::Relaxed);
        self.write().watchers.clear();
    }

    /// Why a watch that did not end itself has ended.
    pub fn cut_off_reason(&self) -> Option<Status> {
        let why = "The resourceVersion for the provided watch is too old.";
        (!self.stopping.load(Ordering::Relaxed)).then(|| Status::expired(why))
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn apply(&mut self, updates: Vec<Update>) {
        for Update { path, revision, entry } in updates {
            if revision <= self.filled_at || revision < self.revision {
                // Already in the first list, or told twice.
                continue;
            }
            self.revision = revision;
            let old = match &entry {
                Some(entry) => self.objects.insert(path, entry.clone()),
                None => self.objects.remove(&path),
            };
            if old.is_none() && entry.is_none() {
                continue;
            }
            let change = Arc::new(Change::new(revision, old, entry));
            self.watchers.send(&change);
            self.history.push(change);
        }
        self.watchers.bookmark(self.revision, Instant::now());
    }

    fn range(
        &self,
        namespace: &str,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&Box<str>, &Arc<Entry>)> {
        let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let start = match after {
            Some(after) if after >= prefix.as_str() => Bound::Excluded(after),
            _ => Bound::Included(prefix.as_str()),
        };
        let range = self.objects.range::<str, _>((start, Bound::Unbounded));
        range.take_while(move |(path, _)| path.starts_with(prefix.as_str()))
    }

    fn list(&self, filter: &Filter, after: Option<&str>, limit: usize, progress: i64) -> Page {
        let mut page = Page { revision: self.revision.max(progress), ..Page::default() };
        if let Some(path) = filter.path() {
            let found = self.objects.get(path).filter(|e| filter.matches(e));
            page.entries.extend(found.cloned());
            return page;
        }
        let mut range = self.range(filter.namespace(), after);
        while let Some((path, entry)) = range.next() {
            if !filter.is_plain() && !filter.matches(entry) {
                continue;
            }
            page.entries.push(entry.clone());
            if page.entries.len() == limit {
                // Upstream counts what remains only where no selector hides some of it.
                let remaining = range.by_ref().count();
                page.more_after = (remaining > 0).then(|| path.clone());
                page.remaining = (remaining > 0 && filter.is_plain()).then_some(remaining as i64);
                break;
            }
        }
        page
    }
}

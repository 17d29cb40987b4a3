//! Who watches one resource, and what each of them is sent. A watcher has a bounded queue;
//! one that does not empty it is cut off and must list again, so that it cannot hold up or
//! grow the others.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::Stream;
use skiff_client::WatchEvent;
use skiff_proto::Status;
use tokio::sync::mpsc;

use super::entry::Entry;
use super::filter::Filter;
use super::history::Change;
use super::resource::ResourceCache;

/// Events waiting for one watcher. A burst of a thousand pods and their first updates fits;
/// they are shared objects, so a full queue costs some 100 KiB beside them.
pub const QUEUE_EVENTS: usize = 4096;
/// A watcher is told how far history has come at most this often, and only when something
/// of its resource changed.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// The watchers of one resource.
#[derive(Debug)]
pub struct Watchers {
    slots: HashMap<u64, Slot>,
    next: u64,
    bookmarked: Instant,
}

#[derive(Debug)]
struct Slot {
    filter: Filter,
    bookmarks: bool,
    queue: mpsc::Sender<WatchEvent>,
}

impl Default for Watchers {
    fn default() -> Self {
        Self { slots: HashMap::new(), next: 0, bookmarked: Instant::now() }
    }
}

impl Watchers {
    pub fn add(
        &mut self,
        filter: Filter,
        bookmarks: bool,
        queue_events: usize,
    ) -> (u64, mpsc::Receiver<WatchEvent>) {
        let (queue, receiver) = mpsc::channel(queue_events);
        self.next += 1;
        self.slots.insert(self.next, Slot { filter, bookmarks, queue });
        (self.next, receiver)
    }

    pub fn remove(&mut self, id: u64) {
        self.slots.remove(&id);
    }

    pub fn count(&self) -> usize {
        self.slots.len()
    }

    /// Sends `change` to those who see it. A full queue cuts its watcher off.
    pub fn send(&mut self, change: &Change) {
        self.slots.retain(|_, slot| match change.seen_by(&slot.filter) {
            Some(event) => slot.queue.try_send(event).is_ok(),
            None => true,
        });
    }

    /// Tells everybody how far history is, if that was long ago.
    pub fn bookmark(&mut self, revision: i64, now: Instant) {
        if now.duration_since(self.bookmarked) < BOOKMARK_INTERVAL {
            return;
        }
        self.bookmarked = now;
        self.slots.retain(|_, slot| {
            let bookmark = || WatchEvent::Bookmark { resource_version: revision.to_string() };
            !slot.bookmarks || slot.queue.try_send(bookmark()).is_ok()
        });
    }

    /// Cuts everybody off.
    pub fn clear(&mut self) {
        self.slots.clear();
    }
}

/// What a watch delivers before the live events.
#[derive(Debug)]
pub enum Backlog {
    /// Every object that exists, then a bookmark of the state.
    State { entries: VecDeque<Arc<Entry>>, bookmark: Option<i64> },
    /// Changes since the version that was asked for.
    Changes(VecDeque<Arc<Change>>),
}

/// One watch as a stream. Dropping it ends the watch.
pub struct Subscription {
    pub(super) cache: Arc<ResourceCache>,
    pub(super) id: u64,
    pub(super) filter: Filter,
    pub(super) backlog: Backlog,
    pub(super) queue: mpsc::Receiver<WatchEvent>,
    pub(super) done: bool,
}

impl Subscription {
    fn take_backlog(&mut self) -> Option<WatchEvent> {
        match &mut self.backlog {
            Backlog::State { entries, bookmark } => match entries.pop_front() {
                Some(entry) => Some(WatchEvent::Added(entry.object.clone())),
                None => bookmark
                    .take()
                    .map(|at| WatchEvent::Bookmark { resource_version: at.to_string() }),
            },
            Backlog::Changes(changes) => loop {
                if let Some(event) = changes.pop_front()?.seen_by(&self.filter) {
                    return Some(event);
                }
            },
        }
    }
}

impl Stream for Subscription {
    type Item = Result<WatchEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.done {
            return Poll::Ready(None);
        }
        if let Some(event) = this.take_backlog() {
            return Poll::Ready(Some(Ok(event)));
        }
        match this.queue.poll_recv(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(event)) => Poll::Ready(Some(Ok(event))),
            Poll::Ready(None) => {
                this.done = true;
                Poll::Ready(this.cache.cut_off_reason().map(Err))
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.cache.unsubscribe(self.id);
    }
}

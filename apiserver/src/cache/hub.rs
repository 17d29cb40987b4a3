//! Feeds the watch caches: one watch on the whole store, taken apart by resource.
//!
//! One watch for all, because then every write of the store, whoever made it, moves one
//! `progress`, and "as fresh as the newest write" is one comparison of revisions instead of a
//! question per resource. A resource's cache is made when it is first asked for, and kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use bytes::Bytes;
use skiff_kit::backoff::Backoff;
use skiff_proto::Status;
use skiff_store::kv::{
    Event, EventType, KeyRange, Kv, KvError, RangeRequest, Watch, WatchMessage, WatchRequest,
};
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;

use super::entry::{Entry, Prepared};
use super::resource::{Limits, ResourceCache, Update};
use crate::registry::Kind;
use crate::storage::{error, key};

/// How long a reader waits for a revision that the store has but the caches have not.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(3);
/// Objects read at once when a cache is filled: bounds one answer of the store.
const FILL_PAGE: i64 = 2000;

pub struct Hub {
    kv: Arc<dyn Kv>,
    limits: Limits,
    caches: RwLock<HashMap<String, Arc<Slot>>>,
    progress: watch::Sender<i64>,
    inflight: Mutex<HashMap<Bytes, Arc<Prepared>>>,
}

struct Slot {
    cache: Arc<ResourceCache>,
    filled: OnceCell<()>,
}

/// Takes a prepared object out of the hub's hands when the write is over.
pub struct InFlight<'a> {
    hub: &'a Hub,
    key: Bytes,
    prepared: Arc<Prepared>,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut inflight = self.hub.inflight.lock().unwrap_or_else(|p| p.into_inner());
        if inflight.get(&self.key).is_some_and(|p| Arc::ptr_eq(p, &self.prepared)) {
            inflight.remove(&self.key);
        }
    }
}

impl Hub {
    /// Begins to watch the store; runs until `shutdown`.
    pub async fn start(
        kv: Arc<dyn Kv>,
        limits: Limits,
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>, KvError> {
        let revision = current_revision(&*kv).await?;
        let watch = open(&*kv, revision + 1).await?;
        let hub = Arc::new(Self {
            kv,
            limits,
            caches: RwLock::default(),
            progress: watch::Sender::new(revision),
            inflight: Mutex::default(),
        });
        tokio::spawn(hub.clone().run(watch, shutdown));
        Ok(hub)
    }

    /// Everything up to this revision is in every cache.
    pub fn progress(&self) -> i64 {
        *self.progress.borrow()
    }

    /// Follows the progress, for what is driven by writes.
    pub fn follow(&self) -> watch::Receiver<i64> {
        self.progress.subscribe()
    }

    /// The cache of a kind, filled.
    pub async fn cache(&self, kind: &'static Kind) -> Result<Arc<ResourceCache>, Status> {
        let slot = self.slot(kind);
        slot.filled.get_or_try_init(|| self.fill(&slot.cache)).await?;
        Ok(slot.cache.clone())
    }

    /// Returns once the caches hold every write that was acknowledged before the call.
    pub async fn fresh(&self) -> Result<i64, Status> {
        let revision = current_revision(&*self.kv).await.map_err(error::status)?;
        self.reached(revision).await
    }

    /// Returns once the caches have come to `revision`.
    pub async fn reached(&self, revision: i64) -> Result<i64, Status> {
        let now = self.progress();
        if now >= revision {
            return Ok(now);
        }
        let mut progress = self.progress.subscribe();
        let waited =
            tokio::time::timeout(CATCH_UP_TIMEOUT, progress.wait_for(|p| *p >= revision)).await;
        match waited {
            Ok(Ok(progress)) => Ok(*progress),
            Ok(Err(_)) => Err(Status::unavailable("the API server is shutting down")),
            Err(_) => Err(error::too_large(revision, self.progress())),
        }
    }

    /// Announces a write, so that its event need not be parsed again.
    pub fn announce(&self, key: &Bytes, prepared: &Arc<Prepared>) -> InFlight<'_> {
        let mut inflight = self.inflight.lock().unwrap_or_else(|p| p.into_inner());
        inflight.insert(key.clone(), prepared.clone());
        InFlight { hub: self, key: key.clone(), prepared: prepared.clone() }
    }

    /// The caches that exist, for metrics.
    pub fn caches(&self) -> Vec<Arc<ResourceCache>> {
        let caches = self.caches.read().unwrap_or_else(|p| p.into_inner());
        caches.values().map(|slot| slot.cache.clone()).collect()
    }

    fn slot(&self, kind: &'static Kind) -> Arc<Slot> {
        let segment = key::segment(&kind.resource);
        let known = self.caches.read().unwrap_or_else(|p| p.into_inner());
        if let Some(slot) = known.get(&*segment) {
            return slot.clone();
        }
        drop(known);
        let mut caches = self.caches.write().unwrap_or_else(|p| p.into_inner());
        let new = || {
            let cache = Arc::new(ResourceCache::new(kind, self.limits));
            Arc::new(Slot { cache, filled: OnceCell::new() })
        };
        caches.entry(segment.into_owned()).or_insert_with(new).clone()
    }

    /// Lists a resource from the store. Changes since are already being collected, because
    /// the slot was registered before.
    async fn fill(&self, cache: &ResourceCache) -> Result<(), Status> {
        let prefix = Bytes::from(cache.prefix.clone());
        let end = prefix_end(&prefix);
        let (mut start, mut revision, mut objects) = (prefix, 0, Vec::new());
        loop {
            let mut request = RangeRequest::new(KeyRange::Between(start, end.clone()));
            (request.revision, request.limit) = (revision, FILL_PAGE);
            let answer = self.kv.range(request).await.map_err(error::status)?;
            if revision == 0 {
                revision = answer.revision;
            }
            for kv in &answer.kvs {
                if let Some((_, path)) = key::split(&kv.key)
                    && let Some(entry) = read(cache, &kv.value, kv.mod_revision)
                {
                    objects.push((path.into(), entry));
                }
            }
            match answer.kvs.last() {
                Some(last) if answer.more => start = Bytes::from([&last.key[..], b"\0"].concat()),
                _ => break,
            }
        }
        tracing::debug!(resource = %cache.kind.resource, objects = objects.len(), revision, "watch cache filled");
        cache.fill(objects, revision);
        Ok(())
    }

    async fn run(self: Arc<Self>, mut watch: Watch, shutdown: CancellationToken) {
        loop {
            let message = tokio::select! {
                () = shutdown.cancelled() => break,
                message = watch.messages.recv() => message,
            };
            match message {
                Some(WatchMessage::Events { revision, events }) => {
                    self.dispatch(events);
                    self.progress.send_replace(revision);
                }
                Some(WatchMessage::Progress { revision }) => {
                    self.progress.send_if_modified(|p| {
                        let ahead = revision > *p;
                        *p = revision.max(*p);
                        ahead
                    });
                }
                Some(WatchMessage::Compacted { compacted }) => {
                    tracing::warn!(compacted, "history is gone, filling the watch caches anew");
                    self.forget();
                    match self.reopen(None, &shutdown).await {
                        Some(opened) => watch = opened,
                        None => break,
                    }
                }
                Some(WatchMessage::TooSlow) | None => {
                    match self.reopen(Some(self.progress() + 1), &shutdown).await {
                        Some(opened) => watch = opened,
                        None => break,
                    }
                }
            }
        }
        for cache in self.caches() {
            cache.close(true);
        }
    }

    /// Watches again, from `start` or, after forgetting everything, from now on.
    async fn reopen(&self, start: Option<i64>, shutdown: &CancellationToken) -> Option<Watch> {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(5));
        loop {
            let opened = async {
                match start {
                    Some(start) => open(&*self.kv, start).await,
                    None => {
                        let revision = current_revision(&*self.kv).await?;
                        let watch = open(&*self.kv, revision + 1).await?;
                        self.progress.send_replace(revision);
                        Ok(watch)
                    }
                }
            };
            match opened.await {
                Ok(watch) => return Some(watch),
                Err(KvError::Stopped) => return None,
                Err(error) => tracing::warn!("watching the store failed, trying again: {error}"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(backoff.next()) => {}
            }
        }
    }

    /// Drops all caches; their watchers list again, which fills new ones.
    fn forget(&self) {
        let caches = std::mem::take(&mut *self.caches.write().unwrap_or_else(|p| p.into_inner()));
        for slot in caches.into_values() {
            slot.cache.close(false);
        }
    }

    fn dispatch(&self, events: Vec<Event>) {
        let mut batches: HashMap<String, (Arc<ResourceCache>, Vec<Update>)> = HashMap::new();
        for event in events {
            let Some((segment, path)) = key::split(&event.kv.key) else { continue };
            let batch = match batches.get_mut(segment) {
                Some(batch) => batch,
                None => {
                    let caches = self.caches.read().unwrap_or_else(|p| p.into_inner());
                    let Some(slot) = caches.get(segment) else { continue };
                    let cache = slot.cache.clone();
                    batches.entry(segment.to_owned()).or_insert((cache, Vec::new()))
                }
            };
            let entry = match event.kind {
                EventType::Delete => None,
                // Unreadable bytes are shown as absent, with a warning in the log.
                EventType::Put => self.entry(&batch.0, &event),
            };
            batch.1.push(Update { path: path.into(), revision: event.kv.mod_revision, entry });
        }
        for (cache, updates) in batches.into_values() {
            cache.apply(updates);
        }
    }

    fn entry(&self, cache: &ResourceCache, event: &Event) -> Option<Arc<Entry>> {
        let kv = &event.kv;
        let known = self.inflight.lock().unwrap_or_else(|p| p.into_inner()).get(&kv.key).cloned();
        match known {
            Some(prepared) if prepared.value == kv.value => Some(prepared.entry(kv.mod_revision)),
            _ => read(cache, &kv.value, kv.mod_revision),
        }
    }
}

fn read(cache: &ResourceCache, json: &[u8], revision: i64) -> Option<Arc<Entry>> {
    Entry::from_stored(cache.kind, json, revision)
        .inspect_err(|error| tracing::error!(revision, "{error}; leaving it out"))
        .ok()
}

/// The store's newest revision, asked from the quorum.
async fn current_revision(kv: &dyn Kv) -> Result<i64, KvError> {
    // Any key would do: the answer carries the revision.
    let mut request = RangeRequest::new(KeyRange::One(Bytes::from_static(b"/registry/")));
    request.count_only = true;
    Ok(kv.range(request).await?.revision)
}

async fn open(kv: &dyn Kv, start_revision: i64) -> Result<Watch, KvError> {
    let range = KeyRange::From(Bytes::from_static(b"\0"));
    kv.watch(WatchRequest { range, start_revision, prev_kv: false }).await
}

/// The first key behind a prefix that ends in `/`.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        // Prefixes end in '/', so there is always a next byte.
        *last += 1;
    }
    Bytes::from(end)
}

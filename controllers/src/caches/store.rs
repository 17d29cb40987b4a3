//! One resource's cache with a secondary index and many listeners. Lookups by term touch
//! only the objects that carry it, whatever the size of the cluster.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use skiff_client::Api;
use skiff_client::cache::{Builder, Cache, Change, Entry};
use skiff_proto::{Object, ObjectKey, Resource};
use tokio_util::sync::CancellationToken;

type Project<T> = fn(&Arc<Object>) -> Result<T, serde_json::Error>;
type Handler<T> = Box<dyn Fn(&Change<'_, T>) + Send + Sync>;

/// A cache before and after its start: listeners subscribe first, reading comes after.
pub struct Store<T> {
    resource: Resource,
    project: Project<T>,
    terms: fn(&Entry<T>) -> Vec<String>,
    index: RwLock<HashMap<String, HashSet<Arc<ObjectKey>>>>,
    handlers: Mutex<Vec<Handler<T>>>,
    cache: OnceLock<Arc<Cache<T>>>,
    /// The highest resourceVersion handed to listeners.
    seen_revision: AtomicU64,
}

impl<T: Send + Sync + 'static> Store<T> {
    /// `terms` are what an object is found by, see `by`.
    pub fn new(
        resource: &Resource,
        project: Project<T>,
        terms: fn(&Entry<T>) -> Vec<String>,
    ) -> Arc<Self> {
        Arc::new(Self {
            resource: resource.clone(),
            project,
            terms,
            index: RwLock::default(),
            handlers: Mutex::default(),
            cache: OnceLock::new(),
            seen_revision: AtomicU64::new(0),
        })
    }

    /// Called on every change after the index has it. Subscribe before `start`.
    pub fn subscribe(&self, handler: impl Fn(&Change<'_, T>) + Send + Sync + 'static) {
        let mut handlers = self.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        handlers.push(Box::new(handler));
    }

    pub fn start(self: &Arc<Self>, api: &Arc<dyn Api>, shutdown: &CancellationToken) {
        let builder = Cache::projected(api.clone(), &self.resource, self.project);
        self.start_with(builder, shutdown);
    }

    /// Starts on a part of the resource, as the builder selects it.
    pub fn start_with(self: &Arc<Self>, builder: Builder<T>, shutdown: &CancellationToken) {
        let handlers =
            std::mem::take(&mut *self.handlers.lock().unwrap_or_else(PoisonError::into_inner));
        let store = self.clone();
        let cache = builder
            .on_change(move |change| {
                store.reindex(&change);
                for handler in &handlers {
                    handler(&change);
                }
            })
            .start(shutdown);
        // Set twice only by starting twice, which leaves the first.
        let _ = self.cache.set(cache);
    }

    pub async fn synced(&self) {
        if let Some(cache) = self.cache.get() {
            cache.synced().await;
        }
    }

    pub fn get(&self, key: &ObjectKey) -> Option<Entry<T>> {
        self.cache.get()?.get_key(key)
    }

    /// Every object: for the kinds of which there are few.
    pub fn list(&self) -> Vec<Entry<T>> {
        self.cache.get().map(|cache| cache.list()).unwrap_or_default()
    }

    /// All objects that carry a term, in the order of their names.
    pub fn by(&self, term: &str) -> Vec<Entry<T>> {
        let mut keys: Vec<Arc<ObjectKey>> = {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            index.get(term).map(|keys| keys.iter().cloned().collect()).unwrap_or_default()
        };
        keys.sort_unstable();
        keys.iter().filter_map(|key| self.get(key)).collect()
    }

    /// How many objects carry a term.
    pub fn count(&self, term: &str) -> usize {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.get(term).map_or(0, HashSet::len)
    }

    /// Whether a write of ours with this resourceVersion has come back through the watch.
    pub fn has_seen(&self, revision: u64) -> bool {
        self.seen_revision.load(Ordering::Acquire) >= revision
    }

    fn reindex(&self, change: &Change<'_, T>) {
        let old = change.old.map(self.terms).unwrap_or_default();
        let new = change.new.map(self.terms).unwrap_or_default();
        if old != new {
            let key = Arc::new(change.key.clone());
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            for term in old {
                if let Some(keys) = index.get_mut(&term) {
                    keys.remove(&key);
                    if keys.is_empty() {
                        index.remove(&term);
                    }
                }
            }
            for term in new {
                index.entry(term).or_default().insert(key.clone());
            }
        }
        if let Some(entry) = change.new {
            self.seen_revision.fetch_max(revision_of(&entry.object), Ordering::AcqRel);
        }
    }
}

/// The resourceVersion as the number it is: the store's revision.
pub fn revision_of(object: &Object) -> u64 {
    object.resource_version().parse().unwrap_or(0)
}

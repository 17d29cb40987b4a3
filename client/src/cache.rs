//! A collection kept current: every object, projected to what the component wants to see.
//! A reader never waits for the network, and a change handler runs in watch order.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use serde::de::DeserializeOwned;
use skiff_proto::{FieldSelector, Object, ObjectKey, Resource, Selector};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, ListOptions, Target, WatchEvent};
use crate::watcher::{Step, Watcher};

/// What changed for one key. Both sides are there on an update, only `old` on a removal.
#[derive(Debug)]
pub struct Change<'a, T> {
    pub key: &'a ObjectKey,
    pub old: Option<&'a Entry<T>>,
    pub new: Option<&'a Entry<T>>,
}

/// An object beside its projection. The object is shared with the server's watch cache when
/// both live in one process.
#[derive(Debug)]
pub struct Entry<T> {
    pub object: Arc<Object>,
    pub value: Arc<T>,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self { object: self.object.clone(), value: self.value.clone() }
    }
}

type Project<T> = Box<dyn Fn(&Arc<Object>) -> Result<T, serde_json::Error> + Send + Sync>;
type Handler<T> = Box<dyn Fn(Change<'_, T>) + Send + Sync>;

/// Configures a cache before it starts.
pub struct Builder<T> {
    api: Arc<dyn Api>,
    target: Target,
    selection: ListOptions,
    project: Project<T>,
    handlers: Vec<Handler<T>>,
}

/// A running cache. It stops with its shutdown token.
pub struct Cache<T> {
    entries: RwLock<HashMap<ObjectKey, Entry<T>>>,
    synced: watch::Sender<bool>,
}

impl<T: DeserializeOwned + Send + Sync + 'static> Cache<T> {
    /// A cache of the typed model `T`.
    pub fn typed(api: Arc<dyn Api>, resource: &Resource) -> Builder<T> {
        Self::projected(api, resource, |object| object.parse())
    }
}

impl<T: Send + Sync + 'static> Cache<T> {
    /// A cache of what `project` makes of each object. An object that it cannot read is
    /// left out, with a warning.
    pub fn projected(
        api: Arc<dyn Api>,
        resource: &Resource,
        project: impl Fn(&Arc<Object>) -> Result<T, serde_json::Error> + Send + Sync + 'static,
    ) -> Builder<T> {
        Builder {
            api,
            target: Target::all(resource, ""),
            selection: ListOptions::default(),
            project: Box::new(project),
            handlers: Vec::new(),
        }
    }

    /// Returns once the first list is in.
    pub async fn synced(&self) {
        // The sender lives as long as the cache.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Entry<T>> {
        self.get_key(&ObjectKey::new(namespace, name))
    }

    pub fn get_key(&self, key: &ObjectKey) -> Option<Entry<T>> {
        self.read().get(key).cloned()
    }

    pub fn list(&self) -> Vec<Entry<T>> {
        self.read().values().cloned().collect()
    }

    /// Those for which `keep` holds; only they are cloned.
    pub fn filter(&self, keep: impl Fn(&Entry<T>) -> bool) -> Vec<Entry<T>> {
        self.read().values().filter(|entry| keep(entry)).cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<ObjectKey, Entry<T>>> {
        // A panic in a handler must not take all readers with it.
        self.entries.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn replace(&self, key: &ObjectKey, new: Option<Entry<T>>) -> Option<Entry<T>> {
        let mut entries = self.entries.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        match new {
            Some(entry) => entries.insert(key.clone(), entry),
            None => entries.remove(key),
        }
    }
}

impl<T: Send + Sync + 'static> Builder<T> {
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.target.namespace = namespace.into();
        self
    }

    pub fn labels(mut self, labels: Selector) -> Self {
        self.selection.labels = labels;
        self
    }

    pub fn fields(mut self, fields: FieldSelector) -> Self {
        self.selection.fields = fields;
        self
    }

    /// Called after each change, in order, on the cache's task: be quick, wake a queue.
    pub fn on_change(mut self, handler: impl Fn(Change<'_, T>) + Send + Sync + 'static) -> Self {
        self.handlers.push(Box::new(handler));
        self
    }

    pub fn start(self, shutdown: &CancellationToken) -> Arc<Cache<T>> {
        let cache =
            Arc::new(Cache { entries: RwLock::default(), synced: watch::Sender::new(false) });
        let watcher = Watcher::new(self.api, self.target, self.selection);
        let follower =
            Follower { cache: cache.clone(), project: self.project, handlers: self.handlers };
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            shutdown.run_until_cancelled(follower.follow(watcher)).await;
        });
        cache
    }
}

struct Follower<T> {
    cache: Arc<Cache<T>>,
    project: Project<T>,
    handlers: Vec<Handler<T>>,
}

impl<T: Send + Sync + 'static> Follower<T> {
    async fn follow(self, mut watcher: Watcher) {
        loop {
            match watcher.next().await {
                Step::Listed(objects) => self.relist(objects),
                Step::Event(WatchEvent::Added(o) | WatchEvent::Modified(o)) => self.upsert(o),
                Step::Event(WatchEvent::Deleted(o)) => self.change(&o.key(), None),
                Step::Event(WatchEvent::Bookmark { .. }) => {}
            }
        }
    }

    fn relist(&self, objects: Vec<Arc<Object>>) {
        let listed: std::collections::HashSet<ObjectKey> =
            objects.iter().map(|o| o.key()).collect();
        let gone: Vec<ObjectKey> =
            self.cache.read().keys().filter(|key| !listed.contains(*key)).cloned().collect();
        for key in gone {
            self.change(&key, None);
        }
        for object in objects {
            self.upsert(object);
        }
        self.cache.synced.send_replace(true);
    }

    fn upsert(&self, object: Arc<Object>) {
        let key = object.key();
        let known = self.cache.get_key(&key);
        if known.is_some_and(|e| e.object.resource_version() == object.resource_version()) {
            return;
        }
        match (self.project)(&object) {
            Ok(value) => self.change(&key, Some(Entry { object, value: Arc::new(value) })),
            Err(error) => {
                tracing::warn!(kind = object.index.kind, %key, %error, "object cannot be read, leaving it out");
                self.change(&key, None);
            }
        }
    }

    fn change(&self, key: &ObjectKey, new: Option<Entry<T>>) {
        let old = self.cache.replace(key, new.clone());
        if old.is_none() && new.is_none() {
            return;
        }
        for handler in &self.handlers {
            handler(Change { key, old: old.as_ref(), new: new.as_ref() });
        }
    }
}

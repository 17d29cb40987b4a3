//! Follows every resource and tells the graph. Objects are dropped after a look at their
//! metadata.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use skiff_client::watcher::{Step, Watcher};
use skiff_client::{Api, ListOptions, Queue, ResourceInfo, Target, WatchEvent};
use skiff_kit::backoff::Backoff;
use skiff_proto::{Object, ObjectKey, Resource};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::owners::{Effects, Graph, Node, Uid};

/// The resources served.
pub struct Table {
    pub resources: Vec<ResourceInfo>,
}

impl Table {
    /// Asks until the API answers.
    pub async fn discover(api: &dyn Api) -> Self {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(10));
        loop {
            match api.discover().await {
                Ok(resources) => return Self { resources },
                Err(status) => {
                    let wait = backoff.next();
                    tracing::warn!(?wait, "cannot discover resources, trying again: {status}");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// The resource that owner references mean.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&ResourceInfo> {
        let same =
            |info: &&ResourceInfo| info.kind == kind && info.resource.api_version() == api_version;
        self.resources.iter().find(same)
    }
}

/// Whether the graph holds this resource. Events come and go in masses and own nothing.
pub fn is_followed(info: &ResourceInfo) -> bool {
    let can = |verb: &str| info.verbs.iter().any(|v| v == verb);
    info.resource.plural != "events" && can("list") && can("watch") && can("delete")
}

pub struct Feed {
    graph: Mutex<Graph>,
    /// Uids to look at, for the garbage collector.
    pub suspects: Arc<Queue<Uid>>,
    /// Namespaces to look at, for their removal.
    pub namespaces: Arc<Queue<ObjectKey>>,
    pub table: Table,
    /// Resources whose first list is still to come.
    unsynced: watch::Sender<usize>,
}

impl Feed {
    pub fn new(table: Table) -> Arc<Self> {
        let followed = table.resources.iter().filter(|info| is_followed(info)).count();
        Arc::new(Self {
            graph: Mutex::default(),
            suspects: Queue::new(),
            namespaces: Queue::new(),
            table,
            unsynced: watch::Sender::new(followed),
        })
    }

    pub fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn resource(&self, at: usize) -> Option<&Resource> {
        self.table.resources.get(at).map(|info| &info.resource)
    }

    pub fn follows(&self, resource: &Resource) -> bool {
        self.table.resources.iter().any(|info| info.resource == *resource && is_followed(info))
    }

    pub async fn synced(&self) {
        // The sender lives as long as the feed.
        let _ = self.unsynced.subscribe().wait_for(|left| *left == 0).await;
    }

    pub fn start(
        self: &Arc<Self>,
        api: &Arc<dyn Api>,
        tasks: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) {
        for (at, info) in self.table.resources.iter().enumerate() {
            if !is_followed(info) {
                continue;
            }
            let target = Target::all(&info.resource, "");
            let watcher = Watcher::new(api.clone(), target, ListOptions::default());
            let (feed, shutdown) = (self.clone(), shutdown.clone());
            tasks.spawn(async move {
                shutdown.run_until_cancelled(feed.follow(at, watcher)).await;
            });
        }
    }

    async fn follow(&self, resource: usize, mut watcher: Watcher) {
        let mut first = true;
        loop {
            match watcher.next().await {
                Step::Listed(objects) => {
                    self.listed(resource, &objects);
                    if std::mem::take(&mut first) {
                        self.unsynced.send_modify(|left| *left -= 1);
                    }
                    // An owner may have come and gone between two lists, and with the last
                    // first list the graph is whole.
                    self.suspect_all();
                }
                Step::Event(WatchEvent::Added(o) | WatchEvent::Modified(o)) => {
                    let effects = self.graph().upsert(o.uid(), Node::of(resource, &o));
                    self.wake(effects);
                }
                Step::Event(WatchEvent::Deleted(o)) => {
                    let effects = self.graph().remove(o.uid());
                    self.wake(effects);
                }
                Step::Event(WatchEvent::Bookmark { .. }) => {}
            }
        }
    }

    fn listed(&self, resource: usize, objects: &[Arc<Object>]) {
        let uids: HashSet<&str> = objects.iter().map(|o| o.uid()).collect();
        let gone = self.graph().missing(resource, &uids);
        for uid in gone {
            let effects = self.graph().remove(&uid);
            self.wake(effects);
        }
        for object in objects {
            let effects = self.graph().upsert(object.uid(), Node::of(resource, object));
            self.wake(effects);
        }
    }

    fn is_synced(&self) -> bool {
        *self.unsynced.borrow() == 0
    }

    fn suspect_all(&self) {
        if self.is_synced() {
            let suspects = self.graph().suspects();
            suspects.into_iter().for_each(|uid| self.suspects.add(uid));
        }
    }

    fn wake(&self, effects: Effects) {
        // Before all lists are in, every owner listed late would look as if it were gone.
        if self.is_synced() {
            effects.suspects.into_iter().for_each(|uid| self.suspects.add(uid));
        }
        for namespace in effects.emptied {
            self.namespaces.add(ObjectKey::new("", namespace));
        }
    }
}

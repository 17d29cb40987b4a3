//! Empties namespaces that are being removed. Between passes it waits for the events of
//! what it deleted.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use skiff_client::cache::Entry;
use skiff_client::{DeleteOptions, ListOptions, Propagation, Queue, ResourceInfo, Target};
use skiff_proto::model::Namespace;
use skiff_proto::{ObjectKey, resource};

use super::plan::{self, Action, Contents, FINALIZER};
use crate::caches::Caches;
use crate::graph::Feed;
use crate::timers::Timers;
use crate::worker::Reconcile;
use crate::write::{Result, Writer};

/// For what no event tells about: kinds that are not followed, and requests that failed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

pub struct NamespaceController {
    writer: Writer,
    caches: Arc<Caches>,
    feed: Arc<Feed>,
    timers: Arc<Timers<ObjectKey>>,
}

impl NamespaceController {
    pub fn new(writer: Writer, caches: Arc<Caches>, feed: Arc<Feed>) -> Arc<Self> {
        let timers = Timers::new(&feed.namespaces);
        let queue = feed.namespaces.clone();
        caches.namespaces.subscribe(move |change| {
            if change.new.is_some_and(|namespace| namespace.object.is_terminating()) {
                queue.add(change.key.clone());
            }
        });
        Arc::new(Self { writer, caches, feed, timers })
    }

    pub fn timers(&self) -> &Arc<Timers<ObjectKey>> {
        &self.timers
    }

    /// One pass: pods first, since other objects (secrets, network policies) serve them
    /// until they are gone.
    async fn empty(&self, namespace: &str) -> Contents {
        let mut contents = Contents::default();
        let resources = match self.writer.api.discover().await {
            Ok(resources) => resources,
            Err(status) => {
                contents.discovery_failure = Some(format!("Discovery failed: {status}"));
                return contents;
            }
        };
        let can = |info: &ResourceInfo, verb: &str| info.verbs.iter().any(|v| v == verb);
        let removable: Vec<&ResourceInfo> = resources
            .iter()
            .filter(|info| info.namespaced && can(info, "list") && can(info, "delete"))
            .collect();
        let (pods, others): (Vec<_>, Vec<_>) =
            removable.into_iter().partition(|info| info.resource == resource::PODS);
        for info in pods {
            self.empty_of(namespace, info, &mut contents).await;
        }
        if contents.remaining.is_empty() && contents.failures.is_empty() {
            for info in others {
                self.empty_of(namespace, info, &mut contents).await;
            }
        }
        contents
    }

    async fn empty_of(&self, namespace: &str, info: &ResourceInfo, contents: &mut Contents) {
        // Upstream writes the group after a dot even if it is the empty core group.
        let name = format!("{}.{}", info.resource.plural, info.resource.group);
        if let Err(why) = self.delete_and_count(namespace, info, &name, contents).await {
            contents.failures.push(format!("{name}: {why}"));
        }
    }

    async fn delete_and_count(
        &self,
        namespace: &str,
        info: &ResourceInfo,
        name: &str,
        contents: &mut Contents,
    ) -> skiff_client::Result<()> {
        let api = &self.writer.api;
        let all = Target::all(&info.resource, namespace);
        let everything = ListOptions::default();
        let listed = api.list(&all, &everything).await?;
        if listed.items.is_empty() {
            return Ok(());
        }
        let options =
            DeleteOptions { propagation: Propagation::Background, ..DeleteOptions::default() };
        if info.verbs.iter().any(|v| v == "deletecollection") {
            api.delete_collection(&all, &everything, &options).await?;
        } else {
            for object in listed.items.iter().filter(|object| !object.is_terminating()) {
                match api.delete(&Target::of(&info.resource, object), &options).await {
                    Err(status) if !status.is_not_found() => return Err(status),
                    _ => {}
                }
            }
        }
        let left = api.list(&all, &everything).await?.items;
        if !left.is_empty() {
            contents.remaining.insert(name.to_owned(), left.len());
        }
        for finalizer in left.iter().flat_map(|object| &object.index.metadata.finalizers) {
            *contents.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
        Ok(())
    }

    /// Whether an event will come when what is left is gone.
    fn will_hear(&self, contents: &Contents) -> bool {
        let followed = |name: &String| {
            self.feed.table.resources.iter().any(|info| {
                format!("{}.{}", info.resource.plural, info.resource.group) == *name
                    && self.feed.follows(&info.resource)
            })
        };
        contents.failures.is_empty()
            && contents.discovery_failure.is_none()
            && contents.remaining.keys().all(followed)
    }

    async fn execute(&self, namespace: &Entry<Namespace>, action: Action) -> Result<()> {
        let namespaces = &resource::NAMESPACES;
        match action {
            Action::UpdateStatus(status) => {
                let edit = |value: &mut Value| value["status"] = json!(status);
                self.writer.update_status(namespaces, &namespace.object, edit).await?;
            }
            Action::Finalize => {
                let target = Target::of(namespaces, &namespace.object).subresource("finalize");
                let edit = |value: &mut Value| {
                    let list = value.pointer_mut("/spec/finalizers");
                    if let Some(list) = list.and_then(Value::as_array_mut) {
                        list.retain(|f| f != FINALIZER);
                    }
                };
                self.writer.update_at(target, &namespace.object, edit).await?;
            }
        }
        Ok(())
    }
}

impl Reconcile for NamespaceController {
    type Key = ObjectKey;
    const NAME: &'static str = "namespace";

    fn queue(&self) -> &Arc<Queue<ObjectKey>> {
        &self.feed.namespaces
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<()> {
        self.timers.set(key, None);
        let Some(namespace) = self.caches.namespaces.get(key) else { return Ok(()) };
        let ours = namespace.value.spec.finalizers.iter().any(|f| f == FINALIZER);
        if !namespace.object.is_terminating() || !ours {
            return Ok(());
        }
        let contents = self.empty(&key.name).await;
        if !self.will_hear(&contents) {
            self.timers.set(key, Some(LOOK_AGAIN));
        }
        for action in plan::plan(&namespace.value, &contents, SystemTime::now()) {
            match self.execute(&namespace, action).await {
                // Gone, or finalized by another.
                Err(failure) if failure.status().is_some_and(|s| s.is_not_found()) => {}
                other => other?,
            }
        }
        Ok(())
    }
}

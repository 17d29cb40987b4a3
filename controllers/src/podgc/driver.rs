//! Watches for pods whose node is missing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use skiff_client::{DeleteOptions, Queue, Target};
use skiff_proto::{ObjectKey, resource};
use tokio::time::Instant;

use super::plan::{self, Action, disruption_target};
use crate::caches::pod::Pod;
use crate::caches::{Caches, term};
use crate::timers::Timers;
use crate::worker::Reconcile;
use crate::write::{Result, Writer};

pub struct PodGcController {
    writer: Writer,
    caches: Arc<Caches>,
    queue: Arc<Queue<ObjectKey>>,
    timers: Arc<Timers<ObjectKey>>,
    quarantine: Duration,
    missing_since: Mutex<HashMap<String, Instant>>,
}

impl PodGcController {
    pub fn new(writer: Writer, caches: Arc<Caches>, quarantine: Duration) -> Arc<Self> {
        let queue = Queue::new();
        let timers = Timers::new(&queue);
        let missing_since = Mutex::default();
        let controller =
            Arc::new(Self { writer, caches, timers, queue, quarantine, missing_since });
        let this = controller.clone();
        controller.caches.nodes.subscribe(move |change| {
            if change.old.is_none() || change.new.is_none() {
                this.queue.add(change.key.clone());
            }
        });
        let this = controller.clone();
        controller.caches.pods.subscribe(move |change| {
            let bound = |pod: &&Pod| !pod.value.node_name.is_empty();
            let Some(pod) = change.new.filter(bound) else { return };
            if change.old.is_some_and(|old| old.value.node_name == pod.value.node_name) {
                return;
            }
            let node = ObjectKey::new("", &*pod.value.node_name);
            if this.caches.nodes.get(&node).is_none() {
                this.queue.add(node);
            }
        });
        controller
    }

    pub fn timers(&self) -> &Arc<Timers<ObjectKey>> {
        &self.timers
    }

    fn missing_for(&self, node: &str) -> Duration {
        let mut missing = self.missing_since.lock().unwrap_or_else(PoisonError::into_inner);
        missing.entry(node.to_owned()).or_insert_with(Instant::now).elapsed()
    }

    fn forget(&self, key: &ObjectKey) {
        self.timers.set(key, None);
        self.missing_since.lock().unwrap_or_else(PoisonError::into_inner).remove(&key.name);
    }

    async fn remove(&self, pod: &Pod) -> Result<()> {
        let target = Target::of(&resource::PODS, &pod.object);
        let uid = pod.object.uid();
        let Some(live) = self.writer.find(&target).await?.filter(|live| live.uid() == uid) else {
            return Ok(());
        };
        if !pod.value.phase.is_terminal() {
            let edit = |value: &mut Value| {
                value["status"]["phase"] = "Failed".into();
                disruption_target(value, "DeletionByPodGC", "PodGC: node no longer exists");
            };
            self.writer.update_status(&resource::PODS, &live, edit).await?;
        }
        // No kubelet is there to end it in grace.
        let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        self.writer.delete(&target, uid, options).await?;
        Ok(())
    }
}

impl Reconcile for PodGcController {
    type Key = ObjectKey;
    const NAME: &'static str = "podgc";

    fn queue(&self) -> &Arc<Queue<ObjectKey>> {
        &self.queue
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<()> {
        if self.caches.nodes.get(key).is_some() {
            self.forget(key);
            return Ok(());
        }
        let pods = self.caches.pods.by(&term::node(&key.name));
        match plan::plan(self.missing_for(&key.name), self.quarantine, &pods) {
            None => self.forget(key),
            Some(Action::Wait(left)) => self.timers.set(key, Some(left)),
            Some(Action::Remove(keys)) => {
                // The cache may be behind: a node that is there keeps its pods.
                let node = Target::one(&resource::NODES, "", &key.name);
                if self.writer.find(&node).await?.is_some() {
                    self.forget(key);
                    return Ok(());
                }
                tracing::info!(
                    node = key.name,
                    pods = keys.len(),
                    "node is gone, removing its pods"
                );
                for pod in keys.iter().filter_map(|key| self.caches.pods.get(key)) {
                    self.remove(&pod).await?;
                }
                self.forget(key);
            }
        }
        Ok(())
    }
}

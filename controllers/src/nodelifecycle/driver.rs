//! Listens to Leases and nodes, and carries out node plans. A renewed Lease is noted, not
//! acted on: the timer set for its expiry finds the note.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use skiff_client::cache::{Change, Entry};
use skiff_client::event::{Recorder, reference};
use skiff_client::{DeleteOptions, Queue, Target};
use skiff_proto::model::{Lease, Node, Taint};
use skiff_proto::{Condition, Object, ObjectKey, Timestamp, resource};
use tokio::time::Instant;

use super::plan::{self, Action, Observed, Plan};
use super::taints::NO_EXECUTE;
use crate::caches::pod::{Pod, PodView};
use crate::caches::{Caches, NODE_LEASE_NAMESPACE, term};
use crate::conditions;
use crate::podgc::disruption_target;
use crate::timers::Timers;
use crate::worker::Reconcile;
use crate::write::{Result, Writer};

pub struct NodeLifecycleController {
    writer: Writer,
    caches: Arc<Caches>,
    queue: Arc<Queue<ObjectKey>>,
    timers: Arc<Timers<ObjectKey>>,
    recorder: Recorder,
    grace: Duration,
    heard: Mutex<HashMap<String, Heard>>,
}

/// By our own clock, so that a node's clock does not matter.
struct Heard {
    at: Instant,
    /// First sight of taints that do not tell their time.
    taints: HashMap<(String, String), SystemTime>,
}

impl NodeLifecycleController {
    pub fn new(
        writer: Writer,
        caches: Arc<Caches>,
        recorder: Recorder,
        grace: Duration,
    ) -> Arc<Self> {
        let queue = Queue::new();
        let timers = Timers::new(&queue);
        let heard = Mutex::default();
        let controller = Arc::new(Self { writer, caches, timers, queue, recorder, grace, heard });
        let this = controller.clone();
        controller.caches.leases.subscribe(move |change| this.lease_changed(change));
        let this = controller.clone();
        controller.caches.nodes.subscribe(move |change| this.node_changed(change));
        let this = controller.clone();
        controller.caches.pods.subscribe(move |change| this.pod_changed(change));
        controller
    }

    pub fn timers(&self) -> &Arc<Timers<ObjectKey>> {
        &self.timers
    }

    fn heard(&self) -> MutexGuard<'_, HashMap<String, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, node: &str) {
        let now = Instant::now();
        let mut heard = self.heard();
        match heard.get_mut(node) {
            Some(heard) => heard.at = now,
            None => {
                heard.insert(node.to_owned(), Heard { at: now, taints: HashMap::new() });
            }
        }
    }

    fn lease_changed(&self, change: &Change<'_, Lease>) {
        let renewed = |entry: Option<&Entry<Lease>>| entry.and_then(|e| e.value.spec.renew_time);
        if change.new.is_some() && renewed(change.old) != renewed(change.new) {
            self.hear(&change.key.name);
        }
        let lasts =
            |entry: Option<&Entry<Lease>>| entry.and_then(|e| e.value.spec.lease_duration_seconds);
        if lasts(change.old) != lasts(change.new) {
            // The timer that runs was set for the other.
            self.queue.add(ObjectKey::new("", &*change.key.name));
        }
    }

    fn node_changed(&self, change: &Change<'_, Node>) {
        let beat = |entry: Option<&Entry<Node>>| {
            conditions::find(&entry?.value.status.conditions, "Ready")?.last_heartbeat_time
        };
        match change.new {
            None => drop(self.heard().remove(&change.key.name)),
            Some(_) if change.old.is_none() || beat(change.old) != beat(change.new) => {
                self.hear(&change.key.name);
            }
            Some(_) => {}
        }
        self.queue.add(change.key.clone());
        if change.old.is_some_and(is_ready) != change.new.is_some_and(is_ready) {
            // Whether the others evict depends on there being a ready node.
            for node in self.caches.nodes.list().into_iter().filter(|node| !is_ready(node)) {
                self.queue.add(node.object.key());
            }
        }
    }

    /// A pod that comes to a tainted node, or changes what it tolerates.
    fn pod_changed(&self, change: &Change<'_, PodView>) {
        let Some(new) = change.new.filter(|pod| !pod.value.node_name.is_empty()) else { return };
        let same = change.old.is_some_and(|old| {
            old.value.node_name == new.value.node_name
                && old.value.tolerations == new.value.tolerations
                && old.value.ready == new.value.ready
        });
        if same {
            return;
        }
        let key = ObjectKey::new("", &*new.value.node_name);
        let Some(node) = self.caches.nodes.get(&key) else { return };
        let tainted = node.value.spec.taints.iter().any(|taint| taint.effect == NO_EXECUTE);
        if tainted || !is_ready(&node) {
            self.queue.add(key);
        }
    }

    fn silent_in(&self, node: &str) -> Duration {
        let grace = self.grace_of(node);
        let heard = self.heard();
        heard.get(node).map_or(grace, |heard| grace.saturating_sub(heard.at.elapsed()))
    }

    /// A node whose own Lease lasts longer than the grace may be silent for as long: it has
    /// said that it speaks rarely.
    fn grace_of(&self, node: &str) -> Duration {
        let lease = self.caches.leases.get(&ObjectKey::new(NODE_LEASE_NAMESPACE, node));
        let seconds = lease.and_then(|lease| lease.value.spec.lease_duration_seconds);
        let lasts = seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
        self.grace.max(Duration::from_secs(lasts))
    }

    fn first_seen(&self, node: &str, taint: &Taint) -> SystemTime {
        let now = SystemTime::now();
        let mut heard = self.heard();
        let Some(heard) = heard.get_mut(node) else { return now };
        *heard.taints.entry((taint.key.clone(), taint.value.clone())).or_insert(now)
    }

    fn forget_taints(&self, node: &Entry<Node>) {
        if let Some(heard) = self.heard().get_mut(node.object.name()) {
            let taints = &node.value.spec.taints;
            heard.taints.retain(|(key, value), _| {
                taints.iter().any(|t| t.key == *key && t.value == *value)
            });
        }
    }

    fn plan(&self, node: &Entry<Node>) -> Plan {
        let name = node.object.name();
        self.forget_taints(node);
        let others = self.caches.nodes.list();
        let others_ready =
            others.iter().any(|other| other.object.name() != name && is_ready(other));
        let observed = Observed {
            node: &node.value,
            silent_in: self.silent_in(name),
            others_ready,
            first_seen: &|taint| self.first_seen(name, taint),
            now: SystemTime::now(),
        };
        plan::plan(&observed, || self.caches.pods.by(&term::node(name)))
    }

    async fn execute(&self, node: &Entry<Node>, actions: Vec<Action>) -> Result<()> {
        let mut latest = node.object.clone();
        for action in actions {
            match action {
                Action::SetConditions(conditions) => {
                    let grace = self.grace_of(latest.name());
                    tracing::warn!(node = latest.name(), ?grace, "node is silent");
                    let edit = |value: &mut Value| merge_conditions(value, &conditions);
                    latest = self.writer.update_status(&resource::NODES, &latest, edit).await?;
                    let message = format!("Node {} status is now: NodeNotReady", latest.name());
                    self.recorder.normal(&reference(&latest), "NodeNotReady", message);
                }
                Action::SetTaints(taints) => {
                    let edit = |value: &mut Value| value["spec"]["taints"] = json!(taints);
                    latest = self.writer.update(&resource::NODES, &latest, edit).await?;
                }
                Action::MarkPodNotReady(key) => self.mark_not_ready(&key).await?,
                Action::EvictPod(key) => self.evict(&key).await?,
            }
        }
        Ok(())
    }

    async fn mark_not_ready(&self, key: &ObjectKey) -> Result<()> {
        let Some(pod) = self.caches.pods.get(key) else { return Ok(()) };
        let now = Timestamp::seconds(SystemTime::now());
        let edit = |value: &mut Value| {
            let conditions = value.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
            for condition in conditions.into_iter().flatten() {
                if condition["type"] == "Ready" {
                    condition["status"] = "False".into();
                    condition["lastTransitionTime"] = json!(now);
                }
            }
        };
        unless_gone(self.writer.update_status(&resource::PODS, &pod.object, edit).await)?;
        self.recorder.warning(&reference(&pod.object), "NodeNotReady", "Node is not ready");
        Ok(())
    }

    async fn evict(&self, key: &ObjectKey) -> Result<()> {
        let Some(pod) = self.caches.pods.get(key) else { return Ok(()) };
        let message = format!("Marking for deletion Pod {key}");
        self.recorder.normal(&reference(&pod.object), "TaintManagerEviction", message);
        let why = "Taint manager: deleting due to NoExecute taint";
        let edit = |value: &mut Value| disruption_target(value, "DeletionByTaintManager", why);
        if let Some(target) = self.live(&pod).await? {
            unless_gone(self.writer.update_status(&resource::PODS, &target, edit).await)?;
        }
        let target = Target::of(&resource::PODS, &pod.object);
        self.writer.delete(&target, pod.object.uid(), DeleteOptions::default()).await?;
        Ok(())
    }

    /// Marking it not ready may just have changed it.
    async fn live(&self, pod: &Pod) -> Result<Option<Arc<Object>>> {
        let target = Target::of(&resource::PODS, &pod.object);
        let live = self.writer.find(&target).await?;
        Ok(live.filter(|live| live.uid() == pod.object.uid()))
    }
}

fn is_ready(node: &Entry<Node>) -> bool {
    conditions::find(&node.value.status.conditions, "Ready").is_some_and(|c| c.status == "True")
}

fn unless_gone(result: Result<Arc<Object>>) -> Result<()> {
    match result {
        Err(failure) if failure.status().is_some_and(|s| s.is_not_found()) => Ok(()),
        other => other.map(drop),
    }
}

/// Changed conditions replace those of their type; fields unknown here stay in the others.
fn merge_conditions(node: &mut Value, conditions: &[Condition]) {
    let list = &mut node["status"]["conditions"];
    if !list.is_array() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else { return };
    for condition in conditions {
        match list.iter_mut().find(|c| c["type"] == *condition.type_) {
            Some(known) if known["status"] == *condition.status => {}
            Some(known) => *known = json!(condition),
            None => list.push(json!(condition)),
        }
    }
}

impl Reconcile for NodeLifecycleController {
    type Key = ObjectKey;
    const NAME: &'static str = "nodelifecycle";

    fn queue(&self) -> &Arc<Queue<ObjectKey>> {
        &self.queue
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<()> {
        let Some(node) = self.caches.nodes.get(key) else {
            self.timers.set(key, None);
            return Ok(());
        };
        let Plan { actions, recheck } = self.plan(&node);
        self.timers.set(key, recheck);
        self.execute(&node, actions).await
    }
}

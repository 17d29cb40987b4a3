//! Assigns shares, one node at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use skiff_client::Queue;
use skiff_client::event::{Recorder, reference};
use skiff_proto::{ObjectKey, resource};

use super::cidr::Cidr;
use super::plan::{self, Action};
use crate::caches::Caches;
use crate::worker::Reconcile;
use crate::write::{Result, Writer};

pub struct NodeIpamController {
    writer: Writer,
    caches: Arc<Caches>,
    queue: Arc<Queue<ObjectKey>>,
    recorder: Recorder,
    cluster: Cidr,
    bits: u8,
    /// Assigned here, and perhaps not in the cache yet.
    assigned: Mutex<HashMap<String, Cidr>>,
}

impl NodeIpamController {
    /// Run it with one worker: two would give the same share twice.
    pub fn new(
        writer: Writer,
        caches: Arc<Caches>,
        recorder: Recorder,
        cluster: Cidr,
        bits: u8,
    ) -> Arc<Self> {
        let assigned = Mutex::default();
        let queue = Queue::new();
        let controller =
            Arc::new(Self { writer, caches, queue, recorder, cluster, bits, assigned });
        let this = controller.clone();
        controller.caches.nodes.subscribe(move |change| match change.new {
            Some(node) if node.value.spec.pod_cidr.is_empty() => {
                this.queue.add(change.key.clone());
            }
            Some(_) => {}
            None => {
                this.assigned().remove(&change.key.name);
                this.wake_waiting();
            }
        });
        controller
    }

    fn assigned(&self) -> std::sync::MutexGuard<'_, HashMap<String, Cidr>> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A share is free again.
    fn wake_waiting(&self) {
        for node in self.caches.nodes.list() {
            if node.value.spec.pod_cidr.is_empty() {
                self.queue.add(node.object.key());
            }
        }
    }

    fn taken(&self) -> Vec<Cidr> {
        let nodes = self.caches.nodes.list();
        let texts = nodes.iter().flat_map(|n| {
            n.value.spec.pod_cidrs.iter().chain(std::iter::once(&n.value.spec.pod_cidr))
        });
        let mut taken: Vec<Cidr> = texts.filter_map(|text| Cidr::parse(text)).collect();
        taken.extend(self.assigned().values());
        taken
    }
}

impl Reconcile for NodeIpamController {
    type Key = ObjectKey;
    const NAME: &'static str = "nodeipam";

    fn queue(&self) -> &Arc<Queue<ObjectKey>> {
        &self.queue
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<()> {
        let Some(node) = self.caches.nodes.get(key) else { return Ok(()) };
        // A write that was answered by a conflict did not assign anything.
        self.assigned().remove(&key.name);
        let taken = self.taken();
        let name = node.object.name();
        match plan::plan(&node.value.spec.pod_cidr, &taken, self.cluster, self.bits) {
            None => {}
            Some(Action::Assign(cidr)) => {
                self.assigned().insert(key.name.clone(), cidr);
                let edit = |value: &mut Value| {
                    value["spec"]["podCIDR"] = cidr.to_string().into();
                    value["spec"]["podCIDRs"] = json!([cidr.to_string()]);
                };
                self.writer.update(&resource::NODES, &node.object, edit).await?;
                tracing::info!(node = name, %cidr, "pod network assigned");
            }
            Some(Action::Exhausted) => {
                let (cluster, bits) = (self.cluster, self.bits);
                tracing::error!(node = name, %cluster, bits, "no share of the pod network is left; remove nodes, or start with a larger cluster CIDR");
                let message = format!("Node {name} status is now: CIDRNotAvailable");
                self.recorder.normal(&reference(&node.object), "CIDRNotAvailable", message);
            }
        }
        Ok(())
    }
}

//! Carries out slice plans, and wakes the Services that a change concerns.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use skiff_client::cache::{Change, Entry};
use skiff_client::{DeleteOptions, Queue, Target};
use skiff_proto::model::{EndpointSlice, Node, Service};
use skiff_proto::{ObjectKey, resource};

use super::members;
use super::plan::{self, Action, Observed};
use crate::caches::store::revision_of;
use crate::caches::{Caches, PodView, service_of, term};
use crate::worker::Reconcile;
use crate::write::{Failure, Result, Writer};

pub struct EndpointSliceController {
    writer: Writer,
    caches: Arc<Caches>,
    queue: Arc<Queue<ObjectKey>>,
    /// The revision of the last slice written for a Service. Until the cache has seen it, a
    /// plan would make the same slice again.
    written: Mutex<HashMap<ObjectKey, u64>>,
}

impl EndpointSliceController {
    pub fn new(writer: Writer, caches: Arc<Caches>) -> Arc<Self> {
        let written = Mutex::default();
        let controller = Arc::new(Self { writer, caches, queue: Queue::new(), written });
        let this = controller.clone();
        controller.caches.services.subscribe(move |change| this.queue.add(change.key.clone()));
        let this = controller.clone();
        controller.caches.pods.subscribe(move |change| wake(&this.caches, change, &this.queue));
        let this = controller.clone();
        controller.caches.endpoint_slices.subscribe(move |change| this.slice_changed(change));
        controller
    }

    fn slice_changed(&self, change: &Change<'_, EndpointSlice>) {
        for slice in change.old.iter().chain(&change.new) {
            if let Some(service) = service_of(&slice.object) {
                self.queue.add(service);
            }
        }
    }

    fn is_behind(&self, service: &ObjectKey) -> bool {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.get(service).is_some_and(|at| !self.caches.endpoint_slices.has_seen(*at))
    }

    fn remember(&self, service: &ObjectKey, revision: u64) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.insert(service.clone(), revision);
    }

    fn forget(&self, service: &ObjectKey) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(service);
    }

    async fn execute(&self, service: &Entry<Service>, action: Action) -> Result<()> {
        let slices = &resource::ENDPOINT_SLICES;
        let key = service.object.key();
        match action {
            Action::Create(content) => {
                let slice = content.new_slice(service);
                let made = self.writer.create(slices, &key.namespace, &slice).await?;
                self.remember(&key, revision_of(&made));
            }
            Action::Update(name, content) => {
                let Some(slice) = self.caches.endpoint_slices.get(&name) else { return Ok(()) };
                let edit = |value: &mut serde_json::Value| content.write(value);
                let made = self.writer.update(slices, &slice.object, edit).await?;
                self.remember(&key, revision_of(&made));
            }
            Action::Delete(name) => {
                let Some(slice) = self.caches.endpoint_slices.get(&name) else { return Ok(()) };
                let target = Target::of(slices, &slice.object);
                let options = DeleteOptions::default();
                self.writer.delete(&target, slice.object.uid(), options).await?;
            }
        }
        Ok(())
    }
}

/// Queues the Services that select a pod before or after its change.
pub fn wake(caches: &Caches, change: &Change<'_, PodView>, queue: &Queue<ObjectKey>) {
    let same = change.old.zip(change.new).is_some_and(|(old, new)| !members::differs(old, new));
    if same {
        return;
    }
    for service in caches.services.by(&term::namespace(&change.key.namespace)) {
        let mut versions = change.old.iter().chain(&change.new);
        if versions.any(|pod| members::selects(&service.value, pod)) {
            queue.add(service.object.key());
        }
    }
}

impl Reconcile for EndpointSliceController {
    type Key = ObjectKey;
    const NAME: &'static str = "endpointslice";

    fn queue(&self) -> &Arc<Queue<ObjectKey>> {
        &self.queue
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<()> {
        let Some(service) = self.caches.services.get(key) else {
            // Its slices go with their owner.
            self.forget(key);
            return Ok(());
        };
        if !members::selects_pods(&service.value) || service.object.is_terminating() {
            return Ok(());
        }
        if self.is_behind(key) {
            return Err(Failure::Waiting(format!("the slices of {key} to show")));
        }
        let slices = self.caches.endpoint_slices.by(&term::service(&key.namespace, &key.name));
        let pods = members::pods_of(&self.caches, &service);
        let node = |name: &str| -> Option<Entry<Node>> {
            self.caches.nodes.get(&ObjectKey::new("", name))
        };
        let actions = plan::plan(Observed { service: &service, pods, slices, node: &node });
        for action in actions {
            self.execute(&service, action).await?;
        }
        Ok(())
    }
}

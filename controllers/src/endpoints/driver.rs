//! Carries out Endpoints plans.

use std::sync::Arc;

use skiff_client::{DeleteOptions, Queue, Target};
use skiff_proto::{ObjectKey, resource};

use super::plan::{self, Action};
use crate::caches::Caches;
use crate::endpointslice::members;
use crate::worker::Reconcile;
use crate::write::{Result, Writer};

pub struct EndpointsController {
    writer: Writer,
    caches: Arc<Caches>,
    queue: Arc<Queue<ObjectKey>>,
}

impl EndpointsController {
    pub fn new(writer: Writer, caches: Arc<Caches>) -> Arc<Self> {
        let controller = Arc::new(Self { writer, caches, queue: Queue::new() });
        let this = controller.clone();
        controller.caches.services.subscribe(move |change| this.queue.add(change.key.clone()));
        let this = controller.clone();
        controller.caches.endpoints.subscribe(move |change| this.queue.add(change.key.clone()));
        let this = controller.clone();
        controller.caches.pods.subscribe(move |change| {
            crate::endpointslice::wake(&this.caches, change, &this.queue);
        });
        controller
    }
}

impl Reconcile for EndpointsController {
    type Key = ObjectKey;
    const NAME: &'static str = "endpoints";

    fn queue(&self) -> &Arc<Queue<ObjectKey>> {
        &self.queue
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<()> {
        let service = self.caches.services.get(key);
        if service.as_ref().is_some_and(|s| !members::selects_pods(&s.value)) {
            return Ok(());
        }
        let observed = self.caches.endpoints.get(key);
        let pods = service.as_ref().map(|s| members::pods_of(&self.caches, s)).unwrap_or_default();
        let Some(action) = plan::plan(service.as_ref(), &pods, observed.as_ref()) else {
            return Ok(());
        };
        let endpoints = &resource::ENDPOINTS;
        match (action, service, observed) {
            (Action::Create(content), Some(service), _) => {
                let object = content.new_object(&service);
                self.writer.create(endpoints, &key.namespace, &object).await?;
            }
            (Action::Update(content), _, Some(observed)) => {
                let edit = |value: &mut serde_json::Value| content.write(value);
                self.writer.update(endpoints, &observed.object, edit).await?;
            }
            (Action::Delete, _, Some(observed)) => {
                let target = Target::of(endpoints, &observed.object);
                let uid = observed.object.uid();
                self.writer.delete(&target, uid, DeleteOptions::default()).await?;
            }
            _ => {}
        }
        Ok(())
    }
}

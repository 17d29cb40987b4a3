//! Which pods have a worker: those that the API binds to this node. A handler of the pod
//! cache and of the runtime's events, it only hands on wishes and wakes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use skiff_client::{Change, cache::Entry};
use skiff_proto::model::Pod;
use tokio::sync::{Notify, mpsc, watch};

use super::context::Context;
use super::worker::{Slot, Wish, Worker};
use crate::ports::RuntimeEvent;

/// The safety net under lost events.
const RELOOK: Duration = Duration::from_secs(300);

pub struct Pods {
    ctx: Arc<Context>,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    /// A sandbox or container without a worker was heard of.
    pub strangers: Notify,
}

impl Pods {
    pub fn new(ctx: Arc<Context>) -> Arc<Self> {
        Arc::new(Self { ctx, slots: Mutex::default(), strangers: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn has(&self, uid: &str) -> bool {
        self.lock().contains_key(uid)
    }

    /// Where the API's pods come in. A pod of a known name and another uid is another pod.
    pub fn changed(self: &Arc<Self>, change: &Change<'_, Pod>) {
        let uid = |entry: Option<&Entry<Pod>>| entry.map(|e| e.value.metadata.uid.clone());
        let (old, new) = (uid(change.old), uid(change.new));
        if let (Some(uid), Some(entry)) = (&old, change.old)
            && new.as_ref() != Some(uid)
            && let Some(slot) = self.lock().get(uid)
        {
            slot.wish.send_replace(Wish { pod: entry.value.clone(), removed: true });
        }
        if let (Some(uid), Some(entry)) = (new, change.new) {
            self.wish(&uid, Wish { pod: entry.value.clone(), removed: false });
        }
    }

    fn wish(self: &Arc<Self>, uid: &str, wish: Wish) {
        let mut slots = self.lock();
        if let Some(slot) = slots.get(uid) {
            slot.wish.send_if_modified(|known| {
                let news = !only_status_changed(&known.pod, &wish.pod);
                *known = wish;
                news
            });
            return;
        }
        let slot = Arc::new(Slot { wake: Arc::new(Notify::new()), wish: watch::Sender::new(wish) });
        slots.insert(uid.to_owned(), slot.clone());
        drop(slots);
        let (pods, uid) = (self.clone(), uid.to_owned());
        tokio::spawn(async move {
            Worker::new(pods.ctx.clone(), slot).run().await;
            pods.ctx.admission.release(&uid);
            pods.ctx.objects.forget(&uid);
            pods.lock().remove(&uid);
        });
    }

    pub fn wake(&self, uid: &str) -> bool {
        let slots = self.lock();
        let slot = slots.get(uid);
        slot.iter().for_each(|slot| slot.wake.notify_one());
        slot.is_some()
    }

    pub fn wake_all(&self) {
        self.lock().values().for_each(|slot| slot.wake.notify_one());
        self.strangers.notify_one();
    }

    /// Follows the runtime until its events end.
    pub async fn follow(&self, mut events: mpsc::Receiver<RuntimeEvent>) {
        let mut relook = tokio::time::interval(RELOOK);
        relook.tick().await;
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(RuntimeEvent { pod: Some(pod) }) => {
                        if !self.wake(&pod.uid) {
                            self.strangers.notify_one();
                        }
                    }
                    Some(RuntimeEvent { pod: None }) => self.wake_all(),
                    None => return,
                },
                _ = relook.tick() => self.wake_all(),
            }
        }
    }
}

/// The echo of our own status needs no look.
fn only_status_changed(old: &Pod, new: &Pod) -> bool {
    let (a, b) = (&old.metadata, &new.metadata);
    old.spec == new.spec
        && a.labels == b.labels
        && a.annotations == b.annotations
        && a.deletion_timestamp == b.deletion_timestamp
        && a.deletion_grace_period_seconds == b.deletion_grace_period_seconds
        && a.generation == b.generation
}

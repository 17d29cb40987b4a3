//! Carries out ReplicaSet plans, and wakes the sets that a change concerns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use futures_util::future::join_all;
use skiff_client::cache::{Change, Entry};
use skiff_client::event::{Recorder, reference};
use skiff_client::{DeleteOptions, Queue, Target};
use skiff_proto::model::{ReplicaSet, ReplicaSetStatus};
use skiff_proto::{ObjectKey, resource};
use tokio::time::Instant;

use super::expectations::Expectations;
use super::plan::{self, Action, Observed, Plan};
use super::status;
use crate::adoption;
use crate::caches::pod::{Pod, PodView, controller_of};
use crate::caches::{Caches, term};
use crate::timers::Timers;
use crate::worker::Reconcile;
use crate::write::{Failure, Result, Writer};

/// The first batch of creations; each that succeeds doubles the next. Requests that all
/// fail the same way (quota) are thus few.
const FIRST_BATCH: usize = 1;

pub struct ReplicaSetController {
    writer: Writer,
    caches: Arc<Caches>,
    queue: Arc<Queue<ObjectKey>>,
    timers: Arc<Timers<ObjectKey>>,
    expectations: Mutex<Expectations>,
    recorder: Recorder,
}

impl ReplicaSetController {
    pub fn new(writer: Writer, caches: Arc<Caches>, recorder: Recorder) -> Arc<Self> {
        let queue = Queue::new();
        let controller = Arc::new(Self {
            writer,
            caches,
            timers: Timers::new(&queue),
            queue,
            expectations: Mutex::default(),
            recorder,
        });
        let this = controller.clone();
        controller.caches.replica_sets.subscribe(move |change| this.set_changed(change));
        let this = controller.clone();
        controller.caches.pods.subscribe(move |change| this.pod_changed(change));
        controller
    }

    pub fn timers(&self) -> &Arc<Timers<ObjectKey>> {
        &self.timers
    }

    fn expectations(&self) -> MutexGuard<'_, Expectations> {
        self.expectations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_changed(&self, change: &Change<'_, ReplicaSet>) {
        if let (Some(old), None) = (change.old, change.new) {
            self.expectations().forget(old.object.uid());
        }
        self.queue.add(change.key.clone());
    }

    fn pod_changed(&self, change: &Change<'_, PodView>) {
        let owner = |pod: Option<&Pod>| {
            let owner = controller_of(&pod?.object)?;
            (owner.kind == "ReplicaSet").then(|| (owner.uid.clone(), owner.name.clone()))
        };
        let (before, after) = (owner(change.old), owner(change.new));
        if let Some((uid, _)) = &after {
            let new_here = change.old.is_none_or(|old| {
                change.new.is_some_and(|new| old.object.uid() != new.object.uid())
            });
            if new_here {
                self.expectations().created(uid, 1);
            }
        }
        let leaving = change.new.is_none_or(|pod| pod.object.is_terminating());
        let last = change.new.or(change.old);
        if let (true, Some(pod), Some((uid, _))) =
            (leaving, last, after.as_ref().or(before.as_ref()))
        {
            self.expectations().deleted(uid, pod.object.uid());
        }
        for (_, name) in before.iter().chain(&after) {
            self.queue.add(ObjectKey::new(&*change.key.namespace, name));
        }
        if let (None, Some(pod)) = (&after, change.new) {
            let sets = &self.caches.replica_sets;
            for key in adoption::adopters(sets, &pod.object, |set| &set.spec.selector) {
                self.queue.add(key);
            }
        }
    }

    /// The pods of all sets with the same controller, this one included.
    fn related(&self, set: &Entry<ReplicaSet>) -> Vec<Pod> {
        let siblings = match controller_of(&set.object) {
            Some(owner) => self.caches.replica_sets.by(&term::owner(&owner.uid)),
            None => vec![set.clone()],
        };
        let owned = |set: &Entry<ReplicaSet>| self.caches.pods.by(&term::owner(set.object.uid()));
        siblings.iter().flat_map(owned).collect()
    }

    async fn execute(
        &self,
        set: &Entry<ReplicaSet>,
        actions: Vec<Action>,
    ) -> std::result::Result<(), (&'static str, Failure)> {
        for action in actions {
            match action {
                Action::Adopt(key) => {
                    let Some(pod) = self.caches.pods.get(&key) else { continue };
                    let owner = (&resource::REPLICA_SETS, &*set.object);
                    let pod = (&resource::PODS, &*pod.object);
                    let adopted = adoption::adopt(&self.writer, owner, pod);
                    adopted.await.map_err(|f| ("", f))?;
                }
                Action::Release(key) => {
                    let Some(pod) = self.caches.pods.get(&key) else { continue };
                    let pods = &resource::PODS;
                    let released = adoption::release(&self.writer, &set.object, pods, &pod.object);
                    released.await.map_err(|f| ("", f))?;
                }
                Action::Create(count) => {
                    self.create(set, count).await.map_err(|f| ("FailedCreate", f))?;
                }
                Action::Delete(keys) => {
                    self.delete(set, &keys).await.map_err(|f| ("FailedDelete", f))?;
                }
            }
        }
        Ok(())
    }

    async fn create(&self, set: &Entry<ReplicaSet>, count: usize) -> Result<()> {
        let owner = set.object.uid();
        self.expectations().expect_creations(owner, count, Instant::now());
        let pod = plan::new_pod(set);
        let (mut left, mut batch) = (count, FIRST_BATCH);
        while left > 0 {
            let now = batch.min(left);
            left -= now;
            let creations = (0..now).map(|_| self.create_one(set, &pod));
            let failed = join_all(creations).await.into_iter().find_map(Result::err);
            if let Some(failure) = failed {
                // What was not tried will not appear.
                self.expectations().created(owner, left);
                return Err(failure);
            }
            batch *= 2;
        }
        Ok(())
    }

    async fn create_one(&self, set: &Entry<ReplicaSet>, pod: &serde_json::Value) -> Result<()> {
        let about = reference(&set.object);
        match self.writer.create(&resource::PODS, set.object.namespace(), pod).await {
            Ok(pod) => {
                let message = format!("Created pod: {}", pod.name());
                self.recorder.normal(&about, "SuccessfulCreate", message);
                Ok(())
            }
            Err(failure) => {
                self.expectations().created(set.object.uid(), 1);
                if let (false, Some(status)) =
                    (failure.is_namespace_terminating(), failure.status())
                {
                    let message = format!("Error creating: {status}");
                    self.recorder.warning(&about, "FailedCreate", message);
                }
                Err(failure)
            }
        }
    }

    async fn delete(&self, set: &Entry<ReplicaSet>, keys: &[ObjectKey]) -> Result<()> {
        let pods: Vec<Pod> = keys.iter().filter_map(|key| self.caches.pods.get(key)).collect();
        let uids = pods.iter().map(|pod| pod.object.uid().to_owned());
        self.expectations().expect_deletions(set.object.uid(), uids, Instant::now());
        let deletions = pods.iter().map(|pod| self.delete_one(set, pod));
        join_all(deletions).await.into_iter().collect()
    }

    async fn delete_one(&self, set: &Entry<ReplicaSet>, pod: &Pod) -> Result<()> {
        let (name, uid) = (pod.object.name(), pod.object.uid());
        let about = reference(&set.object);
        let target = Target::of(&resource::PODS, &pod.object);
        match self.writer.delete(&target, uid, DeleteOptions::default()).await {
            Ok(Some(_)) => {
                let message = format!("Deleted pod: {name}");
                self.recorder.normal(&about, "SuccessfulDelete", message);
                Ok(())
            }
            Ok(None) => {
                self.expectations().deleted(set.object.uid(), uid);
                Ok(())
            }
            Err(failure) => {
                self.expectations().deleted(set.object.uid(), uid);
                if let Some(status) = failure.status() {
                    let message = format!("Error deleting: {status}");
                    self.recorder.warning(&about, "FailedDelete", message);
                }
                Err(failure)
            }
        }
    }

    async fn write_status(&self, set: &Entry<ReplicaSet>, status: ReplicaSetStatus) -> Result<()> {
        if set.value.status == status {
            return Ok(());
        }
        let write = |value: &mut serde_json::Value| value["status"] = serde_json::json!(status);
        self.writer.update_status(&resource::REPLICA_SETS, &set.object, write).await?;
        Ok(())
    }
}

impl Reconcile for ReplicaSetController {
    type Key = ObjectKey;
    const NAME: &'static str = "replicaset";

    fn queue(&self) -> &Arc<Queue<ObjectKey>> {
        &self.queue
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<()> {
        let Some(set) = self.caches.replica_sets.get(key) else {
            self.timers.set(key, None);
            return Ok(());
        };
        // Before the cache is read: an event in between is then seen by the cache, not lost.
        let settled = self.expectations().settled(set.object.uid(), Instant::now());
        let selector = set
            .value
            .spec
            .selector
            .compile()
            .map_err(|error| Failure::Selector { object: key.clone(), error })?;
        let now = SystemTime::now();
        let candidates = adoption::candidates(&self.caches.pods, &set.object);
        let observed = Observed { set: &set, selector: &selector, candidates, settled, now };
        let Plan { actions, mut status, recheck } = plan::plan(observed, || self.related(&set));
        self.timers.set(key, recheck);
        let outcome = self.execute(&set, actions).await;
        match &outcome {
            Err((reason, failure)) if !reason.is_empty() => {
                let message = failure.status().map(ToString::to_string).unwrap_or_default();
                status::report_failure(&mut status, Some((reason, message)), now);
            }
            Err(_) => {}
            Ok(()) => status::report_failure(&mut status, None, now),
        }
        self.write_status(&set, status).await?;
        outcome.map_err(|(_, failure)| failure)
    }
}

//! Carries out Deployment plans, and wakes the Deployments that a change concerns.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};
use skiff_client::cache::{Change, Entry};
use skiff_client::event::{Recorder, reference};
use skiff_client::{DeleteOptions, Queue, Target};
use skiff_proto::model::{Deployment, DeploymentStatus, ReplicaSet};
use skiff_proto::{Object, ObjectKey, Timestamp, resource};

use super::plan::{self, Action, Observed, Plan, SetUpdate};
use super::set::REVISION;
use super::sizes::is_recreate;
use super::{progress, template};
use crate::adoption;
use crate::caches::pod::{Pod, PodView, controller_of};
use crate::caches::{Caches, term};
use crate::timers::Timers;
use crate::worker::Reconcile;
use crate::write::{Failure, Result, Writer, set_meta};

pub struct DeploymentController {
    writer: Writer,
    caches: Arc<Caches>,
    queue: Arc<Queue<ObjectKey>>,
    timers: Arc<Timers<ObjectKey>>,
    recorder: Recorder,
}

impl DeploymentController {
    pub fn new(writer: Writer, caches: Arc<Caches>, recorder: Recorder) -> Arc<Self> {
        let queue = Queue::new();
        let timers = Timers::new(&queue);
        let controller = Arc::new(Self { writer, caches, timers, queue, recorder });
        let this = controller.clone();
        controller.caches.deployments.subscribe(move |change| this.queue.add(change.key.clone()));
        let this = controller.clone();
        controller.caches.replica_sets.subscribe(move |change| this.set_changed(change));
        let this = controller.clone();
        controller.caches.pods.subscribe(move |change| this.pod_changed(change));
        controller
    }

    pub fn timers(&self) -> &Arc<Timers<ObjectKey>> {
        &self.timers
    }

    fn set_changed(&self, change: &Change<'_, ReplicaSet>) {
        for set in change.old.iter().chain(&change.new) {
            if let Some(owner) = controller_of(&set.object).filter(|o| o.kind == "Deployment") {
                self.queue.add(ObjectKey::new(&*change.key.namespace, &*owner.name));
            }
        }
        let Some(set) = change.new else { return };
        let deployments = &self.caches.deployments;
        for key in adoption::adopters(deployments, &set.object, |d| &d.spec.selector) {
            self.queue.add(key);
        }
    }

    /// Only a Deployment that recreates waits for pods to end.
    fn pod_changed(&self, change: &Change<'_, PodView>) {
        let ended = change.new.is_none_or(|pod| pod.value.phase.is_terminal());
        let Some(pod) = change.old.filter(|_| ended) else { return };
        let deployment = self.deployment_of(pod);
        if let Some(deployment) = deployment.filter(|d| is_recreate(&d.value.spec)) {
            self.queue.add(deployment.object.key());
        }
    }

    fn deployment_of(&self, pod: &Pod) -> Option<Entry<Deployment>> {
        let owner = controller_of(&pod.object).filter(|owner| owner.kind == "ReplicaSet")?;
        let namespace = pod.object.namespace();
        let set = self.caches.replica_sets.get(&ObjectKey::new(namespace, &*owner.name))?;
        let owner = controller_of(&set.object).filter(|owner| owner.kind == "Deployment")?;
        self.caches.deployments.get(&ObjectKey::new(namespace, &*owner.name))
    }

    fn running_sets(
        &self,
        deployment: &Entry<Deployment>,
        sets: &[Entry<ReplicaSet>],
    ) -> Vec<String> {
        if !is_recreate(&deployment.value.spec) {
            return Vec::new();
        }
        let runs = |set: &&Entry<ReplicaSet>| {
            let pods = self.caches.pods.by(&term::owner(set.object.uid()));
            pods.iter().any(|pod| !pod.value.phase.is_terminal())
        };
        let owned = sets.iter().filter(|set| controller_of(&set.object).is_some());
        owned.filter(runs).map(|set| set.object.uid().to_owned()).collect()
    }

    fn set(&self, deployment: &Object, name: &str) -> Result<Entry<ReplicaSet>> {
        let key = ObjectKey::new(deployment.namespace(), name);
        let set = self.caches.replica_sets.get(&key);
        set.ok_or_else(|| Failure::Waiting(format!("replica set {key}")))
    }

    async fn execute(&self, deployment: &Entry<Deployment>, actions: Vec<Action>) -> Result<()> {
        // Carries the resourceVersion from one write of the Deployment to the next.
        let mut latest = deployment.object.clone();
        for action in actions {
            match action {
                Action::Adopt(name) => {
                    let set = self.set(&latest, &name)?;
                    let owner = (&resource::DEPLOYMENTS, &*deployment.object);
                    let set = (&resource::REPLICA_SETS, &*set.object);
                    adoption::adopt(&self.writer, owner, set).await?;
                }
                Action::Release(name) => {
                    let set = self.set(&latest, &name)?;
                    let sets = &resource::REPLICA_SETS;
                    adoption::release(&self.writer, &latest, sets, &set.object).await?;
                }
                Action::CreateSet { name, replicas, object } => {
                    self.create_set(deployment, &name, replicas, &object).await?;
                }
                Action::UpdateSet(update) => self.update_set(&latest, update).await?,
                Action::DeleteSet(name) => {
                    let set = self.set(&latest, &name)?;
                    let target = Target::of(&resource::REPLICA_SETS, &set.object);
                    let options = DeleteOptions::default();
                    self.writer.delete(&target, set.object.uid(), options).await?;
                }
                Action::SetRevision(revision) => {
                    let edit = |v: &mut Value| set_meta(v, "annotations", REVISION, &revision);
                    latest = self.writer.update(&resource::DEPLOYMENTS, &latest, edit).await?;
                }
                Action::Warn { reason, message } => {
                    self.recorder.warning(&reference(&latest), reason, message);
                }
                Action::UpdateStatus(status) => self.write_status(&latest, &status).await?,
            }
        }
        Ok(())
    }

    async fn write_status(&self, deployment: &Object, status: &DeploymentStatus) -> Result<()> {
        let edit = |value: &mut Value| value["status"] = json!(status);
        self.writer.update_status(&resource::DEPLOYMENTS, deployment, edit).await?;
        Ok(())
    }

    async fn create_set(
        &self,
        deployment: &Entry<Deployment>,
        name: &str,
        replicas: i32,
        object: &Value,
    ) -> Result<()> {
        let about = &deployment.object;
        let created = self.writer.create(&resource::REPLICA_SETS, about.namespace(), object).await;
        let failure = match created {
            Ok(_) => {
                if replicas > 0 {
                    let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                    self.recorder.normal(&reference(about), "ScalingReplicaSet", message);
                }
                return Ok(());
            }
            Err(failure) => failure,
        };
        let Some(status) = failure.status() else { return Err(failure) };
        if status.is_already_exists() {
            return self.resolve_collision(deployment, name).await;
        }
        if !failure.is_namespace_terminating() {
            let why = status.to_string();
            let message = format!("Failed to create new replica set {name:?}: {why}");
            self.recorder.warning(&reference(about), "FailedCreate", message);
            let now = Timestamp::seconds(SystemTime::now());
            let observed = deployment.value.status.clone();
            if deployment.value.spec.progress_deadline_seconds.is_some() {
                let failed = progress::creation_failed(observed, name, &why, now);
                if failed != deployment.value.status {
                    self.write_status(about, &failed).await?;
                }
            }
        }
        Err(failure)
    }

    /// The name is taken: by our own set that the cache does not show yet, or by another
    /// template with the same hash. Then a count goes into the hash from now on.
    async fn resolve_collision(&self, deployment: &Entry<Deployment>, name: &str) -> Result<()> {
        let about = &deployment.object;
        let target = Target::one(&resource::REPLICA_SETS, about.namespace(), name);
        let taken = self.writer.get(&target).await?;
        let value: ReplicaSet = taken.parse().map_err(|error| Failure::Json {
            resource: resource::REPLICA_SETS,
            object: taken.key().to_string(),
            error,
        })?;
        let ours = controller_of(&taken).is_some_and(|owner| owner.uid == about.uid());
        let wanted = &deployment.value.spec.template;
        if ours && template::equal_but_hash(&value.spec.template, wanted) {
            return Err(Failure::Waiting(format!("replica set {} to show", taken.key())));
        }
        let mut status = deployment.value.status.clone();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        tracing::info!(deployment = %about.key(), name, "template hash taken, trying the next");
        self.write_status(about, &status).await?;
        Err(Failure::Waiting(format!("deployment {} to show its collision count", about.key())))
    }

    async fn update_set(&self, deployment: &Object, update: SetUpdate) -> Result<()> {
        let set = self.set(deployment, &update.name)?;
        let edit = |value: &mut Value| {
            value["spec"]["replicas"] = update.to.into();
            if let Some(seconds) = update.min_ready_seconds {
                value["spec"]["minReadySeconds"] = seconds.into();
            }
            for (key, text) in &update.annotations {
                set_meta(value, "annotations", key, text);
            }
        };
        self.writer.update(&resource::REPLICA_SETS, &set.object, edit).await?;
        if update.from != update.to {
            let direction = if update.to > update.from { "up" } else { "down" };
            let SetUpdate { name, from, to, .. } = &update;
            let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
            self.recorder.normal(&reference(deployment), "ScalingReplicaSet", message);
        }
        Ok(())
    }
}

impl Reconcile for DeploymentController {
    type Key = ObjectKey;
    const NAME: &'static str = "deployment";

    fn queue(&self) -> &Arc<Queue<ObjectKey>> {
        &self.queue
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<()> {
        let Some(deployment) = self.caches.deployments.get(key) else {
            self.timers.set(key, None);
            return Ok(());
        };
        let selector = deployment
            .value
            .spec
            .selector
            .compile()
            .map_err(|error| Failure::Selector { object: key.clone(), error })?;
        let candidates = adoption::candidates(&self.caches.replica_sets, &deployment.object);
        let running_sets = self.running_sets(&deployment, &candidates);
        let observed = Observed {
            deployment: &deployment,
            selector: &selector,
            candidates,
            running_sets,
            now: SystemTime::now(),
        };
        let Plan { actions, recheck } = plan::plan(observed);
        self.timers.set(key, recheck);
        self.execute(&deployment, actions).await
    }
}

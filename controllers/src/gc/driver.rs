//! Carries out the garbage collector's plans. The graph may be behind: before anything
//! goes, the server is asked about the object and about owners that the graph lacks.

use std::sync::Arc;

use serde_json::Value;
use skiff_client::{DeleteOptions, Queue, Target};
use skiff_proto::status::reason;
use skiff_proto::{Object, OwnerReference};

use super::plan::{self, Action, Observed, Owner};
use crate::graph::{FOREGROUND, Feed, ORPHAN, OwnerState, Uid};
use crate::ownership;
use crate::worker::Reconcile;
use crate::write::{Result, Writer, remove_finalizer};

pub struct GarbageCollector {
    writer: Writer,
    feed: Arc<Feed>,
}

impl GarbageCollector {
    pub fn new(writer: Writer, feed: Arc<Feed>) -> Arc<Self> {
        Arc::new(Self { writer, feed })
    }

    fn target(&self, uid: &str) -> Option<Target> {
        let graph = self.feed.graph();
        let node = graph.node(uid)?;
        let resource = self.feed.resource(node.resource)?;
        Some(Target::one(resource, &node.key.namespace, &node.key.name))
    }

    /// The object as the server has it, if it is still the same one.
    async fn live(&self, uid: &str) -> Result<Option<(Target, Arc<Object>)>> {
        let Some(target) = self.target(uid) else { return Ok(None) };
        let live = self.writer.find(&target).await?.filter(|object| object.uid() == uid);
        Ok(live.map(|object| (target, object)))
    }

    async fn owner(&self, namespace: &str, owner: &OwnerReference) -> Result<Owner> {
        match self.feed.graph().owner_state(&owner.uid) {
            Some(OwnerState::Present) => return Ok(Owner::Solid),
            Some(OwnerState::WaitingForDependents) => return Ok(Owner::Waiting),
            None => {}
        }
        let Some(info) = self.feed.table.of_kind(&owner.api_version, &owner.kind) else {
            tracing::debug!(
                owner = owner.name,
                kind = owner.kind,
                "kind of owner is not served, leaving it"
            );
            return Ok(Owner::Solid);
        };
        let namespace = if info.namespaced { namespace } else { "" };
        if info.namespaced && namespace.is_empty() {
            // A cluster-scoped object cannot be owned from a namespace.
            return Ok(Owner::Solid);
        }
        let found = self.writer.find(&Target::one(&info.resource, namespace, &owner.name)).await?;
        Ok(match found.filter(|object| object.uid() == owner.uid) {
            None => Owner::Dangling,
            Some(object) if object.is_terminating() && has(&object, FOREGROUND) => Owner::Waiting,
            Some(_) => Owner::Solid,
        })
    }

    async fn execute(&self, target: &Target, live: &Object, action: Action) -> Result<()> {
        match action {
            Action::OrphanDependents(uids) => {
                let owner = live.uid();
                self.edit_all(&uids, |value| ownership::release(value, owner)).await?;
            }
            Action::Unblock(uids) => {
                let owner = live.uid();
                self.edit_all(&uids, |value| unblock(value, owner)).await?;
            }
            Action::RemoveFinalizer(finalizer) => {
                let edit = |value: &mut Value| remove_finalizer(value, finalizer);
                self.writer.update(&target.resource, live, edit).await?;
            }
            Action::LookAt(uids) => uids.into_iter().for_each(|uid| self.feed.suspects.add(uid)),
            Action::DropOwners(uids) => {
                let edit = |v: &mut Value| uids.iter().for_each(|uid| ownership::release(v, uid));
                self.writer.update(&target.resource, live, edit).await?;
            }
            Action::Delete(propagation) => {
                // Of exactly what was judged: with an owner added since, it stays.
                let resource_version = live.resource_version().to_owned();
                let options = DeleteOptions { propagation, resource_version, ..Default::default() };
                let key = live.key();
                tracing::debug!(resource = %target.resource, object = %key, ?propagation, "no owner left, deleting");
                self.writer.delete(target, live.uid(), options).await?;
            }
        }
        Ok(())
    }

    async fn edit_all(&self, uids: &[Uid], edit: impl Fn(&mut Value)) -> Result<()> {
        for uid in uids {
            if let Some((target, live)) = self.live(uid).await? {
                self.writer.update(&target.resource, &live, |value| edit(value)).await?;
            }
        }
        Ok(())
    }
}

fn has(object: &Object, finalizer: &str) -> bool {
    object.index.metadata.finalizers.iter().any(|f| f == finalizer)
}

fn unblock(object: &mut Value, owner_uid: &str) {
    let references = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut);
    for reference in references.into_iter().flatten() {
        if reference["uid"] == owner_uid {
            reference["blockOwnerDeletion"] = false.into();
        }
    }
}

impl Reconcile for GarbageCollector {
    type Key = Uid;
    const NAME: &'static str = "garbage-collector";

    fn queue(&self) -> &Arc<Queue<Uid>> {
        &self.feed.suspects
    }

    async fn reconcile(&self, uid: &Uid) -> Result<()> {
        let Some((target, live)) = self.live(uid).await? else { return Ok(()) };
        let mut owners = Vec::new();
        for owner in &live.index.metadata.owner_references {
            owners.push((owner.uid.clone(), self.owner(live.namespace(), owner).await?));
        }
        let dependents = self.feed.graph().dependents(uid);
        let observed = Observed {
            terminating: live.is_terminating(),
            foreground: has(&live, FOREGROUND),
            orphan: has(&live, ORPHAN),
            owners,
            dependents,
        };
        for action in plan::plan(observed) {
            let done = self.execute(&target, &live, action).await;
            // Somebody may have removed it meanwhile.
            if let Err(failure) = done {
                if failure.status().is_some_and(|s| s.is(reason::NOT_FOUND)) {
                    return Ok(());
                }
                return Err(failure);
            }
        }
        Ok(())
    }
}

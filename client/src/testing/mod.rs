//! An API server in memory for tests of components, honest in what they depend on:
//! resourceVersions and conflicts, the status and finalize faces, generations, generated
//! names, finalizers and propagation, grace periods, bindings, selectors, watches that resume
//! or have expired. It neither defaults nor validates, keeps all users equal, and refuses what
//! it does not serve instead of pretending.
//!
//! `suite` holds it to its word: the same checks run on it and on the real API server.

mod api;
mod follow;
mod merge;
mod objects;
pub mod suite;
mod writes;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde_json::Value;
use skiff_proto::{Object, Resource, Status, resource};
use tokio::sync::{Notify, watch};

use crate::api::{Result, Target};
use objects::State;

/// A condition that a test waits for and that takes longer never comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The fake. Methods beside those of `Api` are the test's own hand in the cluster.
pub struct FakeApi {
    state: Mutex<State>,
    faults: Mutex<Vec<Fault>>,
    calls: Mutex<HashMap<(String, Resource), usize>>,
    changed: Notify,
    /// The resource whose lists wait.
    held: watch::Sender<Option<Resource>>,
    /// How late watchers hear of a change.
    lag: Duration,
    /// For streams, which outlive the call that opened them.
    this: Weak<Self>,
}

struct Fault {
    verb: &'static str,
    resource: Resource,
    left: usize,
    status: Status,
}

impl FakeApi {
    /// A cluster of the four namespaces that every cluster has.
    pub fn new() -> Arc<Self> {
        Self::late(Duration::ZERO)
    }

    /// One whose watchers hear of each change only after this time.
    pub fn late(lag: Duration) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            state: Mutex::new(State::new()),
            faults: Mutex::default(),
            calls: Mutex::default(),
            changed: Notify::new(),
            held: watch::Sender::new(None),
            lag,
            this: this.clone(),
        })
    }

    /// Makes an object what it is given as, status included, whoever would have written it.
    pub fn put(&self, resource: &Resource, value: Value) -> Arc<Object> {
        self.write(|state| state.put(resource, value)).expect("the fake takes the object")
    }

    /// Edits one object as its owner would, whatever its version.
    pub fn edit(&self, target: &Target, edit: impl FnOnce(&mut Value)) -> Arc<Object> {
        let edited = self.write(|state| {
            let mut value = state.value(target)?;
            edit(&mut value);
            if let Some(metadata) = value["metadata"].as_object_mut() {
                metadata.remove("resourceVersion");
            }
            state.update(target, value)
        });
        edited.expect("the fake takes the edit")
    }

    /// Removes an object at once, as if nothing held it.
    pub fn remove(&self, resource: &Resource, namespace: &str, name: &str) {
        self.write(|state| state.remove(&Target::one(resource, namespace, name)));
    }

    /// All objects of a resource, in the order of namespace and name.
    pub fn all(&self, resource: &Resource) -> Vec<Value> {
        self.read(|state| state.all(resource))
    }

    pub fn count(&self, resource: &Resource) -> usize {
        self.all(resource).len()
    }

    /// One object; null if it is not there.
    pub fn value(&self, resource: &Resource, namespace: &str, name: &str) -> Value {
        let target = Target::one(resource, namespace, name);
        self.read(|state| state.value(&target)).unwrap_or_default()
    }

    /// How often objects of a resource were created.
    pub fn created(&self, resource: &Resource) -> usize {
        self.read(|state| state.changes_of(resource).filter(|c| c.old.is_none()).count())
    }

    /// How often an object was written, its creation included.
    pub fn writes(&self, resource: &Resource, name: &str) -> usize {
        let named = |change: &&objects::Change| {
            change.new.as_ref().is_some_and(|object| object.name() == name)
        };
        self.read(|state| state.changes_of(resource).filter(named).count())
    }

    /// The next `times` calls of a verb on a resource (`create`, `pods`) fail with `status`;
    /// a subresource's verb is `create binding`.
    pub fn fail(&self, verb: &'static str, resource: &Resource, times: usize, status: Status) {
        let fault = Fault { verb, resource: resource.clone(), left: times, status };
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    /// How often a verb was called on a resource, named as for `fail`.
    pub fn calls(&self, verb: &str, resource: &Resource) -> usize {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.get(&(verb.to_owned(), resource.clone())).copied().unwrap_or(0)
    }

    /// Lists of this resource wait until none is held, as a slow server's would.
    pub fn hold(&self, resource: Option<&Resource>) {
        self.held.send_replace(resource.cloned());
    }

    async fn released(&self, resource: &Resource) {
        let mut held = self.held.subscribe();
        let _ = held.wait_for(|held| held.as_ref() != Some(resource)).await;
    }

    /// Forgets all history: who watches from an older version must list again.
    pub fn compact(&self) {
        self.write(State::compact);
    }

    /// Returns once the condition holds, looking after every change.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if holds(self) {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("never came true: {what}\n{}", self.read(State::dump));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state())
    }

    fn write<T>(&self, write: impl FnOnce(&mut State) -> T) -> T {
        let result = write(&mut self.state());
        self.changed.notify_waiters();
        result
    }

    /// Counts the call; fails if a fault was set for it.
    fn admit(&self, verb: &str, target: &Target) -> Result<()> {
        let verb = match target.subresource.as_str() {
            "" => verb.to_owned(),
            subresource => format!("{verb} {subresource}"),
        };
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        *calls.entry((verb.clone(), target.resource.clone())).or_default() += 1;
        drop(calls);
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = faults
            .iter_mut()
            .find(|f| f.left > 0 && f.verb == verb && f.resource == target.resource);
        match fault {
            Some(fault) => {
                fault.left -= 1;
                Err(fault.status.clone())
            }
            None => Ok(()),
        }
    }
}

/// A kind as the fake knows it.
#[derive(Debug)]
pub struct Served {
    pub resource: Resource,
    pub kind: &'static str,
    pub namespaced: bool,
    /// Status is a face of its own.
    pub has_status: bool,
    /// `metadata.generation` counts changes of the spec.
    pub has_generation: bool,
}

/// The kinds served.
pub static SERVED: &[Served] = &[
    served(resource::NAMESPACES, "Namespace", false, true, false),
    served(resource::NODES, "Node", false, true, false),
    served(resource::PODS, "Pod", true, true, false),
    served(resource::SERVICES, "Service", true, true, false),
    served(resource::ENDPOINTS, "Endpoints", true, false, false),
    served(resource::ENDPOINT_SLICES, "EndpointSlice", true, false, true),
    served(resource::CONFIG_MAPS, "ConfigMap", true, false, false),
    served(resource::SECRETS, "Secret", true, false, false),
    served(resource::SERVICE_ACCOUNTS, "ServiceAccount", true, false, false),
    served(resource::EVENTS, "Event", true, false, false),
    served(resource::LEASES, "Lease", true, false, false),
    served(resource::DEPLOYMENTS, "Deployment", true, true, true),
    served(resource::REPLICA_SETS, "ReplicaSet", true, true, true),
    served(resource::INGRESSES, "Ingress", true, true, true),
    served(resource::INGRESS_CLASSES, "IngressClass", false, false, true),
];

const fn served(
    resource: Resource,
    kind: &'static str,
    namespaced: bool,
    has_status: bool,
    has_generation: bool,
) -> Served {
    Served { resource, kind, namespaced, has_status, has_generation }
}

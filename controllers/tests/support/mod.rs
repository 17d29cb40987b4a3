//! An API server in memory with upstream's meaning where controllers depend on it:
//! resourceVersions and conflicts, generations, the status and finalize faces, generated
//! names, finalizers and propagation, watches that resume. It validates nothing.

mod api;
mod state;

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use skiff_client::api::*;
use skiff_proto::{Object, Resource, resource};
use tokio::sync::Notify;

use state::State;

pub struct FakeApi {
    state: Mutex<State>,
    changed: Notify,
    /// How late watchers hear of a change.
    pub lag: Duration,
    /// For streams, which outlive the call that opened them.
    this: Weak<Self>,
}

impl FakeApi {
    pub fn new(lag: Duration) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            state: Mutex::default(),
            changed: Notify::new(),
            lag,
            this: this.clone(),
        })
    }

    pub async fn make(&self, resource: &Resource, value: Value) -> Arc<Object> {
        let namespace = value["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let json = Bytes::from(value.to_string());
        let target = Target::all(resource, &namespace);
        self.create(&target, json, &WriteOptions::default()).await.expect("created")
    }

    /// Edits one object as a user or kubelet would.
    pub async fn edit(&self, target: &Target, edit: impl FnOnce(&mut Value)) {
        let mut value: Value = self.get(target).await.expect("there").parse().expect("json");
        edit(&mut value);
        if let Some(meta) = value["metadata"].as_object_mut() {
            meta.remove("resourceVersion");
        }
        let json = Bytes::from(value.to_string());
        self.update(target, json, &WriteOptions::default()).await.expect("updated");
    }

    pub fn all(&self, resource: &Resource) -> Vec<Value> {
        self.state.lock().expect("not poisoned").all(resource)
    }

    pub fn count(&self, resource: &Resource) -> usize {
        self.all(resource).len()
    }

    /// The number of times objects of a resource were created.
    pub fn created(&self, resource: &Resource) -> usize {
        self.state.lock().expect("not poisoned").created(resource)
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
        if tokio::time::timeout(Duration::from_secs(60), waiting).await.is_err() {
            let state = self.state.lock().expect("not poisoned");
            panic!("never came true: {what}\n{}", state.dump());
        }
    }
}

/// The kinds served.
pub fn served() -> Vec<(Resource, &'static str, bool)> {
    vec![
        (resource::NAMESPACES, "Namespace", false),
        (resource::NODES, "Node", false),
        (resource::PODS, "Pod", true),
        (resource::SERVICES, "Service", true),
        (resource::ENDPOINTS, "Endpoints", true),
        (resource::CONFIG_MAPS, "ConfigMap", true),
        (resource::SERVICE_ACCOUNTS, "ServiceAccount", true),
        (resource::EVENTS, "Event", true),
        (resource::LEASES, "Lease", true),
        (resource::DEPLOYMENTS, "Deployment", true),
        (resource::REPLICA_SETS, "ReplicaSet", true),
        (resource::ENDPOINT_SLICES, "EndpointSlice", true),
    ]
}

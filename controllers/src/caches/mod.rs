//! The caches that all controllers share: one watch a resource, however many read it.

pub mod pod;
pub mod store;

use std::sync::Arc;

use serde::de::DeserializeOwned;
use skiff_client::Api;
use skiff_client::cache::Entry;
use skiff_proto::model::{
    ConfigMap, Deployment, EndpointSlice, Endpoints, Lease, Namespace, Node, ReplicaSet,
    SERVICE_NAME_LABEL, Service, ServiceAccount,
};
use skiff_proto::{FieldSelector, Object, ObjectKey, resource};
use tokio_util::sync::CancellationToken;

use crate::serviceaccount::ROOT_CA;
pub use pod::{Pod, PodView};
pub use store::Store;

/// Node heartbeats live here.
pub const NODE_LEASE_NAMESPACE: &str = "kube-node-lease";

pub struct Caches {
    pub pods: Arc<Store<PodView>>,
    pub services: Arc<Store<Service>>,
    pub deployments: Arc<Store<Deployment>>,
    pub replica_sets: Arc<Store<ReplicaSet>>,
    pub endpoint_slices: Arc<Store<EndpointSlice>>,
    pub endpoints: Arc<Store<Endpoints>>,
    pub nodes: Arc<Store<Node>>,
    pub namespaces: Arc<Store<Namespace>>,
    /// Only those of nodes.
    pub leases: Arc<Store<Lease>>,
    pub service_accounts: Arc<Store<ServiceAccount>>,
    /// The ConfigMaps that publish the cluster CA.
    pub root_cas: Arc<Store<ConfigMap>>,
}

impl Caches {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            pods: Store::new(&resource::PODS, pod::view, pod_terms),
            services: Store::new(&resource::SERVICES, typed, in_namespace),
            deployments: Store::new(&resource::DEPLOYMENTS, typed, in_namespace),
            replica_sets: Store::new(&resource::REPLICA_SETS, typed, owned),
            endpoint_slices: Store::new(&resource::ENDPOINT_SLICES, typed, of_service),
            endpoints: Store::new(&resource::ENDPOINTS, typed, no_terms),
            nodes: Store::new(&resource::NODES, typed, no_terms),
            namespaces: Store::new(&resource::NAMESPACES, typed, no_terms),
            leases: Store::new(&resource::LEASES, typed, no_terms),
            service_accounts: Store::new(&resource::SERVICE_ACCOUNTS, typed, no_terms),
            root_cas: Store::new(&resource::CONFIG_MAPS, typed, no_terms),
        })
    }

    /// Starts all watches; listeners must have subscribed.
    pub fn start(&self, api: &Arc<dyn Api>, shutdown: &CancellationToken) {
        self.pods.start(api, shutdown);
        self.services.start(api, shutdown);
        self.deployments.start(api, shutdown);
        self.replica_sets.start(api, shutdown);
        self.endpoint_slices.start(api, shutdown);
        self.endpoints.start(api, shutdown);
        self.nodes.start(api, shutdown);
        self.namespaces.start(api, shutdown);
        let leases = skiff_client::Cache::projected(api.clone(), &resource::LEASES, typed)
            .namespace(NODE_LEASE_NAMESPACE);
        self.leases.start_with(leases, shutdown);
        self.service_accounts.start(api, shutdown);
        let root_cas = skiff_client::Cache::projected(api.clone(), &resource::CONFIG_MAPS, typed)
            .fields(FieldSelector::equal("metadata.name", ROOT_CA));
        self.root_cas.start_with(root_cas, shutdown);
    }

    pub async fn synced(&self) {
        self.pods.synced().await;
        self.services.synced().await;
        self.deployments.synced().await;
        self.replica_sets.synced().await;
        self.endpoint_slices.synced().await;
        self.endpoints.synced().await;
        self.nodes.synced().await;
        self.namespaces.synced().await;
        self.leases.synced().await;
        self.service_accounts.synced().await;
        self.root_cas.synced().await;
    }
}

/// What objects are found by.
pub mod term {
    pub fn owner(uid: &str) -> String {
        format!("owner/{uid}")
    }

    /// Objects of a namespace without a controller.
    pub fn orphans(namespace: &str) -> String {
        format!("orphan/{namespace}")
    }

    pub fn namespace(namespace: &str) -> String {
        format!("namespace/{namespace}")
    }

    pub fn node(name: &str) -> String {
        format!("node/{name}")
    }

    pub fn label(namespace: &str, key: &str, value: &str) -> String {
        format!("label/{namespace}/{key}={value}")
    }

    pub fn service(namespace: &str, name: &str) -> String {
        format!("service/{namespace}/{name}")
    }
}

fn typed<T: DeserializeOwned>(object: &Arc<Object>) -> Result<T, serde_json::Error> {
    object.parse()
}

fn no_terms<T>(_: &Entry<T>) -> Vec<String> {
    Vec::new()
}

fn in_namespace<T>(entry: &Entry<T>) -> Vec<String> {
    vec![term::namespace(entry.object.namespace())]
}

fn owned<T>(entry: &Entry<T>) -> Vec<String> {
    vec![owner_term(&entry.object), term::namespace(entry.object.namespace())]
}

fn owner_term(object: &Object) -> String {
    match pod::controller_of(object) {
        Some(owner) => term::owner(&owner.uid),
        None => term::orphans(object.namespace()),
    }
}

fn of_service(entry: &Entry<EndpointSlice>) -> Vec<String> {
    service_of(&entry.object)
        .map(|key| term::service(&key.namespace, &key.name))
        .into_iter()
        .collect()
}

/// The Service that an EndpointSlice belongs to.
pub fn service_of(slice: &Object) -> Option<ObjectKey> {
    let name = slice.labels().get(SERVICE_NAME_LABEL)?;
    Some(ObjectKey::new(slice.namespace(), name))
}

fn pod_terms(pod: &Pod) -> Vec<String> {
    let mut terms = vec![owner_term(&pod.object)];
    if !pod.value.node_name.is_empty() {
        terms.push(term::node(&pod.value.node_name));
    }
    let namespace = pod.object.namespace();
    terms.extend(pod.object.labels().iter().map(|(k, v)| term::label(namespace, k, v)));
    terms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use serde_json::json;

    #[test]
    fn a_pod_is_found_by_owner_node_and_labels() {
        let owned = pod(json!({
            "metadata": {"name": "p", "namespace": "shop", "labels": {"app": "web"},
                "ownerReferences": [{"uid": "other"}, {"uid": "rs", "controller": true}]},
            "spec": {"nodeName": "n1"}
        }));
        assert_eq!(pod_terms(&owned), ["owner/rs", "node/n1", "label/shop/app=web"]);
        let orphan = pod(json!({"metadata": {"name": "p", "namespace": "shop"}}));
        assert_eq!(pod_terms(&orphan), ["orphan/shop"]);
    }
}

//! All controllers together against an API: from a Deployment to endpoints, through
//! rollouts and removals, with watches that are late.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use skiff_client::api::*;
use skiff_client::testing::{FakeApi, SERVED};
use skiff_controllers::{Config, run};
use skiff_proto::{Resource, Timestamp, resource};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The controllers under test, and a kubelet that makes every pod ready.
struct Cluster {
    api: Arc<FakeApi>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Cluster {
    async fn start(lag: u64, config: Config) -> Self {
        let api = FakeApi::late(Duration::from_millis(lag));
        let stop = CancellationToken::new();
        api.put(&resource::NAMESPACES, object("Namespace", "", "shop", json!({})));
        let (sender, ready) = tokio::sync::oneshot::channel();
        let (core, token) = (api.clone(), stop.clone());
        let controllers = tokio::spawn(async move {
            let ready = move || sender.send(()).expect("still waited for");
            run(core, config, token, Box::new(ready)).await.expect("ends well");
        });
        ready.await.expect("becomes ready");
        let kubelet = tokio::spawn(kubelet(api.clone(), stop.clone()));
        Self { api, stop, tasks: vec![controllers, kubelet] }
    }

    async fn end(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.expect("ends");
        }
    }
}

fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    let api_version = match kind {
        "Deployment" | "ReplicaSet" => "apps/v1",
        "Lease" => "coordination.k8s.io/v1",
        _ => "v1",
    };
    let mut metadata = json!({"name": name});
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec})
}

fn deployment(replicas: i32) -> Value {
    object(
        "Deployment",
        "shop",
        "web",
        json!({
            "replicas": replicas, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}
        }),
    )
}

/// Schedules and runs what is not running, and ends what is asked to go.
async fn kubelet(api: Arc<FakeApi>, stop: CancellationToken) {
    let mut number = 0;
    while !stop.is_cancelled() {
        for pod in api.all(&resource::PODS) {
            let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
            let target = Target::one(&resource::PODS, &text("namespace"), &text("name"));
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                let now =
                    DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
                let _ = api.delete(&target, &now).await;
            } else if pod["status"]["phase"] == "Pending" {
                number += 1;
                let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {},
                                     "target": {"kind": "Node", "name": "n1"}});
                let binding = binding.to_string().into();
                let bind = target.clone().subresource("binding");
                // One that has a node already refuses.
                let _ = api.create(&bind, binding, &WriteOptions::default()).await;
                let Ok(bound) = api.get(&target).await else { continue };
                let mut new: Value = bound.parse().expect("json");
                new["status"] = json!({"phase": "Running", "podIP": format!("10.42.0.{number}"),
                    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z"}]});
                let status = target.subresource("status");
                let _ = api.update(&status, new.to_string().into(), &WriteOptions::default()).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn node(api: &FakeApi, name: &str) {
    let mut node = object("Node", "", name, json!({}));
    node["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    api.put(&resource::NODES, node);
}

fn web() -> Target {
    Target::one(&resource::DEPLOYMENTS, "shop", "web")
}

fn available(api: &FakeApi) -> i64 {
    let deployments = api.all(&resource::DEPLOYMENTS);
    deployments[0]["status"]["availableReplicas"].as_i64().unwrap_or(0)
}

fn is_done(api: &FakeApi, image: &str) -> bool {
    let pods = api.all(&resource::PODS);
    let of = |pod: &Value| pod["spec"]["containers"][0]["image"] == image;
    pods.iter().all(of)
        && progressing(api) == "NewReplicaSetAvailable"
        && pods.len() as i64 == available(api)
}

fn progressing(api: &FakeApi) -> String {
    let deployments = api.all(&resource::DEPLOYMENTS);
    let conditions = deployments[0]["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|c| c["type"] == "Progressing");
    found.map(|c| c["reason"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
}

fn addresses(api: &FakeApi) -> usize {
    let slices = api.all(&resource::ENDPOINT_SLICES);
    slices.iter().map(|slice| slice["endpoints"].as_array().map_or(0, Vec::len)).sum()
}

fn empty(api: &FakeApi, kinds: &[&Resource]) -> bool {
    kinds.iter().all(|resource| api.count(resource) == 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_deployment_comes_rolls_scales_and_goes() {
    // Late watches: nothing may be made twice because a cache does not show it yet.
    let cluster = Cluster::start(3, Config::default()).await;
    let api = &cluster.api;
    node(api, "n1");
    let service = json!({"clusterIP": "10.43.0.9", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]});
    api.put(&resource::SERVICES, object("Service", "shop", "web", service));
    api.put(&resource::DEPLOYMENTS, deployment(5));
    api.until("five pods run", |api| available(api) == 5 && is_done(api, "v1")).await;
    assert_eq!(api.created(&resource::REPLICA_SETS), 1);
    assert_eq!(api.created(&resource::PODS), 5);
    api.until("five addresses", |api| addresses(api) == 5).await;
    api.until("endpoints follow", |api| {
        let of_web = api.all(&resource::ENDPOINTS);
        of_web
            .first()
            .is_some_and(|e| e["subsets"][0]["addresses"].as_array().map_or(0, Vec::len) == 5)
    })
    .await;

    api.edit(&web(), |d| d["spec"]["template"]["spec"]["containers"][0]["image"] = "v2".into());
    api.until("the new image everywhere", |api| is_done(api, "v2") && available(api) == 5).await;
    assert_eq!(api.created(&resource::PODS), 10);
    assert_eq!(
        api.all(&resource::DEPLOYMENTS)[0]["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "2"
    );

    api.edit(&web(), |d| d["spec"]["replicas"] = 2.into());
    api.until("two pods", |api| api.count(&resource::PODS) == 2 && available(api) == 2).await;
    api.until("two addresses", |api| addresses(api) == 2).await;

    api.delete(&web(), &DeleteOptions::default()).await.expect("deleted");
    let derived = [&resource::DEPLOYMENTS, &resource::REPLICA_SETS, &resource::PODS];
    api.until("all of it is gone", |api| empty(api, &derived)).await;
    let service = Target::one(&resource::SERVICES, "shop", "web");
    api.delete(&service, &DeleteOptions::default()).await.expect("deleted");
    let derived = [&resource::ENDPOINT_SLICES, &resource::ENDPOINTS];
    api.until("its endpoints are gone", |api| empty(api, &derived)).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_tell_what_was_done() {
    let cluster = Cluster::start(0, Config::default()).await;
    let api = &cluster.api;
    api.put(&resource::DEPLOYMENTS, deployment(1));
    api.until("one pod runs", |api| is_done(api, "v1") && available(api) == 1).await;
    let set =
        api.all(&resource::REPLICA_SETS)[0]["metadata"]["name"].as_str().expect("named").to_owned();
    let pod = api.all(&resource::PODS)[0]["metadata"]["name"].as_str().expect("named").to_owned();
    assert!(pod.starts_with(&format!("{set}-")), "{pod}");
    let told = |api: &FakeApi, reason: &str, message: &str| {
        api.all(&resource::EVENTS).iter().any(|e| e["reason"] == reason && e["message"] == message)
    };
    let scaled = format!("Scaled up replica set {set} from 0 to 1");
    api.until("the scaling is told", |api| told(api, "ScalingReplicaSet", &scaled)).await;
    let created = format!("Created pod: {pod}");
    api.until("the creation is told", |api| told(api, "SuccessfulCreate", &created)).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pods_are_adopted_released_and_replaced() {
    let cluster = Cluster::start(1, Config::default()).await;
    let api = &cluster.api;
    node(api, "n1");
    let mut orphan = object("Pod", "shop", "orphan", json!({"containers": []}));
    orphan["metadata"]["labels"] = json!({"app": "web"});
    api.put(&resource::PODS, orphan);
    // An endpoint tells that the controllers have seen the pod.
    let service = json!({"clusterIP": "None", "selector": {"app": "web"}});
    api.put(&resource::SERVICES, object("Service", "shop", "web", service));
    api.until("the orphan is seen", |api| addresses(api) == 1).await;
    let mut set = object("ReplicaSet", "shop", "web", deployment(2)["spec"].clone());
    set["spec"]["replicas"] = 2.into();
    api.put(&resource::REPLICA_SETS, set);
    let ready = |api: &FakeApi| api.all(&resource::REPLICA_SETS)[0]["status"]["readyReplicas"] == 2;
    api.until("two pods, one adopted", |api| {
        api.all(&resource::REPLICA_SETS)[0]["status"]["readyReplicas"] == 2
    })
    .await;
    assert_eq!(api.count(&resource::PODS), 2);
    let orphan = Target::one(&resource::PODS, "shop", "orphan");
    api.edit(&orphan, |pod| pod["metadata"]["labels"] = json!({"app": "debug"}));
    api.until("another takes its place", |api| api.count(&resource::PODS) == 3 && ready(api)).await;
    let released = api.get(&orphan).await.expect("it stays");
    assert!(released.index.metadata.owner_references.is_empty());
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn foreground_goes_last_and_orphans_stay() {
    let cluster = Cluster::start(1, Config::default()).await;
    let api = &cluster.api;
    node(api, "n1");
    api.put(&resource::DEPLOYMENTS, deployment(3));
    api.until("three pods run", |api| is_done(api, "v1") && available(api) == 3).await;
    let how = |propagation| DeleteOptions { propagation, ..DeleteOptions::default() };
    api.delete(&web(), &how(Propagation::Orphan)).await.expect("deleted");
    api.until("the Deployment is gone", |api| empty(api, &[&resource::DEPLOYMENTS])).await;
    let set = api.all(&resource::REPLICA_SETS)[0].clone();
    assert_eq!(set["metadata"]["ownerReferences"], json!([]));
    assert_eq!(api.count(&resource::PODS), 3);
    let name = set["metadata"]["name"].as_str().expect("named");
    let set = Target::one(&resource::REPLICA_SETS, "shop", name);
    api.delete(&set, &how(Propagation::Foreground)).await.expect("deleted");
    api.until("the set is gone", |api| empty(api, &[&resource::REPLICA_SETS])).await;
    assert_eq!(api.count(&resource::PODS), 0, "its pods went before it");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_namespace_is_emptied_and_removed() {
    let config = Config { root_ca_pem: Some("pem".into()), ..Config::default() };
    let cluster = Cluster::start(1, config).await;
    let api = &cluster.api;
    node(api, "n1");
    let there = |api: &FakeApi, resource: &Resource, name: &str| {
        !api.value(resource, "shop", name).is_null()
    };
    api.until("it has its account and CA", |api| {
        there(api, &resource::SERVICE_ACCOUNTS, "default")
            && there(api, &resource::CONFIG_MAPS, "kube-root-ca.crt")
    })
    .await;
    api.put(&resource::DEPLOYMENTS, deployment(3));
    api.until("three pods run", |api| is_done(api, "v1") && available(api) == 3).await;
    let account = Target::one(&resource::SERVICE_ACCOUNTS, "shop", "default");
    api.delete(&account, &DeleteOptions::default()).await.expect("deleted");
    api.until("it is given back", |api| there(api, &resource::SERVICE_ACCOUNTS, "default")).await;
    let shop = Target::one(&resource::NAMESPACES, "", "shop");
    api.delete(&shop, &DeleteOptions::default()).await.expect("deleted");
    api.until("it is gone", |api| api.value(&resource::NAMESPACES, "", "shop").is_null()).await;
    for served in SERVED.iter().filter(|served| served.namespaced) {
        let of_shop = |o: &Value| o["metadata"]["namespace"] == "shop";
        assert!(!api.all(&served.resource).iter().any(of_shop), "{}", served.resource);
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_silent_node_loses_its_pods_to_another() {
    let config = Config { node_monitor_grace: Duration::from_secs(1), ..Config::default() };
    let cluster = Cluster::start(0, config).await;
    let api = &cluster.api;
    for name in ["n1", "n2"] {
        node(api, name);
    }
    api.until("both have a network", |api| {
        let nodes = api.all(&resource::NODES);
        nodes.iter().all(|n| n["spec"]["podCIDR"].is_string())
    })
    .await;
    let cidrs: Vec<Value> =
        api.all(&resource::NODES).iter().map(|n| n["spec"]["podCIDR"].clone()).collect();
    assert_eq!(cidrs, ["10.42.0.0/24", "10.42.1.0/24"]);
    let mut pod = object("Pod", "shop", "lost", json!({"nodeName": "n1", "containers": []}));
    pod["status"] =
        json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    api.put(&resource::PODS, pod);
    // Only n2 renews its Lease.
    let lease = Target::one(&resource::LEASES, "kube-node-lease", "n2");
    api.put(&resource::LEASES, object("Lease", "kube-node-lease", "n2", json!({})));
    let (renewing, stop) = (api.clone(), cluster.stop.clone());
    let renewals = tokio::spawn(async move {
        while !stop.is_cancelled() {
            let now = json!(Timestamp::micros(std::time::SystemTime::now()));
            renewing.edit(&lease, |l| l["spec"]["renewTime"] = now);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let node = |api: &FakeApi, name: &str| {
        api.all(&resource::NODES)
            .into_iter()
            .find(|n| n["metadata"]["name"] == name)
            .expect("there")
    };
    api.until("n1 is tainted", |api| {
        node(api, "n1")["spec"]["taints"].as_array().map_or(0, Vec::len) == 2
    })
    .await;
    assert_eq!(node(api, "n1")["status"]["conditions"][0]["reason"], "NodeStatusUnknown");
    assert_eq!(node(api, "n2")["status"]["conditions"][0]["status"], "True");
    api.until("the pod is evicted", |api| empty(api, &[&resource::PODS])).await;
    // It speaks again.
    let n1 = Target::one(&resource::NODES, "", "n1").subresource("status");
    api.edit(&n1, |n| n["status"] = json!({"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2024-01-01T00:00:00Z"}]}));
    api.until("n1 is free of taints", |api| {
        node(api, "n1")["spec"]["taints"].as_array().is_none_or(Vec::is_empty)
    })
    .await;
    cluster.stop.cancel();
    renewals.await.expect("ends");
    cluster.end().await;
}

/// An all-in-one's own node speaks rarely, and its Lease says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lease_that_lasts_longer_than_the_grace_grants_its_node_as_much() {
    let config = Config { node_monitor_grace: Duration::from_secs(1), ..Config::default() };
    let cluster = Cluster::start(0, config).await;
    let api = &cluster.api;
    let now = json!(Timestamp::micros(std::time::SystemTime::now()));
    for (name, seconds) in [("rare", 3600), ("silent", 1)] {
        let mut lease = object("Lease", "kube-node-lease", name, json!({}));
        lease["spec"] = json!({"renewTime": now, "leaseDurationSeconds": seconds});
        api.put(&resource::LEASES, lease);
        node(api, name);
    }
    let reason = |api: &FakeApi, name: &str| {
        let nodes = api.all(&resource::NODES);
        let node = nodes.iter().find(|n| n["metadata"]["name"] == name).expect("there");
        node["status"]["conditions"][0]["reason"].clone()
    };
    api.until("one is silent", |api| reason(api, "silent") == "NodeStatusUnknown").await;
    assert_ne!(reason(api, "rare"), "NodeStatusUnknown");
    // It takes back what it said.
    let lease = Target::one(&resource::LEASES, "kube-node-lease", "rare");
    api.edit(&lease, |l| l["spec"]["leaseDurationSeconds"] = json!(1));
    api.until("so is the other", |api| reason(api, "rare") == "NodeStatusUnknown").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pods_of_a_removed_node_go() {
    let config = Config { pod_gc_quarantine: Duration::from_millis(50), ..Config::default() };
    let cluster = Cluster::start(0, config).await;
    let api = &cluster.api;
    node(api, "n1");
    let mut pod = object("Pod", "shop", "left", json!({"nodeName": "n1", "containers": []}));
    pod["status"] = json!({"phase": "Running"});
    api.put(&resource::PODS, pod);
    let n1 = Target::one(&resource::NODES, "", "n1");
    api.delete(&n1, &DeleteOptions::default()).await.expect("deleted");
    api.until("its pod is gone", |api| empty(api, &[&resource::PODS])).await;
    cluster.end().await;
}

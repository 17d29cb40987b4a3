//! The driver against an API: bindings, why a pod waits, failures, preemption.

use std::sync::Arc;

use serde_json::{Value, json};
use skiff_client::testing::FakeApi;
use skiff_proto::Status;
use skiff_proto::resource::{EVENTS, NODES, PODS};
use skiff_scheduler::{Config, SchedulerError, run};
use tokio_util::sync::CancellationToken;

struct Running {
    api: Arc<FakeApi>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), SchedulerError>>,
}

async fn start(api: Arc<FakeApi>) -> Running {
    let shutdown = CancellationToken::new();
    let (sender, ready) = tokio::sync::oneshot::channel();
    let (to, token) = (api.clone(), shutdown.clone());
    let task = tokio::spawn(async move {
        let ready = move || sender.send(()).expect("the test waits");
        run(to, Config::default(), token, Box::new(ready)).await
    });
    ready.await.expect("becomes ready");
    Running { api, shutdown, task }
}

impl Running {
    async fn until(&self, what: &str, holds: impl Fn(&FakeApi) -> bool) {
        self.api.until(what, holds).await;
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("does not panic").expect("ends well");
    }
}

fn pod(api: &FakeApi, name: &str) -> Value {
    let named = |pod: &Value| pod["metadata"]["name"] == name;
    api.all(&PODS).into_iter().find(named).unwrap_or_default()
}

fn on(api: &FakeApi, name: &str) -> String {
    pod(api, name)["spec"]["nodeName"].as_str().unwrap_or_default().to_owned()
}

fn told(api: &FakeApi, reason: &str, message: &str) -> bool {
    api.all(&EVENTS).iter().any(|e| e["reason"] == reason && e["message"] == message)
}

fn node_json(name: &str, cpu: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}},
    })
}

fn pod_json(name: &str, cpu: &str, priority: i32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": {
            "schedulerName": "default-scheduler", "priority": priority,
            // No kubelet is here that would end one that is to go.
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}],
        },
    })
}

#[tokio::test]
async fn binds_pods_and_tells_so() {
    let api = FakeApi::new();
    api.put(&NODES, node_json("n", "4"));
    api.put(&PODS, pod_json("early", "1", 0));
    let running = start(api).await;
    running.until("bound", |api| on(api, "early") == "n").await;
    running.api.put(&PODS, pod_json("late", "1", 0));
    running.until("bound", |api| on(api, "late") == "n").await;
    let message = "Successfully assigned default/late to n";
    running.until("told", |api| told(api, "Scheduled", message)).await;
    running.stop().await;
}

#[tokio::test]
async fn tells_why_a_pod_waits_and_binds_it_once_there_is_room() {
    let api = FakeApi::new();
    api.put(&NODES, node_json("small", "1"));
    let running = start(api).await;
    running.api.put(&PODS, pod_json("big", "2", 0));
    let message = "0/1 nodes are available: 1 Insufficient cpu. preemption: \
                   0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    running
        .until("condition", |api| {
            let condition = pod(api, "big")["status"]["conditions"][0].clone();
            condition["type"] == "PodScheduled"
                && condition["status"] == "False"
                && condition["reason"] == "Unschedulable"
                && condition["message"] == message
                && condition["lastTransitionTime"].is_string()
        })
        .await;
    running.until("event", |api| told(api, "FailedScheduling", message)).await;
    running.api.put(&NODES, node_json("large", "4"));
    running.until("bound", |api| on(api, "big") == "large").await;
    running.stop().await;
}

#[tokio::test]
async fn a_refused_binding_is_tried_again() {
    let api = FakeApi::new();
    api.put(&NODES, node_json("n", "1"));
    let refusal = Status::unavailable("the store has no leader");
    api.fail("create binding", &PODS, 1, refusal);
    let running = start(api).await;
    running.api.put(&PODS, pod_json("a", "1", 0));
    running.until("bound", |api| on(api, "a") == "n").await;
    let message = "binding rejected: the store has no leader";
    running.until("told", |api| told(api, "FailedScheduling", message)).await;
    running.stop().await;
}

#[tokio::test]
async fn an_important_pod_takes_the_room_of_a_lesser_one() {
    let api = FakeApi::new();
    api.put(&NODES, node_json("n", "1"));
    api.put(&PODS, pod_json("low", "1", 0));
    let running = start(api).await;
    running.until("bound", |api| on(api, "low") == "n").await;
    running.api.put(&PODS, pod_json("vip", "1", 100));
    running.until("bound", |api| on(api, "vip") == "n").await;
    assert!(pod(&running.api, "low").is_null(), "the victim is deleted");
    let message = "Preempted by pod uid-vip on node n";
    running.until("told", |api| told(api, "Preempted", message)).await;
    running.stop().await;
}

#[tokio::test]
async fn many_pods_fill_the_nodes_exactly() {
    let api = FakeApi::new();
    for n in 0..10 {
        api.put(&NODES, node_json(&format!("n{n}"), "4"));
    }
    let running = start(api).await;
    for n in 0..50 {
        running.api.put(&PODS, pod_json(&format!("p{n}"), "1", 0));
    }
    let bound =
        |api: &FakeApi| api.all(&PODS).iter().filter(|p| !p["spec"]["nodeName"].is_null()).count();
    running.until("40 of 50 fit", |api| bound(api) == 40).await;
    running.api.put(&NODES, node_json("more", "40"));
    running.until("all fit", |api| bound(api) == 50).await;
    running.stop().await;
}

#[tokio::test]
async fn a_broken_configuration_is_told_before_anything_starts() {
    let config = Config { max_binds_in_flight: 0, ..Config::default() };
    let api = FakeApi::new();
    let error =
        run(api, config, CancellationToken::new(), Box::new(|| panic!("never ready"))).await;
    let error = error.expect_err("refused").to_string();
    assert_eq!(
        error,
        "scheduler configuration: max_binds_in_flight: must be between 1 and 1024, not 0"
    );
}

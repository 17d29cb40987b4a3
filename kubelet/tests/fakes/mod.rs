//! A kubelet among honest fakes: the exported API server in memory; a runtime whose sandboxes
//! and containers have real phases; a network that hands out addresses.

// Each test program uses its own part.
#![allow(dead_code)]

pub mod runtime;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use skiff_client::testing::FakeApi;
use skiff_client::{Api, DeleteOptions, Target};
use skiff_kubelet::{Config, NodeServer};
use skiff_proto::resource::{CONFIG_MAPS, EVENTS, PODS};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::runtime::{FakeNetwork, FakeRuntime};

const PATIENCE: Duration = Duration::from_secs(20);

/// A node with its neighbours; the kubelet on it can be stopped and started again.
pub struct Node {
    pub api: Arc<FakeApi>,
    pub runtime: Arc<FakeRuntime>,
    pub network: Arc<FakeNetwork>,
    pub config: Config,
    kubelet: Option<(CancellationToken, JoinHandle<()>)>,
    dir: tempfile::TempDir,
}

impl Node {
    pub async fn start() -> Self {
        Self::start_serving(None).await
    }

    pub async fn start_serving(server: Option<NodeServer>) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut config = Config::new("node-1", [192, 168, 0, 1].into());
        config.root_dir = dir.path().join("kubelet");
        config.log_dir = dir.path().join("logs");
        config.cgroup_root = format!(
            "/skiff-test-{}",
            dir.path().file_name().expect("a name").to_string_lossy().trim_start_matches('.')
        );
        let mut node = Self {
            api: FakeApi::new(),
            runtime: FakeRuntime::new(),
            network: FakeNetwork::new(),
            config,
            kubelet: None,
            dir,
        };
        node.start_kubelet_serving(server).await;
        node
    }

    pub async fn start_kubelet(&mut self) {
        self.start_kubelet_serving(None).await;
    }

    async fn start_kubelet_serving(&mut self, server: Option<NodeServer>) {
        let (token, (ready, is_ready)) =
            (CancellationToken::new(), tokio::sync::oneshot::channel());
        let (api, runtime, network) =
            (self.api.clone(), self.runtime.clone(), self.network.clone());
        let (config, shutdown) = (self.config.clone(), token.clone());
        let task = tokio::spawn(async move {
            let ready = Box::new(move || ready.send(()).expect("somebody waits"));
            skiff_kubelet::run(api, runtime, network, config, server, shutdown, ready)
                .await
                .expect("the kubelet runs");
        });
        is_ready.await.expect("the kubelet gets ready");
        self.kubelet = Some((token, task));
    }

    pub async fn stop_kubelet(&mut self) {
        let (token, task) = self.kubelet.take().expect("it runs");
        token.cancel();
        task.await.expect("it stops cleanly");
    }

    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.dir.path().join("kubelet/pods").join(uid)
    }

    /// Creates a pod bound to this node.
    pub fn bind(&self, name: &str, spec: Value) {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "generation": 1},
            "spec": spec,
        });
        pod["spec"]["nodeName"] = "node-1".into();
        self.api.put(&PODS, pod);
    }

    /// Creates or changes a ConfigMap of one entry.
    pub fn configure(&self, name: &str, (key, value): (&str, &str)) {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "default"}, "data": {key: value},
        });
        self.api.put(&CONFIG_MAPS, map);
    }

    /// A user's delete of a pod, with its grace period.
    pub async fn delete(&self, name: &str, grace_seconds: i64) {
        let target = Target::one(&PODS, "default", name);
        let options =
            DeleteOptions { grace_period_seconds: Some(grace_seconds), ..Default::default() };
        self.api.delete(&target, &options).await.expect("deletes");
    }

    pub fn pod(&self, name: &str) -> Option<Value> {
        Some(self.api.value(&PODS, "default", name)).filter(|pod| !pod.is_null())
    }

    /// `Reason message` of each event so far.
    pub fn events(&self) -> Vec<String> {
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or("").to_owned();
        let line = |event: &Value| format!("{} {}", text(event, "reason"), text(event, "message"));
        self.api.all(&EVENTS).iter().map(line).collect()
    }

    /// Waits for the API to show this; fails with the last state after a long time.
    pub async fn until(&self, name: &str, what: &str, holds: impl Fn(Option<&Value>) -> bool) {
        let shown = self.api.until(what, |_| holds(self.pod(name).as_ref()));
        if tokio::time::timeout(PATIENCE, shown).await.is_err() {
            let pod = self.pod(name).map(|p| format!("{:#}", p["status"]));
            panic!(
                "{name} never was {what}: {}\nevents: {:#?}\ncalls: {:#?}",
                pod.unwrap_or_default(),
                self.events(),
                self.runtime.calls()
            );
        }
    }

    pub async fn until_ready(&self, name: &str) {
        self.until(name, "ready", |pod| pod.is_some_and(|p| condition(p, "Ready") == "True")).await;
    }

    pub async fn until_gone(&self, name: &str) {
        self.until(name, "gone", |pod| pod.is_none()).await;
    }

    pub async fn until_event(&self, text: &str) {
        let told = self.api.until(text, |_| self.events().iter().any(|e| e.contains(text)));
        if tokio::time::timeout(PATIENCE, told).await.is_err() {
            panic!("no event {text:?} in {:#?}", self.events());
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some((token, _)) = &self.kubelet {
            token.cancel();
        }
        let _ = skiff_kubelet::cgroup::Cgroups::of_host().remove(&self.config.cgroup_root);
        let _ = skiff_kubelet::volume::mounts::unmount_below(self.dir.path());
    }
}

pub fn condition<'a>(pod: &'a Value, type_: &str) -> &'a str {
    let conditions = pod["status"]["conditions"].as_array();
    let found = conditions.and_then(|all| all.iter().find(|c| c["type"] == type_));
    found.and_then(|c| c["status"].as_str()).unwrap_or("")
}

pub fn container(pod: &Value, place: usize) -> &Value {
    &pod["status"]["containerStatuses"][place]
}

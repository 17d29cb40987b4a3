//! The whole ingress against an API: class, routes, status.

mod fixture;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use fixture::*;
use futures_util::StreamExt;
use serde_json::{Value, json};
use skiff_client::api::*;
use skiff_ingress::{Config, Server, run_on};
use skiff_proto::{Object, Resource, Status, resource};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// An API server of one map: list, watch, create and merge patches with upstream's meaning,
/// which is all that the ingress uses. Other calls are refused.
#[derive(Default)]
struct FakeApi(Mutex<State>);

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<(String, String), Value>,
    watchers: Vec<(String, mpsc::UnboundedSender<WatchEvent>)>,
    patches: usize,
}

fn object(value: &Value) -> Arc<Object> {
    Arc::new(Object::from_json(Bytes::from(value.to_string())).expect("an object"))
}

impl State {
    fn put(&mut self, plural: &str, mut value: Value) -> Arc<Object> {
        self.version += 1;
        value["metadata"]["resourceVersion"] = self.version.to_string().into();
        let new = object(&value);
        let key = (plural.to_owned(), new.key().to_string());
        let known = self.objects.insert(key, value).is_some();
        let event = if known { WatchEvent::Modified } else { WatchEvent::Added };
        for (_, sender) in self.watchers.iter().filter(|(watched, _)| watched == plural) {
            drop(sender.send(event(new.clone())));
        }
        new
    }
}

impl FakeApi {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while holding it")
    }

    fn put(&self, resource: &Resource, value: Value) {
        self.state().put(&resource.plural, value);
    }

    fn get(&self, resource: &Resource, name: &str) -> Value {
        let key = (resource.plural.to_string(), name.to_owned());
        self.state().objects.get(&key).cloned().unwrap_or_default()
    }
}

fn refused() -> Status {
    Status::internal("not served by this test")
}

#[async_trait]
impl Api for FakeApi {
    async fn version(&self) -> Result<VersionInfo> {
        Err(refused())
    }

    async fn discover(&self) -> Result<Vec<ResourceInfo>> {
        Err(refused())
    }

    async fn get(&self, _: &Target) -> Result<Arc<Object>> {
        Err(refused())
    }

    async fn list(&self, target: &Target, _: &ListOptions) -> Result<List> {
        let state = self.state();
        let of = state.objects.iter().filter(|((plural, _), _)| *plural == target.resource.plural);
        let items = of.map(|(_, value)| object(value)).collect();
        Ok(List { items, resource_version: state.version.to_string(), ..List::default() })
    }

    async fn watch(&self, target: &Target, options: &WatchOptions) -> Result<WatchStream> {
        let mut state = self.state();
        // This server keeps no history: who missed something lists again.
        if options.resource_version != state.version.to_string() {
            return Err(Status::expired("too old resource version"));
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        state.watchers.push((target.resource.plural.to_string(), sender));
        let events = futures_util::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|event| (Ok(event), receiver))
        });
        Ok(events.boxed())
    }

    async fn create(&self, target: &Target, json: Bytes, _: &WriteOptions) -> Result<Arc<Object>> {
        let value: Value = serde_json::from_slice(&json).expect("JSON");
        Ok(self.state().put(&target.resource.plural, value))
    }

    async fn update(&self, _: &Target, _: Bytes, _: &WriteOptions) -> Result<Arc<Object>> {
        Err(refused())
    }

    async fn patch(&self, target: &Target, patch: Patch, _: &WriteOptions) -> Result<Arc<Object>> {
        assert_eq!(target.subresource, "status");
        let Patch::Merge(patch) = patch else { return Err(refused()) };
        let patch: Value = serde_json::from_slice(&patch).expect("JSON");
        let mut state = self.state();
        state.patches += 1;
        let key = format!("{}/{}", target.namespace, target.name);
        let key = (target.resource.plural.to_string(), key);
        let Some(mut known) = state.objects.get(&key).cloned() else {
            return Err(Status::not_found(&target.resource, &target.name));
        };
        known["status"] = patch["status"].clone();
        Ok(state.put(&target.resource.plural, known))
    }

    async fn delete(&self, _: &Target, _: &DeleteOptions) -> Result<Deleted> {
        Err(refused())
    }

    async fn delete_collection(
        &self,
        _: &Target,
        _: &ListOptions,
        _: &DeleteOptions,
    ) -> Result<Vec<Arc<Object>>> {
        Err(refused())
    }

    async fn logs(&self, _: &Target, _: &LogOptions) -> Result<ByteStream> {
        Err(refused())
    }

    async fn exec(
        &self,
        _: &Target,
        _: &ExecOptions,
        _: ExecInputStream,
    ) -> Result<ExecOutputStream> {
        Err(refused())
    }
}

fn named(name: &str, kind: &str, more: Value) -> Value {
    let mut value = json!({
        "apiVersion": "v1", "kind": kind, "metadata": {"namespace": "default", "name": name},
    });
    for (key, part) in more.as_object().expect("an object") {
        value[key] = part.clone();
    }
    value
}

fn slice(endpoints: &[std::net::SocketAddr]) -> Value {
    let port = endpoints.first().map_or(1, |addr| addr.port());
    let endpoints: Vec<Value> =
        endpoints.iter().map(|addr| json!({"addresses": [addr.ip()]})).collect();
    let mut slice = named(
        "web-1",
        "EndpointSlice",
        json!({
            "addressType": "IPv4", "ports": [{"port": port}], "endpoints": endpoints,
        }),
    );
    slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": "web"});
    slice
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never {what}"));
}

#[tokio::test]
async fn objects_become_routes_and_the_status_tells_the_address() {
    let api = Arc::new(FakeApi::default());
    let shutdown = CancellationToken::new();
    let config = Config {
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        node_addresses: vec!["192.0.2.1".parse().expect("an address")],
        workers: 1,
        ..Config::default()
    };
    let server = Server::bind(&config).expect("a free port");
    let addr = server.local_addrs()[0];
    let (sender, ready) = tokio::sync::oneshot::channel();
    let on_ready = move || sender.send(()).expect("the test waits");
    let task = tokio::spawn(run_on(server, api.clone(), config, shutdown.clone(), on_ready));
    ready.await.expect("becomes ready");

    until("a class", async || !api.get(&resource::INGRESS_CLASSES, "skiff").is_null()).await;
    let class = api.get(&resource::INGRESS_CLASSES, "skiff");
    assert_eq!(class["spec"]["controller"], "skiff.dev/ingress");
    let default = &class["metadata"]["annotations"]["ingressclass.kubernetes.io/is-default-class"];
    assert_eq!(default, "true");

    let get = async || {
        let request = "GET / HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n";
        let answer = ask(addr, request).await;
        (answer.status, answer.body.trim_end().to_owned())
    };
    assert_eq!(get().await.0, 404);
    let rules = json!({"spec": {"rules": [{"host": "web.example", "http": {"paths": [
        {"path": "/", "pathType": "Prefix", "backend":
            {"service": {"name": "web", "port": {"number": 80}}}},
    ]}}]}});
    api.put(&resource::INGRESSES, named("web", "Ingress", rules));
    let missing = "Service default/web does not exist";
    until("503", async || get().await == (503, missing.to_owned())).await;
    let ports = json!({"spec": {"ports": [{"port": 80}]}});
    api.put(&resource::SERVICES, named("web", "Service", ports));
    let (blue, green) = (Upstream::saying("blue").await, Upstream::saying("green").await);
    api.put(&resource::ENDPOINT_SLICES, slice(&[blue.addr]));
    until("blue", async || get().await == (200, "blue".to_owned())).await;
    api.put(&resource::ENDPOINT_SLICES, slice(&[green.addr]));
    until("green", async || get().await == (200, "green".to_owned())).await;

    let written = || api.get(&resource::INGRESSES, "default/web")["status"].clone();
    let told = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    until("the address is told", async || written() == told).await;
    assert_eq!(api.state().patches, 1, "what is told already is not written again");
    shutdown.cancel();
    task.await.expect("does not panic").expect("ends well");
}

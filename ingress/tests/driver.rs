//! The whole ingress against an API: class, routes, status.

mod fixture;

use fixture::*;
use serde_json::{Value, json};
use skiff_client::testing::FakeApi;
use skiff_ingress::{Config, Server, run_on};
use skiff_proto::resource;
use tokio_util::sync::CancellationToken;

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
    let api = FakeApi::new();
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
    let on_ready = Box::new(move || sender.send(()).expect("the test waits"));
    let task = tokio::spawn(run_on(server, api.clone(), config, shutdown.clone(), on_ready));
    ready.await.expect("becomes ready");

    let class = || api.value(&resource::INGRESS_CLASSES, "", "skiff");
    until("a class", async || !class().is_null()).await;
    let class = class();
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

    let written = || api.value(&resource::INGRESSES, "default", "web")["status"].clone();
    let told = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    until("the address is told", async || written() == told).await;
    assert_eq!(api.calls("patch status", &resource::INGRESSES), 1, "what is told is told once");
    shutdown.cancel();
    task.await.expect("does not panic").expect("ends well");
}

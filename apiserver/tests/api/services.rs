//! Services: cluster IPs and node ports that survive races, refusals and restarts.

use std::collections::HashSet;

use serde_json::{Value, json};
use skiff_apiserver::Config;
use skiff_proto::resource::SERVICES;

use crate::support::{Server, one, value};

fn service(name: &str, spec: Value) -> Value {
    let mut service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    service["spec"]["ports"] = json!([{"port": 80}]);
    service
}

#[tokio::test]
async fn racing_services_get_different_addresses() {
    let config = Config { node_port_range: (30000, 30019), ..Config::default() };
    let server = Server::with(config).await;
    let services: Vec<Value> =
        (0..20).map(|n| service(&format!("s{n}"), json!({"type": "NodePort"}))).collect();
    let resource = SERVICES;
    let creates = services.into_iter().map(|s| server.create(&resource, "default", s));
    let mut ips = HashSet::new();
    let mut ports = HashSet::new();
    for created in futures_util::future::join_all(creates).await {
        let created = value(&created.unwrap());
        ips.insert(created["spec"]["clusterIP"].as_str().unwrap().to_owned());
        ports.insert(created["spec"]["ports"][0]["nodePort"].as_i64().unwrap());
    }
    assert_eq!((ips.len(), ports.len()), (20, 20));
    let full = server.create(&SERVICES, "default", service("s", json!({"type": "NodePort"}))).await;
    assert_eq!(
        full.unwrap_err().message,
        "Internal error occurred: failed to allocate a nodePort: range is full"
    );
    server.delete(&one(&SERVICES, "s7")).await.unwrap();
    server.create(&SERVICES, "default", service("s", json!({"type": "NodePort"}))).await.unwrap();
}

#[tokio::test]
async fn an_address_is_taken_across_restarts_until_its_service_goes() {
    let server = Server::start().await;
    let ip = json!({"clusterIP": "10.43.0.10"});
    server.create(&SERVICES, "default", service("dns", ip.clone())).await.unwrap();
    let server = server.restart(Config::default()).await;
    let refused = server.create(&SERVICES, "default", service("b", ip.clone())).await.unwrap_err();
    assert_eq!(refused.code, 422);
    assert!(
        refused
            .message
            .ends_with("failed to allocate IP 10.43.0.10: provided IP is already allocated"),
        "{refused}"
    );
    server.delete(&one(&SERVICES, "dns")).await.unwrap();
    server.create(&SERVICES, "default", service("b", ip)).await.unwrap();
}

#[tokio::test]
async fn an_update_takes_and_gives_back() {
    let server = Server::start().await;
    let created = server.create(&SERVICES, "default", service("a", json!({}))).await.unwrap();
    let target = one(&SERVICES, "a");
    let node_port = server.merge(&target, json!({"spec": {"type": "NodePort"}})).await.unwrap();
    let port = value(&node_port)["spec"]["ports"][0]["nodePort"].clone();
    assert!(port.as_i64().unwrap() >= 30000);
    assert_eq!(value(&node_port)["spec"]["clusterIP"], value(&created)["spec"]["clusterIP"]);
    let mut other = service("b", json!({"type": "NodePort"}));
    other["spec"]["ports"][0]["nodePort"] = port.clone();
    let refused = server.create(&SERVICES, "default", other.clone()).await.unwrap_err();
    assert!(refused.message.ends_with("provided port is already allocated"), "{refused}");
    let plain = server.merge(&target, json!({"spec": {"type": "ClusterIP"}})).await.unwrap();
    assert_eq!(value(&plain)["spec"]["ports"][0].get("nodePort"), None);
    server.create(&SERVICES, "default", other).await.unwrap();
}

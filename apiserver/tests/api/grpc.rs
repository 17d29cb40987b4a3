//! The gRPC face end to end: TLS on a socket, users by certificate.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use skiff_apiserver::serve;
use skiff_client::grpc::{GrpcApi, Server as Endpoint};
use skiff_client::{Api, ListOptions, Target, WatchOptions, WriteOptions};
use skiff_kit::pki::{Ca, LEAF_LIFETIME, Request};
use skiff_kit::tls::{ClientAuth, server_config};
use skiff_proto::resource::{CONFIG_MAPS, DEPLOYMENTS, NODES, PODS, SECRETS};
use tokio_util::sync::CancellationToken;

use crate::support::{Server, config_map, next, one, pod};

struct Face {
    server: Server,
    ca: Ca,
    url: String,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Face {
    async fn start() -> Self {
        let server = Server::start().await;
        let ca = Ca::load_or_create(server.dir.path(), "ca").unwrap();
        let request = Request {
            common_name: "skiff".into(),
            ips: vec!["127.0.0.1".parse().unwrap()],
            ..Request::default()
        };
        let identity = ca.issue(&request, LEAF_LIFETIME).unwrap();
        let tls = server_config(&identity, &ca.cert_pem, ClientAuth::Optional).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let shutdown = server.core.config().shutdown.clone();
        let served = serve(server.core.clone(), listener, Arc::new(tls), shutdown.clone());
        let running = tokio::spawn(async move { served.await.unwrap() });
        Self { server, ca, url, shutdown, running }
    }

    fn endpoint(&self, user: &str, group: Option<&str>) -> Endpoint {
        let request = Request {
            common_name: user.into(),
            organization: group.map(str::to_owned),
            ..Request::default()
        };
        let identity = self.ca.issue(&request, LEAF_LIFETIME).unwrap();
        Endpoint {
            url: self.url.clone(),
            ca_pem: self.ca.cert_pem.clone(),
            cert_pem: identity.cert_pem,
            key_pem: identity.key_pem,
            tls_name: String::new(),
        }
    }

    async fn api(&self, user: &str, group: Option<&str>) -> Arc<GrpcApi> {
        GrpcApi::connect(&self.endpoint(user, group)).await.unwrap()
    }
}

async fn create(api: &GrpcApi, name: &str) -> Arc<skiff_proto::Object> {
    let json = Bytes::from(config_map(name, &"x".repeat(2000)).to_string());
    api.create(&Target::all(&CONFIG_MAPS, "default"), json, &WriteOptions::default()).await.unwrap()
}

#[tokio::test]
async fn both_implementations_of_the_api_agree() {
    let face = Face::start().await;
    let api = face.api("admin", Some("system:masters")).await;
    let local = &face.server.api;
    let target = Target::all(&CONFIG_MAPS, "default");
    let mut watch = api.watch(&target, &WatchOptions::default()).await.unwrap();
    for n in 0..600 {
        create(&api, &format!("c{n:03}")).await;
    }
    // More than one chunk.
    let list = api.list(&target, &ListOptions::default()).await.unwrap();
    let same = local.list(&target, &ListOptions::default()).await.unwrap();
    assert_eq!(list.items, same.items);
    assert_eq!(list.resource_version, same.resource_version);
    for n in 0..600 {
        assert_eq!(next(&mut watch).await, format!("ADDED c{n:03}"));
    }
    let page = ListOptions { limit: 10, ..Default::default() };
    let page = api.list(&target, &page).await.unwrap();
    assert_eq!((page.items.len(), page.remaining_item_count), (10, Some(590)));
    let missing = one(&CONFIG_MAPS, "none");
    assert_eq!(api.get(&missing).await.unwrap_err(), local.get(&missing).await.unwrap_err());
    assert_eq!(api.discover().await.unwrap(), local.discover().await.unwrap());
    assert_eq!(api.version().await.unwrap(), local.version().await.unwrap());
    let named = Target::one(&CONFIG_MAPS, "default", "c007");
    let one = api.list(&named, &ListOptions::default()).await.unwrap();
    assert_eq!(one.items.len(), 1);
}

#[tokio::test]
async fn grpc_does_what_the_fake_does() {
    let face = Face::start().await;
    skiff_client::testing::suite::run(face.api("admin", Some("system:masters")).await).await;
}

#[tokio::test]
async fn a_scale_is_read_by_its_own_face() {
    let face = Face::start().await;
    let api = face.api("admin", Some("system:masters")).await;
    let labels = json!({"app": "web"});
    let web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 3, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": pod("x")["spec"]}}});
    let made = face.server.create(&DEPLOYMENTS, "default", web).await.unwrap();
    let target = one(&DEPLOYMENTS, "web").subresource("scale");
    let scale = api.get(&target).await.unwrap();
    assert_eq!(scale, face.server.api.get(&target).await.unwrap());
    assert_eq!(
        (scale.index.kind.as_str(), scale.resource_version()),
        ("Scale", made.resource_version())
    );
    let mut wanted = crate::support::value(&scale);
    assert_eq!(wanted["spec"]["replicas"], 3);
    wanted["spec"]["replicas"] = 4.into();
    let json = Bytes::from(wanted.to_string());
    let scaled = api.update(&target, json.clone(), &WriteOptions::default()).await.unwrap();
    assert_eq!(crate::support::value(&scaled)["spec"]["replicas"], 4);
    let stale = api.update(&target, json, &WriteOptions::default()).await.unwrap_err();
    assert!(stale.is_conflict(), "{stale}");
    let none = one(&CONFIG_MAPS, "web").subresource("scale");
    assert_eq!(api.get(&none).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn nobody_is_anonymous() {
    let face = Face::start().await;
    let mut endpoint = face.endpoint("x", None);
    (endpoint.cert_pem, endpoint.key_pem) = (String::new(), String::new());
    let api = GrpcApi::connect(&endpoint).await.unwrap();
    let refused = api.list(&Target::all(&PODS, ""), &ListOptions::default()).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (401, "Unauthorized"));
    assert_eq!(api.version().await.unwrap_err().code, 401);
}

#[tokio::test]
async fn users_may_what_their_certificate_says() {
    let face = Face::start().await;
    let stranger = face.api("mallory", Some("devs")).await;
    let refused = stranger.list(&Target::all(&PODS, "default"), &ListOptions::default()).await;
    assert_eq!(
        refused.unwrap_err().message,
        r#"pods is forbidden: User "mallory" cannot list resource "pods" in API group "" in the namespace "default""#
    );
    let node = face.api("system:node:n1", Some("system:nodes")).await;
    node.list(&Target::all(&PODS, ""), &ListOptions::default()).await.unwrap();
    let json = |name: &str| {
        Bytes::from(
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}).to_string(),
        )
    };
    node.create(&Target::all(&NODES, ""), json("n1"), &WriteOptions::default()).await.unwrap();
    let secret = Target::one(&SECRETS, "default", "x");
    let refused = node.delete(&secret, &Default::default()).await.unwrap_err();
    assert_eq!(refused.code, 403);
    face.server
        .create(&NODES, "", json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"}}))
        .await
        .unwrap();
    let refused =
        node.update(&Target::one(&NODES, "", "n2"), json("n2"), &WriteOptions::default()).await;
    assert_eq!(refused.unwrap_err().code, 403);
}

#[tokio::test]
async fn logs_of_a_pod_without_a_node_are_empty_and_exec_says_why() {
    use futures_util::StreamExt;
    let face = Face::start().await;
    let api = face.api("admin", Some("system:masters")).await;
    let json = Bytes::from(pod("web").to_string());
    api.create(&Target::all(&PODS, "default"), json, &WriteOptions::default()).await.unwrap();
    let target = one(&PODS, "web");
    let mut logs = api.logs(&target, &Default::default()).await.unwrap();
    assert!(logs.next().await.is_none());
    let wrong = skiff_client::LogOptions { container: "nope".into(), ..Default::default() };
    let refused = api.logs(&target, &wrong).await.err().unwrap();
    assert_eq!(refused.message, "container nope is not valid for pod web");
    let options = skiff_client::ExecOptions { command: vec!["ls".into()], ..Default::default() };
    let input = Box::pin(futures_util::stream::empty());
    let refused = api.exec(&target, &options, input).await.err().unwrap();
    assert_eq!(refused.message, "pod web does not have a host assigned");
}

#[tokio::test]
async fn a_server_that_stops_drains() {
    let face = Face::start().await;
    let api = face.api("admin", Some("system:masters")).await;
    let target = Target::all(&CONFIG_MAPS, "default");
    let mut watch = api.watch(&target, &WatchOptions::default()).await.unwrap();
    face.shutdown.cancel();
    use futures_util::StreamExt;
    assert!(watch.next().await.is_none());
    tokio::time::timeout(std::time::Duration::from_secs(10), face.running).await.unwrap().unwrap();
}

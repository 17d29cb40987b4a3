//! The node server over real TLS: logs, exec, and who may ask.

mod fakes;

use std::sync::Arc;
use std::time::Duration;

use fakes::Node;
use futures_util::StreamExt;
use serde_json::json;
use skiff_kit::pki::{Ca, Request};
use skiff_kit::tls::{ClientAuth, server_config};
use skiff_kubelet::NodeServer;
use skiff_proto::grpc::api::LogOptions;
use skiff_proto::grpc::api::exec_output::Output;
use skiff_proto::grpc::node::node_client::NodeClient;
use skiff_proto::grpc::node::node_exec_input::Input;
use skiff_proto::grpc::node::{NodeExecInput, NodeExecStart, NodeLogsRequest};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

struct Served {
    node: Node,
    ca: Ca,
    address: String,
    _dir: tempfile::TempDir,
}

async fn serve() -> Served {
    let dir = tempfile::tempdir().expect("a folder");
    let ca = Ca::load_or_create(dir.path(), "ca").expect("a CA");
    let request = Request {
        common_name: "system:node:node-1".into(),
        ips: vec![[127, 0, 0, 1].into()],
        ..Default::default()
    };
    let identity = ca.issue(&request, Duration::from_secs(3600)).expect("a certificate");
    let tls = server_config(&identity, &ca.cert_pem, ClientAuth::Required).expect("a config");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("https://{}", listener.local_addr().expect("an address"));
    let node = Node::start_serving(Some(NodeServer { listener, tls: Arc::new(tls) })).await;
    node.bind("web", json!({"containers": [{"name": "c", "image": "app:1"}]}));
    node.until_ready("web").await;
    Served { node, ca, address, _dir: dir }
}

impl Served {
    async fn client(&self, common_name: &str) -> NodeClient<Channel> {
        let request = Request { common_name: common_name.into(), ..Default::default() };
        let identity = self.ca.issue(&request, Duration::from_secs(3600)).expect("a certificate");
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.ca.cert_pem))
            .identity(Identity::from_pem(&identity.cert_pem, &identity.key_pem));
        let endpoint = Endpoint::from_shared(self.address.clone()).expect("an address");
        NodeClient::new(endpoint.tls_config(tls).expect("tls").connect().await.expect("connects"))
    }

    fn uid(&self) -> String {
        let pod = self.node.pod("web").expect("the pod");
        pod["metadata"]["uid"].as_str().expect("a uid").to_owned()
    }

    fn logs(&self, options: LogOptions) -> NodeLogsRequest {
        NodeLogsRequest {
            namespace: "default".into(),
            pod: "web".into(),
            uid: self.uid(),
            container: "c".into(),
            options: Some(options),
        }
    }
}

fn line(n: u32) -> String {
    format!("2024-05-01T10:00:{n:02}.000000000Z stdout F line {n}\n")
}

#[tokio::test]
async fn a_log_is_followed_until_its_container_ends() {
    let served = serve().await;
    let path = served.node.runtime.configs("c")[0].log_path.clone();
    std::fs::write(&path, line(0) + &line(1)).expect("writes");
    let mut client = served.client("skiff-apiserver").await;
    let options = LogOptions { follow: true, tail_lines: Some(1), ..Default::default() };
    let mut stream = client.logs(served.logs(options)).await.expect("logs").into_inner();
    let mut next = async || {
        let chunk = tokio::time::timeout(Duration::from_secs(20), stream.next()).await;
        chunk
            .expect("in time")
            .map(|c| String::from_utf8(c.expect("a chunk").data.into()).expect("text"))
    };
    assert_eq!(next().await.as_deref(), Some("line 1\n"));
    use std::io::Write;
    let mut log = std::fs::OpenOptions::new().append(true).open(&path).expect("opens");
    log.write_all(line(2).as_bytes()).expect("writes");
    assert_eq!(next().await.as_deref(), Some("line 2\n"));
    served.node.runtime.crash("c", 0);
    assert_eq!(next().await, None);
    let previous = LogOptions { previous: true, ..Default::default() };
    served
        .node
        .until("web", "restarted", |pod| {
            pod.is_some_and(|p| fakes::container(p, 0)["restartCount"] == 1)
        })
        .await;
    let all = client.logs(served.logs(previous)).await.expect("logs").into_inner();
    let all: Vec<_> = all.map(|c| c.expect("a chunk").data).collect().await;
    assert_eq!(all.concat(), b"line 0\nline 1\nline 2\n");
}

#[tokio::test]
async fn exec_gives_output_and_code() {
    let served = serve().await;
    served.node.runtime.exec_says(7, "hello");
    let mut client = served.client("skiff-apiserver").await;
    let start = NodeExecStart {
        namespace: "default".into(),
        pod: "web".into(),
        uid: served.uid(),
        container: "c".into(),
        command: vec!["say".into()],
        ..Default::default()
    };
    let input = futures_util::stream::iter([NodeExecInput { input: Some(Input::Start(start)) }]);
    let output = client.exec(input).await.expect("runs").into_inner();
    let output: Vec<Output> =
        output.map(|o| o.expect("output").output.expect("something")).collect().await;
    assert_eq!(output, [Output::Stdout("hello".into()), Output::ExitCode(7)]);
}

#[tokio::test]
async fn others_are_refused() {
    let served = serve().await;
    let mut stranger = served.client("system:node:node-1").await;
    let refused = stranger.logs(served.logs(LogOptions::default())).await.expect_err("refused");
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");
}

//! Logs and exec: the API server calls the kubelet of the pod's node and passes the bytes on.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use skiff_client::{ByteStream, ExecInputStream, ExecOptions, ExecOutputStream, LogOptions, wire};
use skiff_proto::grpc::node;
use skiff_proto::model::{ContainerStatus, Node, Pod};
use skiff_proto::resource::{NODES, PODS};
use skiff_proto::{Object, Status};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::stored::Place;
use super::{Core, NodeClient};

type NodeService = node::node_client::NodeClient<Channel>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A dead node's connection is noticed even when nothing is being sent.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// One connection a node; a cluster of more nodes than this makes new ones now and then.
const MAX_CONNECTIONS: usize = 1024;
/// What kubectl's users mark as the container that they mean.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The kubelets, and the connections to them.
pub struct Nodes {
    client: Option<NodeClient>,
    channels: Mutex<HashMap<String, Channel>>,
}

/// A pod and the container that a request is about.
struct PodContainer {
    pod: Pod,
    uid: String,
    container: String,
}

impl Nodes {
    pub fn new(client: Option<NodeClient>) -> Self {
        Self { client, channels: Mutex::default() }
    }

    fn connect(&self, address: &str) -> Result<NodeService, Status> {
        let Some(client) = &self.client else {
            return Err(Status::unavailable(
                "this API server has no certificate for kubelets: logs and exec are off",
            ));
        };
        let mut channels = self.channels.lock().unwrap_or_else(|p| p.into_inner());
        if let Some(channel) = channels.get(address) {
            return Ok(node::node_client::NodeClient::new(channel.clone()));
        }
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&client.ca_pem))
            .identity(Identity::from_pem(&client.cert_pem, &client.key_pem));
        let channel = Endpoint::from_shared(format!("https://{address}"))
            .and_then(|endpoint| endpoint.tls_config(tls))
            .map_err(|error| Status::internal(format!("error dialing backend: {error}")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE)
            .connect_lazy();
        if channels.len() >= MAX_CONNECTIONS {
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Ok(node::node_client::NodeClient::new(channel))
    }
}

impl Core {
    pub(super) async fn logs(
        &self,
        namespace: &str,
        name: &str,
        options: &LogOptions,
    ) -> Result<ByteStream, Status> {
        let found = self.container(namespace, name, &options.container).await?;
        if found.pod.spec.node_name.is_empty() {
            // As upstream: a pod without a node has said nothing yet.
            return Ok(Box::pin(futures_util::stream::empty()));
        }
        let mut kubelet = self.kubelet(&found.pod.spec.node_name).await?;
        let request = node::NodeLogsRequest {
            namespace: namespace.into(),
            pod: name.into(),
            uid: found.uid.clone(),
            container: found.container.clone(),
            options: Some(wire::log_options(options)),
        };
        let answer = kubelet.logs(request).await.map_err(|error| {
            let status = backend(error);
            match waiting(&found, options.previous) {
                // The kubelet does not know the container yet: say what it waits for.
                Some(why) if status.is_not_found() => Status::bad_request(why),
                _ => status,
            }
        })?;
        Ok(wire::log_bytes(answer.into_inner(), backend))
    }

    pub(super) async fn exec(
        &self,
        namespace: &str,
        name: &str,
        options: &ExecOptions,
        input: ExecInputStream,
    ) -> Result<ExecOutputStream, Status> {
        if options.command.is_empty() {
            return Err(Status::bad_request(
                "you must specify at least one command for the container",
            ));
        }
        let found = self.container(namespace, name, &options.container).await?;
        if found.pod.spec.node_name.is_empty() {
            return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
        }
        if matches!(found.pod.status.phase.as_str(), "Succeeded" | "Failed") {
            return Err(Status::bad_request(format!(
                "cannot exec into a container in a completed pod; current phase is {}",
                found.pod.status.phase
            )));
        }
        let mut kubelet = self.kubelet(&found.pod.spec.node_name).await?;
        let start = node::NodeExecStart {
            namespace: namespace.into(),
            pod: name.into(),
            uid: found.uid,
            container: found.container,
            command: options.command.clone(),
            stdin: options.stdin,
            tty: options.tty,
        };
        let answer = kubelet.exec(exec_input(start, input)).await.map_err(backend)?;
        Ok(wire::exec_output(answer.into_inner(), backend))
    }

    async fn container(
        &self,
        namespace: &str,
        name: &str,
        container: &str,
    ) -> Result<PodContainer, Status> {
        let object = self.read(Place { kind: self.kind(&PODS)?, namespace, name }).await?;
        let object: &Object = &object.object;
        let pod: Pod = object.parse().map_err(Status::internal)?;
        let container = choose_container(&pod, name, container)?;
        Ok(PodContainer { pod, uid: object.uid().to_owned(), container })
    }

    async fn kubelet(&self, name: &str) -> Result<NodeService, Status> {
        let entry = self.lookup(&NODES, "", name).await?;
        let entry = entry.ok_or_else(|| Status::not_found(&NODES, name))?;
        let node: Node = entry.object.parse().map_err(Status::internal)?;
        let address = node_address(&node).ok_or_else(|| {
            Status::internal(format!(
                "no preferred addresses found for node {name:?}; known addresses: []"
            ))
        })?;
        self.nodes.connect(&address)
    }
}

fn exec_input(
    start: node::NodeExecStart,
    input: ExecInputStream,
) -> impl Stream<Item = node::NodeExecInput> + Send + 'static {
    let start = futures_util::stream::iter([node::node_exec_input::Input::Start(start)]);
    start.chain(input.map(Into::into)).map(|input| node::NodeExecInput { input: Some(input) })
}

fn backend(error: tonic::Status) -> Status {
    let status = Status::from(error);
    if status.code == 503 {
        return Status::internal(format!("error dialing backend: {}", status.message));
    }
    status
}

/// Where the node's kubelet listens.
fn node_address(node: &Node) -> Option<String> {
    const DEFAULT_PORT: u16 = 10250;
    let port = node.status.daemon_endpoints.kubelet_endpoint.port;
    let port = if port == 0 { DEFAULT_PORT } else { port };
    let internal = node.status.addresses.iter().find(|a| a.type_ == "InternalIP")?;
    let ip: IpAddr = internal.address.parse().ok()?;
    Some(std::net::SocketAddr::new(ip, port).to_string())
}

fn choose_container(pod: &Pod, name: &str, asked: &str) -> Result<String, Status> {
    let names = |list: &[skiff_proto::model::Container]| -> Vec<String> {
        list.iter().map(|c| c.name.clone()).collect()
    };
    let (containers, init) = (names(&pod.spec.containers), names(&pod.spec.init_containers));
    let known = |wanted: &str| containers.iter().chain(&init).any(|c| c == wanted);
    if !asked.is_empty() {
        if known(asked) {
            return Ok(asked.to_owned());
        }
        return Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")));
    }
    if let Some(marked) = pod.metadata.annotations.get(DEFAULT_CONTAINER).filter(|c| known(c)) {
        return Ok(marked.clone());
    }
    match containers.as_slice() {
        [only] => Ok(only.clone()),
        _ => {
            let mut message = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                containers.join(" ")
            );
            if !init.is_empty() {
                message += &format!(" or one of the init containers: [{}]", init.join(" "));
            }
            Err(Status::bad_request(message))
        }
    }
}

/// Why a container has no log yet, by its status, in upstream's words.
fn waiting(found: &PodContainer, previous: bool) -> Option<String> {
    let (name, pod) = (&found.container, &found.pod.metadata.name);
    let status = &found.pod.status;
    let mut all = status.container_statuses.iter().chain(&status.init_container_statuses);
    let container: Option<&ContainerStatus> = all.find(|c| c.name == *name);
    if previous {
        return Some(format!("previous terminated container {name:?} in pod {pod:?} not found"));
    }
    let reason = container.and_then(|c| c.state.waiting.as_ref()).map(|w| w.reason.as_str());
    let why = match (container, reason) {
        (Some(c), None) if c.state.running.is_some() => return None,
        (Some(c), None) if c.state.terminated.is_some() => {
            return Some(format!("container {name:?} in pod {pod:?} is terminated"));
        }
        (_, Some("ErrImagePull")) => "image can't be pulled",
        (_, Some("ImagePullBackOff")) => "trying and failing to pull image",
        (_, Some(reason)) => reason,
        (_, None) => "ContainerCreating",
    };
    Some(format!("container {name:?} in pod {pod:?} is waiting to start: {why}"))
}

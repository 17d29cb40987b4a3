//! Asks a container once: over HTTP, TCP, gRPC, or by a command inside it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use skiff_proto::IntOrString;
use skiff_proto::model::{Container, GrpcAction, HttpGetAction, Probe, TcpSocketAction};
use tokio::sync::mpsc;

use super::http::{self, Get};
use crate::ports::{ExecIo, Runtime};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Success,
    Failure(String),
    /// The question could not be put; it counts for nothing.
    Unknown(String),
}

impl Answer {
    pub fn success(&self) -> Option<bool> {
        match self {
            Self::Success => Some(true),
            Self::Failure(_) => Some(false),
            Self::Unknown(_) => None,
        }
    }
}

/// Chunks of a command's output waiting to be read; the reader only appends them.
const OUTPUT_CHUNKS: usize = 16;
/// Upstream's bound on what a probe's output may add to an event.
const OUTPUT_MAX_BYTES: usize = 10 * 1024;

pub async fn ask(
    runtime: &dyn Runtime,
    container: &Container,
    id: &str,
    probe: &Probe,
    address: Option<IpAddr>,
    timeout: Duration,
) -> Answer {
    if let Some(action) = &probe.exec {
        let asked = exec(runtime, id, &action.command);
        return tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| {
            let command = action.command.join(" ");
            Answer::Failure(format!(
                "command timed out: {command:?} timed out after {}s",
                timeout.as_secs()
            ))
        });
    }
    if let Some(get) = &probe.http_get {
        return http_get(container, get, address, timeout).await;
    }
    if let Some(socket) = &probe.tcp_socket {
        return tcp(container, socket, address, timeout).await;
    }
    if let Some(action) = &probe.grpc {
        return grpc(action, address, timeout).await;
    }
    Answer::Unknown("missing probe handler".into())
}

/// A port by number, or by the name a container gave it.
pub fn port(container: &Container, port: &IntOrString) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => u16::try_from(*number).ok()?,
        IntOrString::String(name) => match container.ports.iter().find(|p| p.name == *name) {
            Some(port) => port.container_port,
            None => name.parse().ok()?,
        },
    };
    (number > 0).then_some(number)
}

async fn resolve(host: &str, address: Option<IpAddr>, port: u16) -> Result<SocketAddr, String> {
    if host.is_empty() {
        let ip = address.ok_or("the pod has no address yet")?;
        return Ok(SocketAddr::new(ip, port));
    }
    let host = host.trim_matches(['[', ']']);
    let mut found = tokio::net::lookup_host((host, port)).await.map_err(|why| why.to_string())?;
    found.next().ok_or_else(|| format!("lookup {host}: no such host"))
}

pub async fn http_get(
    container: &Container,
    action: &HttpGetAction,
    address: Option<IpAddr>,
    timeout: Duration,
) -> Answer {
    let Some(port) = port(container, &action.port) else {
        return Answer::Unknown(format!("invalid port {}", action.port));
    };
    let address = match resolve(&action.host, address, port).await {
        Ok(address) => address,
        Err(why) => return Answer::Unknown(why),
    };
    let tls = action.scheme.eq_ignore_ascii_case("https");
    let headers: Vec<(String, String)> =
        action.http_headers.iter().map(|h| (h.name.clone(), h.value.clone())).collect();
    let default_host = address.to_string();
    let host = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("host"))
        .map_or(default_host.as_str(), |(_, value)| value);
    let get = Get { address, tls, path: &action.path, host, headers: &headers };
    let scheme = if tls { "https" } else { "http" };
    let path = action.path.trim_start_matches('/');
    let url = format!("{scheme}://{address}/{path}");
    match tokio::time::timeout(timeout, http::get(&get)).await {
        Ok(Ok(status)) if (200..400).contains(&status.as_u16()) => Answer::Success,
        Ok(Ok(status)) => {
            Answer::Failure(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
        }
        Ok(Err(why)) => Answer::Failure(format!("Get {url:?}: {why}")),
        Err(_) => Answer::Failure(format!(
            "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

async fn tcp(
    container: &Container,
    action: &TcpSocketAction,
    address: Option<IpAddr>,
    timeout: Duration,
) -> Answer {
    let Some(port) = port(container, &action.port) else {
        return Answer::Unknown(format!("invalid port {}", action.port));
    };
    let address = match resolve(&action.host, address, port).await {
        Ok(address) => address,
        Err(why) => return Answer::Unknown(why),
    };
    match tokio::time::timeout(timeout, http::connect(address)).await {
        Ok(Ok(_)) => Answer::Success,
        Ok(Err(why)) => Answer::Failure(why),
        Err(_) => Answer::Failure(format!("dial tcp {address}: i/o timeout")),
    }
}

/// Runs a command in the container; its output is the reason of a failure.
pub async fn exec(runtime: &dyn Runtime, id: &str, command: &[String]) -> Answer {
    let (stdout, mut output) = mpsc::channel(OUTPUT_CHUNKS);
    let stderr = stdout.clone();
    let io = ExecIo { stdin: None, stdout, stderr, resize: None, tty: false };
    let read = async {
        let mut all = Vec::new();
        while let Some(chunk) = output.recv().await {
            let room = OUTPUT_MAX_BYTES.saturating_sub(all.len());
            all.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        all
    };
    let (code, output) = tokio::join!(runtime.exec(id, command, io), read);
    match code {
        Ok(0) => Answer::Success,
        Ok(_) => Answer::Failure(String::from_utf8_lossy(&output).trim_end().to_owned()),
        Err(why) => Answer::Unknown(why.to_string()),
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

async fn grpc(action: &GrpcAction, address: Option<IpAddr>, timeout: Duration) -> Answer {
    let Some(ip) = address else { return Answer::Unknown("the pod has no address yet".into()) };
    let address = SocketAddr::new(ip, action.port);
    let service = action.service.clone().unwrap_or_default();
    match tokio::time::timeout(timeout, grpc_check(address, service.clone())).await {
        Ok(Ok(SERVING)) => Answer::Success,
        Ok(Ok(other)) => {
            let words = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
            let word = usize::try_from(other).ok().and_then(|n| words.get(n)).unwrap_or(&"UNKNOWN");
            Answer::Failure(format!("service unhealthy (responded with {word:?})"))
        }
        Ok(Err(why)) => Answer::Failure(why),
        Err(_) => {
            Answer::Failure(format!("timeout: health rpc did not complete within {timeout:?}"))
        }
    }
}

async fn grpc_check(address: SocketAddr, service: String) -> Result<i32, String> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
    let channel = endpoint
        .map_err(|why| why.to_string())?
        .connect()
        .await
        .map_err(|why| format!("error: connect to {address}: {why}"))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|why| why.to_string())?;
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let path = http_path("/grpc.health.v1.Health/Check");
    let request = tonic::Request::new(HealthCheckRequest { service });
    let response = client.unary(request, path, codec).await;
    response.map(|r| r.into_inner().status).map_err(|why| why.message().to_owned())
}

fn http_path(path: &'static str) -> ::http::uri::PathAndQuery {
    ::http::uri::PathAndQuery::from_static(path)
}

//! The API over gRPC: what components use that do not share the server's process, and the
//! command line. One connection carries everything; it is made anew by itself when it breaks.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use hyper_util::rt::TokioIo;
use skiff_proto::grpc::api;
use skiff_proto::grpc::api::api_client::ApiClient;
use skiff_proto::{Object, Status};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::api::*;
use crate::wire;

/// A chunk of a list, or an event with the largest object the store takes.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A vanished server is noticed after one interval and one timeout, even by an idle watch.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Lists of thousands of objects flow without waiting for the receiver's window.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// A chunk of a list comes in one frame or two instead of in dozens.
const FRAME_BYTES: u32 = 64 << 10;
/// Read from the socket at once; TLS alone would ask for 4 KiB at a time.
const READ_BYTES: usize = 32 << 10;

/// Where the API server is, and who calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Server {
    /// `https://10.0.0.1:6443`
    pub url: String,
    /// Of the CA that signed the server's certificate.
    pub ca_pem: String,
    /// Empty: no certificate is shown, and the server will refuse.
    pub cert_pem: String,
    pub key_pem: String,
    /// The name in the server's certificate, if it is not the URL's host.
    pub tls_name: String,
}

/// The `Api` of a server elsewhere.
#[derive(Debug, Clone)]
pub struct GrpcApi {
    client: ApiClient<Channel>,
}

/// Why no connection can be configured. A server that is down is no such reason.
#[derive(Debug, thiserror::Error)]
#[error("connecting to the API server at {url}: {why}")]
pub struct ConnectError {
    url: String,
    why: String,
}

impl GrpcApi {
    /// Connects, and fails if the server cannot be reached now.
    pub async fn connect(server: &Server) -> std::result::Result<Arc<Self>, ConnectError> {
        let endpoint = endpoint(server)?;
        let connecting = endpoint.connect_with_connector(tower::service_fn(dial));
        let channel = connecting.await.map_err(|e| fault(server, &e))?;
        Ok(Self::over(channel))
    }

    /// Connects when the first request comes; for components that start before the server.
    pub fn connect_lazy(server: &Server) -> std::result::Result<Arc<Self>, ConnectError> {
        let connector = tower::service_fn(dial);
        Ok(Self::over(endpoint(server)?.connect_with_connector_lazy(connector)))
    }

    fn over(channel: Channel) -> Arc<Self> {
        let client = ApiClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Arc::new(Self { client })
    }

    fn client(&self) -> ApiClient<Channel> {
        self.client.clone()
    }
}

fn endpoint(server: &Server) -> std::result::Result<Endpoint, ConnectError> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&server.ca_pem));
    if !server.cert_pem.is_empty() {
        tls = tls.identity(Identity::from_pem(&server.cert_pem, &server.key_pem));
    }
    if !server.tls_name.is_empty() {
        tls = tls.domain_name(&server.tls_name);
    }
    let endpoint = Endpoint::from_shared(server.url.clone())
        .and_then(|endpoint| endpoint.tls_config(tls))
        .map_err(|error| fault(server, &error))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES))
}

/// A connection to the server, read in large pieces.
async fn dial(uri: http::Uri) -> std::io::Result<TokioIo<BufReader<TcpStream>>> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let default = if uri.scheme_str() == Some("http") { 80 } else { 443 };
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(default))).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(BufReader::with_capacity(READ_BYTES, stream)))
}

fn fault(server: &Server, error: &dyn std::error::Error) -> ConnectError {
    // The transport's own words hide the cause: say the whole chain.
    let mut why = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !why.ends_with(&text) {
            why = format!("{why}: {text}");
        }
        source = cause.source();
    }
    ConnectError { url: server.url.clone(), why }
}

#[async_trait]
impl Api for GrpcApi {
    async fn version(&self) -> Result<VersionInfo> {
        let v = self.client().version(api::VersionRequest {}).await?.into_inner();
        Ok(VersionInfo {
            version: v.version,
            kubernetes_version: v.kubernetes_version,
            platform: v.platform,
        })
    }

    async fn discover(&self) -> Result<Vec<ResourceInfo>> {
        let kinds = self.client().discover(api::DiscoverRequest {}).await?.into_inner();
        Ok(kinds.resources.into_iter().map(wire::resource_info).collect())
    }

    async fn get(&self, target: &Target) -> Result<Arc<Object>> {
        let request = api::GetRequest {
            resource: wire::resource(&target.resource),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            subresource: target.subresource.clone(),
        };
        wire::object(self.client().get(request).await?.into_inner())
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> Result<List> {
        let mut fields = options.fields.clone();
        narrow(&mut fields, &target.name);
        let request = api::ListRequest {
            resource: wire::resource(&target.resource),
            namespace: target.namespace.clone(),
            label_selector: options.labels.to_string(),
            field_selector: fields.to_string(),
            limit: options.limit,
            continue_token: options.continue_token.clone(),
            resource_version: options.resource_version.clone(),
        };
        let mut chunks = self.client().list(request).await?.into_inner();
        let mut list = List::default();
        while let Some(chunk) = chunks.message().await? {
            list.items.reserve(chunk.items.len());
            for item in chunk.items {
                list.items.push(wire::object(item)?);
            }
            list.resource_version = chunk.resource_version;
            list.continue_token = chunk.continue_token;
            let remaining = chunk.remaining_item_count;
            list.remaining_item_count = (remaining > 0).then_some(remaining);
        }
        if list.resource_version.is_empty() {
            return Err(Status::unavailable("the list broke off before its end"));
        }
        Ok(list)
    }

    async fn watch(&self, target: &Target, options: &WatchOptions) -> Result<WatchStream> {
        let mut fields = options.fields.clone();
        narrow(&mut fields, &target.name);
        let request = api::WatchRequest {
            resource: wire::resource(&target.resource),
            namespace: target.namespace.clone(),
            label_selector: options.labels.to_string(),
            field_selector: fields.to_string(),
            resource_version: options.resource_version.clone(),
            allow_bookmarks: options.allow_bookmarks,
        };
        let events = self.client().watch(request).await?.into_inner();
        Ok(Box::pin(events.map(|message| wire::event(message?))))
    }

    async fn create(
        &self,
        target: &Target,
        json: Bytes,
        options: &WriteOptions,
    ) -> Result<Arc<Object>> {
        let request = api::CreateRequest {
            resource: wire::resource(&target.resource),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            subresource: target.subresource.clone(),
            json,
            dry_run: options.dry_run,
            field_validation: wire::validation(options),
        };
        wire::object(self.client().create(request).await?.into_inner())
    }

    async fn update(
        &self,
        target: &Target,
        json: Bytes,
        options: &WriteOptions,
    ) -> Result<Arc<Object>> {
        let request = api::UpdateRequest {
            resource: wire::resource(&target.resource),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            subresource: target.subresource.clone(),
            json,
            dry_run: options.dry_run,
            field_validation: wire::validation(options),
        };
        wire::object(self.client().update(request).await?.into_inner())
    }

    async fn patch(
        &self,
        target: &Target,
        patch: Patch,
        options: &WriteOptions,
    ) -> Result<Arc<Object>> {
        use api::patch_request::Type;
        let (kind, patch) = match patch {
            Patch::Json(json) => (Type::Json, json),
            Patch::Merge(json) => (Type::Merge, json),
            Patch::Strategic(json) => (Type::Strategic, json),
        };
        let request = api::PatchRequest {
            resource: wire::resource(&target.resource),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            subresource: target.subresource.clone(),
            r#type: kind.into(),
            patch,
            dry_run: options.dry_run,
            field_validation: wire::validation(options),
        };
        wire::object(self.client().patch(request).await?.into_inner())
    }

    async fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<Deleted> {
        let request = api::DeleteRequest {
            resource: wire::resource(&target.resource),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            options: Some(wire::delete_options(options)),
        };
        let answer = self.client().delete(request).await?.into_inner();
        let object = wire::object(answer.object.unwrap_or_default())?;
        Ok(if answer.gone { Deleted::Gone(object) } else { Deleted::Terminating(object) })
    }

    async fn delete_collection(
        &self,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<Vec<Arc<Object>>> {
        let request = api::DeleteCollectionRequest {
            resource: wire::resource(&target.resource),
            namespace: target.namespace.clone(),
            label_selector: list.labels.to_string(),
            field_selector: list.fields.to_string(),
            options: Some(wire::delete_options(options)),
        };
        let answer = self.client().delete_collection(request).await?.into_inner();
        answer.items.into_iter().map(wire::object).collect()
    }

    async fn logs(&self, target: &Target, options: &LogOptions) -> Result<ByteStream> {
        let request = api::LogsRequest {
            namespace: target.namespace.clone(),
            pod: target.name.clone(),
            container: options.container.clone(),
            options: Some(wire::log_options(options)),
        };
        let chunks = self.client().logs(request).await?.into_inner();
        Ok(wire::log_bytes(chunks, Status::from))
    }

    async fn exec(
        &self,
        target: &Target,
        options: &ExecOptions,
        input: ExecInputStream,
    ) -> Result<ExecOutputStream> {
        let start = api::ExecStart {
            namespace: target.namespace.clone(),
            pod: target.name.clone(),
            container: options.container.clone(),
            command: options.command.clone(),
            stdin: options.stdin,
            tty: options.tty,
        };
        let output = self.client().exec(exec_input(start, input)).await?.into_inner();
        Ok(wire::exec_output(output, Status::from))
    }
}

/// A collection with a name is a collection of one; the wire says it as a field selector.
fn narrow(fields: &mut skiff_proto::FieldSelector, name: &str) {
    if !name.is_empty() {
        fields.terms.extend(skiff_proto::FieldSelector::equal("metadata.name", name).terms);
    }
}

fn exec_input(
    start: api::ExecStart,
    input: ExecInputStream,
) -> impl Stream<Item = api::ExecInput> + Send + 'static {
    let start = futures_util::stream::iter([api::exec_input::Input::Start(start)]);
    start.chain(input.map(Into::into)).map(|input| api::ExecInput { input: Some(input) })
}

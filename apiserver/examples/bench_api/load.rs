//! The load generator: creates over HTTP/2 frames, without the layers of a general client, since
//! it shares the processor with what it measures. It keeps what a client cannot do without:
//! TLS with a certificate on both sides, gRPC's framing, its status, and reading the created
//! object's envelope (name, uid, version) from every answer.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Version};
use prost::Message;
use rustls::pki_types::ServerName;
use skiff_client::Target;
use skiff_client::grpc::Server;
use skiff_kit::cork::cork;
use skiff_kit::pki::Identity;
use skiff_kit::tls::client_config;
use skiff_proto::WireObject;
use skiff_proto::grpc::api;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const CREATE: &str = "/skiff.api.v1.Api/Create";
/// gRPC's prefix of a message: not compressed, and four bytes of length.
const PREFIX_BYTES: usize = 5;

/// One connection, which any number of clients share.
#[derive(Clone)]
pub struct Connection {
    requests: SendRequest<Bytes>,
    request: Arc<Request<()>>,
}

impl Connection {
    pub async fn open(server: &Server) -> Result<Self> {
        let identity =
            Identity { cert_pem: server.cert_pem.clone(), key_pem: server.key_pem.clone() };
        let tls = TlsConnector::from(Arc::new(client_config(&server.ca_pem, Some(&identity))?));
        let address = server.url.trim_start_matches("https://");
        let stream = TcpStream::connect(address).await.context("connecting to the API server")?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(stream.peer_addr()?.ip());
        let stream = tls.connect(name, stream).await.context("TLS with the API server")?;
        let (stream, outlet) = cork(stream);
        let (requests, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(outlet.run(async { anyhow::Ok(connection.await?) }));
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}{CREATE}", server.url))
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        Ok(Self { requests, request: Arc::new(request.body(())?) })
    }

    /// Sends a message of `message`, and returns what was created.
    pub async fn create(&self, message: Bytes) -> Result<WireObject> {
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut stream) = requests.send_request((*self.request).clone(), false)?;
        stream.send_data(message, true)?;
        let response = response.await?;
        check(response.headers(), true)?;
        let mut body = response.into_body();
        let mut received = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            received.extend_from_slice(&data);
        }
        let trailers = body.trailers().await?.context("an answer without trailers")?;
        check(&trailers, false)?;
        let mut answer = received.freeze();
        ensure!(answer.len() > PREFIX_BYTES, "an answer without an object");
        answer.advance(PREFIX_BYTES);
        Ok(WireObject::decode(answer)?)
    }
}

/// The whole body of a request to create `json`.
pub fn message(target: &Target, json: String) -> Bytes {
    let request = api::CreateRequest {
        resource: Some(api::Resource {
            group: target.resource.group.to_string(),
            version: target.resource.version.to_string(),
            resource: target.resource.plural.to_string(),
        }),
        namespace: target.namespace.clone(),
        json: json.into(),
        ..Default::default()
    };
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + request.encoded_len());
    out.put_u8(0);
    out.put_u32(request.encoded_len() as u32);
    out.extend_from_slice(&request.encode_to_vec());
    out.freeze()
}

/// `grpc-status` must be zero; a failure may come with the headers already.
fn check(headers: &HeaderMap, optional: bool) -> Result<()> {
    let status = headers.get("grpc-status");
    let good = status.map_or(optional, |status| status == "0");
    ensure!(good, "refused: {:?} {:?}", status, headers.get("grpc-message"));
    Ok(())
}

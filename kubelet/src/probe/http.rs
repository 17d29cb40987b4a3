//! One GET over HTTP/1.1, plain or with TLS that trusts anybody, as probes are specified.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use http::{HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What is asked. `host` is what the Host header says.
pub struct Get<'a> {
    pub address: SocketAddr,
    pub tls: bool,
    pub path: &'a str,
    pub host: &'a str,
    pub headers: &'a [(String, String)],
}

/// Errors are worded as upstream's client words them.
pub async fn get(request: &Get<'_>) -> Result<StatusCode, String> {
    let stream = connect(request.address).await?;
    if !request.tls {
        return exchange(stream, request).await;
    }
    let name = ServerName::IpAddress(request.address.ip().into());
    let tls = TlsConnector::from(tls_config()?).connect(name, stream).await;
    exchange(tls.map_err(|why| format!("tls: {why}"))?, request).await
}

pub async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(address).await.map_err(|why| {
        let text = match why.kind() {
            std::io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
            std::io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
            std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
            _ => why.to_string(),
        };
        format!("dial tcp {address}: {text}")
    })
}

async fn exchange<S>(stream: S, get: &Get<'_>) -> Result<StatusCode, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let text = |why: &dyn std::fmt::Display| why.to_string();
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|why| text(&why))?;
    let path =
        if get.path.starts_with('/') { get.path.to_owned() } else { format!("/{}", get.path) };
    let mut request = Request::get(path)
        .header(http::header::HOST, get.host)
        .header(http::header::USER_AGENT, "kube-probe/1.33")
        .header(http::header::ACCEPT, "*/*")
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|why| text(&why))?;
    for (name, value) in get.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            request.headers_mut().insert(name, value);
        }
    }
    let driven = tokio::spawn(connection);
    let response = sender.send_request(request).await;
    // The body is of no interest; the connection ends here.
    driven.abort();
    response.map(|response| response.status()).map_err(|why| text(&why))
}

fn tls_config() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|why| format!("tls: {why}"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    Ok(CONFIG.get_or_init(|| Arc::new(config)).clone())
}

/// Probes do not check certificates: a pod's own are seldom signed by anyone known here.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

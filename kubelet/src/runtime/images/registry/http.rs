//! GET requests to a registry: TLS by the host's authorities, the proxies of the environment, redirects,
//! and the login that the registry asks for.

use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use super::challenge::{Challenge, token_url};
use super::dial::Dialer;
use crate::ports::RegistryAuth;

/// No byte for so long: the registry is gone.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// As Go's client, which upstream's runtimes use.
const REDIRECTS_MAX: usize = 10;
/// As containerd's limit on a manifest.
const DOCUMENT_MAX_BYTES: usize = 4 << 20;
/// What of an error's body is looked at.
const ERROR_MAX_BYTES: usize = 64 << 10;
const USER_AGENT: &str = concat!("skiff/", env!("CARGO_PKG_VERSION"));

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{url}: {fault}")]
    Url { url: String, fault: String },
    #[error("read the host's certificate authorities (the package ca-certificates has them): {0}")]
    Authorities(std::io::Error),
    #[error("failed to do request: Get \"{url}\": {fault}")]
    Send { url: String, fault: String },
    #[error("Get \"{url}\": no byte within {} s", READ_TIMEOUT.as_secs())]
    Silent { url: String },
    #[error("Get \"{url}\": stopped after {REDIRECTS_MAX} redirects")]
    Redirects { url: String },
    #[error("unexpected status from GET request to {url}: {status}{}", said(message))]
    Status { url: String, status: StatusCode, message: String },
    #[error("read the answer of {url}: {fault}")]
    Body { url: String, fault: String },
    #[error("failed to fetch anonymous token or to log in at {url}: {fault}")]
    Token { url: String, fault: String },
}

impl HttpError {
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            HttpError::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

type Body = Empty<Bytes>;

/// One registry, as one user sees it.
pub struct Client {
    pool: Pool<HttpsConnector<Dialer>, Body>,
    /// `https://HOST`, or `http://` on loopback.
    base: String,
    repository: String,
    login: Option<RegistryAuth>,
    /// What the registry wanted to see, once it is known.
    authorization: Mutex<Option<HeaderValue>>,
}

impl Client {
    /// Without `tls` in plain text, as registries on this machine are spoken to.
    pub fn new(
        host: &str,
        repository: &str,
        tls: Option<ClientConfig>,
        login: Option<RegistryAuth>,
    ) -> Client {
        let plain = tls.is_none();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.unwrap_or_else(trusts_nobody))
            .https_or_http()
            .enable_http1()
            .wrap_connector(Dialer::new(plain));
        Client {
            pool: Pool::builder(TokioExecutor::new()).build(connector),
            base: format!("{}://{host}", if plain { "http" } else { "https" }),
            repository: repository.to_owned(),
            login,
            authorization: Mutex::new(None),
        }
    }

    /// A document below the repository (`manifests/v1`), with the headers it came with.
    pub async fn document(
        &self,
        path: &str,
        accept: &[&str],
    ) -> Result<(HeaderMap, Bytes), HttpError> {
        let url = self.url(path);
        let answer = self.get(&url, &accept.join(", ")).await?;
        let (parts, body) = answer.into_parts();
        Ok((parts.headers, read(&url, body, DOCUMENT_MAX_BYTES).await?))
    }

    /// A blob in pieces.
    pub async fn blob(
        &self,
        digest: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, HttpError>> + Unpin + use<>, HttpError> {
        let url = self.url(&format!("blobs/{digest}"));
        let body = self.get(&url, "*/*").await?.into_body();
        let pieces = stream::try_unfold((url, body), |(url, mut body)| async move {
            let piece = piece(&url, &mut body).await?;
            Ok(piece.map(|piece| (piece, (url, body))))
        });
        Ok(Box::pin(pieces))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/v2/{}/{path}", self.base, self.repository)
    }

    /// Asks, and once more after logging in if the registry wants that.
    async fn get(&self, url: &str, accept: &str) -> Result<Response<Incoming>, HttpError> {
        let known = self.authorization().clone();
        let answer = self.follow(url, accept, known).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return checked(url, answer).await;
        }
        let challenges = answer.headers().get_all(header::WWW_AUTHENTICATE);
        let challenge = challenges.iter().find_map(|one| Challenge::parse(one.to_str().ok()?));
        let Some(authorization) = self.answer_to(challenge).await? else {
            return checked(url, answer).await;
        };
        *self.authorization() = Some(authorization.clone());
        checked(url, self.follow(url, accept, Some(authorization)).await?).await
    }

    fn authorization(&self) -> std::sync::MutexGuard<'_, Option<HeaderValue>> {
        self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn answer_to(
        &self,
        challenge: Option<Challenge>,
    ) -> Result<Option<HeaderValue>, HttpError> {
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => Ok(self.basic()),
            Some(Challenge::Bearer { realm, service, scope }) => {
                let url = token_url(&realm, &service, &scope, &self.repository);
                self.token(&url).await.map(Some)
            }
        }
    }

    fn basic(&self) -> Option<HeaderValue> {
        let login = self.login.as_ref()?;
        let text = STANDARD.encode(format!("{}:{}", login.username, login.password));
        secret(&format!("Basic {text}"))
    }

    async fn token(&self, url: &str) -> Result<HeaderValue, HttpError> {
        /// Both names are in use; the specification wants them equal if both are there.
        #[derive(serde::Deserialize)]
        struct Token {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
        }
        let answer = self.follow(url, "application/json", self.basic()).await?;
        let answer = checked(url, answer).await?;
        let bytes = read(url, answer.into_body(), DOCUMENT_MAX_BYTES).await?;
        let fault = |fault: String| HttpError::Token { url: url.to_owned(), fault };
        let token: Token =
            serde_json::from_slice(&bytes).map_err(|error| fault(error.to_string()))?;
        let text = if token.token.is_empty() { token.access_token } else { token.token };
        if text.is_empty() {
            return Err(fault("the answer holds no token".to_owned()));
        }
        secret(&format!("Bearer {text}")).ok_or_else(|| fault("the token is no text".to_owned()))
    }

    /// Follows redirects; who is not the registry does not see the login.
    async fn follow(
        &self,
        url: &str,
        accept: &str,
        authorization: Option<HeaderValue>,
    ) -> Result<Response<Incoming>, HttpError> {
        let mut at = parse(url)?;
        let home = at.authority().cloned();
        for _ in 0..=REDIRECTS_MAX {
            let ours = at.authority() == home.as_ref();
            let answer = self.send(&at, accept, authorization.clone().filter(|_| ours)).await?;
            let location = answer.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
            let Some(location) = location.filter(|_| answer.status().is_redirection()) else {
                return Ok(answer);
            };
            at = next(&at, location)?;
        }
        Err(HttpError::Redirects { url: url.to_owned() })
    }

    async fn send(
        &self,
        uri: &Uri,
        accept: &str,
        authorization: Option<HeaderValue>,
    ) -> Result<Response<Incoming>, HttpError> {
        let url = uri.to_string();
        let mut request = Request::get(uri.clone())
            .header(header::ACCEPT, accept)
            .header(header::USER_AGENT, USER_AGENT);
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let failed = |fault: String| HttpError::Send { url: url.clone(), fault };
        let request = request.body(Empty::new()).map_err(|error| failed(error.to_string()))?;
        match tokio::time::timeout(READ_TIMEOUT, self.pool.request(request)).await {
            Ok(answer) => answer.map_err(|error| failed(chain(&error))),
            Err(_) => Err(HttpError::Silent { url }),
        }
    }
}

/// TLS with who this machine trusts, as it is now: an authority that is added counts at the next pull.
pub fn host_tls() -> Result<ClientConfig, HttpError> {
    let config = builder().with_native_roots().map_err(HttpError::Authorities)?;
    Ok(config.with_no_client_auth())
}

fn trusts_nobody() -> ClientConfig {
    builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth()
}

fn builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    skiff_kit::tls::install_provider();
    ClientConfig::builder()
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn parse(url: &str) -> Result<Uri, HttpError> {
    let fault = |fault: &str| HttpError::Url { url: url.to_owned(), fault: fault.to_owned() };
    let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| fault(&error.to_string()))?;
    match uri.scheme_str() {
        Some("http" | "https") => Ok(uri),
        _ => Err(fault("is no http or https address")),
    }
}

/// Where a redirect leads: another address, or another path of the same.
fn next(at: &Uri, location: &str) -> Result<Uri, HttpError> {
    let absolute = match location.starts_with('/') {
        true => {
            let (scheme, host) = (at.scheme_str(), at.authority());
            format!(
                "{}://{}{location}",
                scheme.unwrap_or_default(),
                host.map_or("", |h| h.as_str())
            )
        }
        false => location.to_owned(),
    };
    let to = parse(&absolute)?;
    if at.scheme_str() == Some("https") && to.scheme_str() != Some("https") {
        let fault = format!("redirects to {absolute}, which is not encrypted");
        return Err(HttpError::Url { url: at.to_string(), fault });
    }
    Ok(to)
}

/// Turns an answer that says no into an error with the registry's own words.
async fn checked(url: &str, answer: Response<Incoming>) -> Result<Response<Incoming>, HttpError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = read(url, answer.into_body(), ERROR_MAX_BYTES).await.unwrap_or_default();
    Err(HttpError::Status { url: url.to_owned(), status, message: message(&body) })
}

/// The distribution specification's error document, `code: message` each.
fn message(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Answer {
        errors: Vec<Fault>,
    }
    #[derive(serde::Deserialize)]
    struct Fault {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else { return String::new() };
    let lines = answer.errors.iter().map(|fault| format!("{}: {}", fault.code, fault.message));
    lines.collect::<Vec<_>>().join("; ")
}

async fn read(url: &str, body: Incoming, max_bytes: usize) -> Result<Bytes, HttpError> {
    match tokio::time::timeout(READ_TIMEOUT, Limited::new(body, max_bytes).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) => {
            let fault = format!("{error} (at most {max_bytes} bytes)");
            Err(HttpError::Body { url: url.to_owned(), fault })
        }
        Err(_) => Err(HttpError::Silent { url: url.to_owned() }),
    }
}

/// The next bytes of a body; `None` at its end.
async fn piece(url: &str, body: &mut Incoming) -> Result<Option<Bytes>, HttpError> {
    loop {
        let Ok(frame) = tokio::time::timeout(READ_TIMEOUT, body.frame()).await else {
            return Err(HttpError::Silent { url: url.to_owned() });
        };
        let Some(frame) = frame else { return Ok(None) };
        let frame =
            frame.map_err(|error| HttpError::Body { url: url.to_owned(), fault: chain(&error) })?;
        if let Ok(bytes) = frame.into_data() {
            return Ok(Some(bytes));
        }
    }
}

/// An error with its causes: of a refused connection the first line alone says nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words.push_str(": ");
            words.push_str(&cause_words);
        }
        source = cause.source();
    }
    words
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use skiff_kit::pki::Ca;

    use super::*;

    #[test]
    fn redirects_stay_encrypted() {
        let at = parse("https://a.test/v2/x/blobs/1").unwrap();
        assert_eq!(next(&at, "/elsewhere").unwrap(), "https://a.test/elsewhere");
        assert_eq!(next(&at, "https://cdn.test/1?sig=2").unwrap(), "https://cdn.test/1?sig=2");
        let error = next(&at, "http://cdn.test/1").unwrap_err().to_string();
        assert_eq!(
            error,
            "https://a.test/v2/x/blobs/1: redirects to http://cdn.test/1, which is not encrypted"
        );
        assert!(next(&at, "ftp://cdn.test/1").is_err());
    }

    #[test]
    fn the_registrys_words_are_kept() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no","detail":null},{"code":"X"}]}"#;
        assert_eq!(message(body), "DENIED: no; X: ");
        assert_eq!(message(b"<html>"), "");
    }

    /// Serves one file over TLS, by a certificate of an authority of its own.
    async fn server(ca: &Ca) -> String {
        let request =
            skiff_kit::pki::Request { ips: vec![[127, 0, 0, 1].into()], ..Default::default() };
        let identity = ca.issue(&request, skiff_kit::pki::LEAF_LIFETIME).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(identity.cert_pem.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap(),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
                    let answer = Response::new(format!("you asked for {}", request.uri()));
                    Ok::<_, std::convert::Infallible>(answer)
                });
                let http = hyper::server::conn::http1::Builder::new();
                let io = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(http.serve_connection(io, service));
            }
        });
        address
    }

    #[tokio::test]
    async fn https_is_spoken_with_trusted_authorities_only() {
        let dir = std::env::temp_dir().join(format!("skiff-registry-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let ca = Ca::load_or_create(&dir, "ca").unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        let address = server(&ca).await;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.cert_pem.as_bytes()).unwrap()).unwrap();
        let trusting = builder().with_root_certificates(roots).with_no_client_auth();
        let client = Client::new(&address, "team/web", Some(trusting), None);
        let (_, body) = client.document("manifests/v1", &["*/*"]).await.unwrap();
        assert_eq!(body, "you asked for /v2/team/web/manifests/v1");

        let client = Client::new(&address, "team/web", Some(trusts_nobody()), None);
        let error = client.document("manifests/v1", &["*/*"]).await.unwrap_err().to_string();
        let expect =
            format!("failed to do request: Get \"https://{address}/v2/team/web/manifests/v1\"");
        assert!(error.contains(&expect) && error.contains("invalid peer certificate"), "{error}");
    }
}

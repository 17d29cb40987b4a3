//! A registry on loopback: the few paths of the distribution specification that a pull uses, with what it
//! was asked; with a password or tokens, and with its blobs elsewhere, if wanted.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use base64::Engine;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

pub struct Registry {
    pub address: String,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    /// By path: `team/web/manifests/v1`, `team/web/blobs/sha256:...`.
    content: Mutex<HashMap<String, (String, Bytes)>>,
    asked: Mutex<Vec<String>>,
    address: String,
    guard: Guard,
    /// Where blobs are to be had instead.
    blobs_at: Mutex<Option<String>>,
}

/// How a registry knows its users.
#[derive(Default)]
enum Guard {
    #[default]
    Open,
    Password(String, String),
    /// Gives tokens to who has the password, and takes nothing else.
    Tokens(String, String),
    /// A store of signed addresses, which refuses any other credentials as S3 does.
    Signed,
}

const TOKEN: &str = "a-token-for-team/web";

impl Registry {
    pub async fn start(login: Option<(&str, &str)>) -> Registry {
        let guard = login.map(|(user, password)| Guard::Password(user.into(), password.into()));
        Self::guarded(guard.unwrap_or_default()).await
    }

    pub async fn with_tokens(user: &str, password: &str) -> Registry {
        Self::guarded(Guard::Tokens(user.into(), password.into())).await
    }

    pub async fn signed() -> Registry {
        Self::guarded(Guard::Signed).await
    }

    /// Blobs are redirected there from now on.
    pub fn blobs_at(&self, other: &Registry) {
        *self.shared.blobs_at.lock().expect("not poisoned") = Some(other.address.clone());
    }

    async fn guarded(guard: Guard) -> Registry {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let shared = Arc::new(Shared { address: address.clone(), guard, ..Shared::default() });
        let serving = shared.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = serving.clone();
                let service = hyper::service::service_fn(move |request| {
                    let answer = answer(&shared, &request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Registry { address, shared, server }
    }

    pub fn put(&self, path: &str, kind: &str, bytes: Vec<u8>) {
        let mut content = self.shared.content.lock().expect("not poisoned");
        content.insert(path.to_owned(), (kind.to_owned(), bytes.into()));
    }

    /// An image under a tag; returns the manifest's digest.
    pub fn put_image(&self, repository: &str, tag: &str, blobs: &[(String, Vec<u8>)]) -> String {
        const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
        let (digest, manifest) = blobs.last().expect("a manifest");
        for (digest, bytes) in blobs {
            self.put(
                &format!("{repository}/blobs/{digest}"),
                "application/octet-stream",
                bytes.clone(),
            );
        }
        self.put(&format!("{repository}/manifests/{tag}"), MANIFEST, manifest.clone());
        self.put(&format!("{repository}/manifests/{digest}"), MANIFEST, manifest.clone());
        digest.clone()
    }

    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().expect("not poisoned").clone()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn refused(status: StatusCode, challenge: &str, body: &'static str) -> Response<Full<Bytes>> {
    let answer = Response::builder().status(status).header(header::WWW_AUTHENTICATE, challenge);
    answer.body(body.into()).expect("an answer")
}

/// What a request without the right credentials is told.
fn refusal(shared: &Shared, request: &Request<Incoming>) -> Option<Response<Full<Bytes>>> {
    const UNAUTHORIZED: &str =
        r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}"#;
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let basic = |user: &str, password: &str| {
        let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        format!("Basic {text}")
    };
    let (wanted, challenge) = match &shared.guard {
        Guard::Open => return None,
        Guard::Signed if given.is_none() => return None,
        Guard::Signed => return Some(refused(StatusCode::BAD_REQUEST, "none", "{}")),
        Guard::Password(user, password) => {
            (basic(user, password), "Basic realm=\"test\"".to_owned())
        }
        Guard::Tokens(user, password) if request.uri().path() == "/token" => {
            (basic(user, password), "Basic".to_owned())
        }
        Guard::Tokens(..) => {
            let (address, scope) = (&shared.address, "repository:team/web:pull");
            let challenge = format!(
                "Bearer realm=\"http://{address}/token\",service=\"test\",scope=\"{scope}\""
            );
            (format!("Bearer {TOKEN}"), challenge)
        }
    };
    (given != Some(&wanted)).then(|| refused(StatusCode::UNAUTHORIZED, &challenge, UNAUTHORIZED))
}

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if let Some(refusal) = refusal(shared, request) {
        return refusal;
    }
    if request.uri().path() == "/token" {
        assert_eq!(request.uri().query(), Some("service=test&scope=repository:team/web:pull"));
        return Response::new(format!("{{\"token\":\"{TOKEN}\"}}").into());
    }
    let path = request.uri().path().strip_prefix("/v2/").unwrap_or_default();
    if path.is_empty() {
        return Response::new("{}".into());
    }
    shared.asked.lock().expect("not poisoned").push(path.to_owned());
    let elsewhere = shared.blobs_at.lock().expect("not poisoned").clone();
    if let Some(address) = elsewhere.filter(|_| path.contains("/blobs/")) {
        let answer = Response::builder().status(StatusCode::TEMPORARY_REDIRECT);
        let location = format!("http://{address}/v2/{path}?signature=1");
        return answer.header(header::LOCATION, location).body(Full::default()).expect("an answer");
    }
    match shared.content.lock().expect("not poisoned").get(path) {
        Some((kind, bytes)) => Response::builder()
            .header(header::CONTENT_TYPE, kind)
            .body(bytes.clone().into())
            .expect("an answer"),
        None => {
            let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":null}]}"#;
            Response::builder().status(StatusCode::NOT_FOUND).body(body.into()).expect("an answer")
        }
    }
}

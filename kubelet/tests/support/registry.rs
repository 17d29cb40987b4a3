//! A registry on loopback: the few paths of the distribution specification that a pull uses, with what it
//! was asked, and with a password if wanted.

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
    login: Option<(String, String)>,
}

impl Registry {
    pub async fn start(login: Option<(&str, &str)>) -> Registry {
        let login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
        let shared = Arc::new(Shared { login, ..Shared::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
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

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if let Some((user, password)) = &shared.login {
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let given =
            request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if given != Some(&format!("Basic {basic}")) {
            let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}"#;
            let answer = Response::builder().status(StatusCode::UNAUTHORIZED);
            return answer
                .header(header::WWW_AUTHENTICATE, "Basic realm=\"test\"")
                .body(body.into())
                .expect("an answer");
        }
    }
    let path = request.uri().path().strip_prefix("/v2/").unwrap_or_default();
    if path.is_empty() {
        return Response::new("{}".into());
    }
    shared.asked.lock().expect("not poisoned").push(path.to_owned());
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

//! Plain HTTPS requests: is the server there, is it ready, which version is it, what does it hold.

use std::fmt::Write;
use std::sync::Arc;

use http::{Method, Response, StatusCode, header};
use serde_json::json;
use skiff_proto::Status;
use skiff_proto::status::reason;
use tonic::body::Body;

use crate::authn::{self, User};
use crate::core::Core;

/// Answers one request. Health and version are told to everybody, as upstream's
/// `system:public-info-viewer` allows; the rest wants a user.
pub async fn answer(
    core: &Core,
    method: &Method,
    path: &str,
    user: Option<Arc<User>>,
) -> Response<Body> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return match user {
            Some(_) => failure(&Status::new(
                reason::METHOD_NOT_ALLOWED,
                "the server does not allow this method on the requested resource",
            )),
            None => failure(&authn::unauthorized()),
        };
    }
    match (path.trim_end_matches('/'), user) {
        ("/healthz" | "/livez", _) => text(StatusCode::OK, "ok".into()),
        ("/readyz", _) => match core.ready().await {
            Ok(()) => text(StatusCode::OK, "ok".into()),
            Err(status) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("[-]store failed: {status}\nreadyz check failed\n"),
            ),
        },
        ("/version", _) => version(core),
        (_, None) => failure(&authn::unauthorized()),
        ("/metrics", Some(_)) => text(StatusCode::OK, metrics(core)),
        (_, Some(_)) => failure(&Status::new(
            reason::NOT_FOUND,
            "the server could not find the requested resource",
        )),
    }
}

/// The shape of upstream's `/version`.
fn version(core: &Core) -> Response<Body> {
    let version = &core.config().version;
    let mut numbers = version.kubernetes_version.trim_start_matches('v').split('.');
    let body = json!({
        "major": numbers.next().unwrap_or_default(),
        "minor": numbers.next().unwrap_or_default(),
        "gitVersion": format!("{}+skiff-{}", version.kubernetes_version, version.version),
        "platform": version.platform,
    });
    respond(StatusCode::OK, "application/json", body.to_string())
}

/// In Prometheus' text format.
fn metrics(core: &Core) -> String {
    let mut out = String::from(
        "# HELP skiff_apiserver_cache_objects Objects in the watch cache.\n\
         # TYPE skiff_apiserver_cache_objects gauge\n",
    );
    let caches = core.hub().caches();
    for cache in &caches {
        let resource = cache.kind.resource.group_resource();
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "skiff_apiserver_cache_objects{{resource=\"{resource}\"}} {}",
            cache.len()
        );
    }
    out.push_str(
        "# HELP skiff_apiserver_watchers Open watches.\n# TYPE skiff_apiserver_watchers gauge\n",
    );
    for cache in &caches {
        let resource = cache.kind.resource.group_resource();
        let _ = writeln!(
            out,
            "skiff_apiserver_watchers{{resource=\"{resource}\"}} {}",
            cache.watchers()
        );
    }
    let _ = write!(
        out,
        "# HELP skiff_apiserver_cache_revision Revision up to which the caches are complete.\n\
         # TYPE skiff_apiserver_cache_revision gauge\nskiff_apiserver_cache_revision {}\n",
        core.hub().progress()
    );
    out
}

fn failure(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_string(status).unwrap_or_default();
    respond(code, "application/json", body)
}

pub fn text(code: StatusCode, body: String) -> Response<Body> {
    respond(code, "text/plain; charset=utf-8", body)
}

fn respond(code: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = code;
    let content_type = header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

//! Answers of the proxy itself, in words that name the object to look at.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;

use super::body::ResponseBody;

pub fn text(status: StatusCode, words: String) -> Response<ResponseBody> {
    let body = Full::new(Bytes::from(words + "\n"));
    let mut response = Response::new(ResponseBody::Text(body));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

pub fn no_rule(host: &str, path: &str) -> Response<ResponseBody> {
    // Debug quoting: what a client sent is not echoed raw.
    text(StatusCode::NOT_FOUND, format!("no Ingress rule matches host {host:?} path {path:?}"))
}

pub fn unavailable(why: &str) -> Response<ResponseBody> {
    text(StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
}

pub fn bad_request(why: &str) -> Response<ResponseBody> {
    text(StatusCode::BAD_REQUEST, why.to_owned())
}

pub fn client_too_slow() -> Response<ResponseBody> {
    text(StatusCode::REQUEST_TIMEOUT, "the body of the request did not arrive in time".to_owned())
}

pub fn bad_gateway(service: &str, why: &str) -> Response<ResponseBody> {
    text(StatusCode::BAD_GATEWAY, format!("Service {service}: {why}"))
}

pub fn gateway_timeout(service: &str, why: &str) -> Response<ResponseBody> {
    text(StatusCode::GATEWAY_TIMEOUT, format!("Service {service}: {why}"))
}

//! Passing a request to an endpoint and its response back; trying others where that is safe.

use std::net::SocketAddr;

use http::header::HeaderValue;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use super::body::{RequestBody, ResponseBody, Timed};
use super::headers::{self, Client};
use super::pool::{Pool, Sender};
use super::{Proxy, answer};
use crate::balancer::{Balancer, Endpoint, InFlight};

/// Endpoints that are tried before the client is told that none can be reached.
const MAX_ENDPOINTS_TRIED: usize = 3;
/// Pooled connections that turn out to be closed before a new one is opened for sure.
const MAX_STALE: usize = 3;

/// A request on its way, with what is needed to send it again.
struct Outgoing {
    request: Request<RequestBody>,
    /// Ends when the body has been sent; `None`: there is no body.
    sent: Option<oneshot::Receiver<()>>,
    /// Sending it twice does no harm, and nothing of it was consumed.
    replayable: bool,
}

/// Why an attempt failed.
enum Failure {
    /// Nothing went out: the request can go to another connection.
    Unsent(Box<Request<RequestBody>>),
    Lost(hyper::Error),
    Late,
}

impl Proxy {
    pub async fn forward(
        &self,
        client: &Client,
        host: HeaderValue,
        service: &str,
        balancer: &Balancer,
        mut request: Request<Incoming>,
    ) -> Response<ResponseBody> {
        let upgrade = headers::upgrade_of(request.headers());
        let tunnel = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        let mut outgoing = self.outgoing(client, host, upgrade, request);
        let (mut tried, mut stale): (Vec<SocketAddr>, usize) = (Vec::new(), 0);
        let mut why = "has no endpoint left to try".to_owned();
        while tried.len() < MAX_ENDPOINTS_TRIED {
            let Some(endpoint) = balancer.pick(&tried, self.routes.now()) else { break };
            let guard = endpoint.enter();
            let pooled = if stale < MAX_STALE { self.pool.take(endpoint.addr) } else { None };
            let reused = pooled.is_some();
            let sender = match pooled {
                Some(sender) => sender,
                None => match self.connect(&endpoint).await {
                    Ok(sender) => sender,
                    Err(error) => {
                        why = format!("endpoint {} cannot be reached: {error}", endpoint.addr);
                        tried.push(endpoint.addr);
                        continue;
                    }
                },
            };
            // A connection that was open before may be closed by the pod in this moment.
            let again = (reused && outgoing.replayable).then(|| copy(&outgoing.request));
            let sent = self.send(sender, endpoint.addr, outgoing.request, &mut outgoing.sent);
            outgoing.request = match (sent.await, again) {
                (Ok(response), _) => return self.respond(response, guard, tunnel),
                (Err(Failure::Unsent(request)), _) => *request,
                (Err(Failure::Lost(_)), Some(again)) => again,
                (Err(failure), _) => return self.fail(service, &endpoint, &failure),
            };
            // The same endpoint may be asked again, a bounded number of times.
            stale += 1;
            if !reused {
                tried.push(endpoint.addr);
            }
        }
        answer::bad_gateway(service, &why)
    }

    /// The request as the pod gets it.
    fn outgoing(
        &self,
        client: &Client,
        host: HeaderValue,
        upgrade: Option<HeaderValue>,
        request: Request<Incoming>,
    ) -> Outgoing {
        let (mut parts, body) = request.into_parts();
        headers::to_upstream(&mut parts.headers, client, host, upgrade);
        parts.uri = origin_form(&parts.uri);
        parts.version = Version::HTTP_11;
        let empty = body.is_end_stream();
        let safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&parts.method);
        let (body, sent) = if empty {
            (RequestBody::Empty, None)
        } else {
            let (sender, sent) = oneshot::channel();
            (RequestBody::Client(Timed::new(body, self.limits.idle_timeout), sender), Some(sent))
        };
        Outgoing { request: Request::from_parts(parts, body), sent, replayable: empty && safe }
    }

    async fn connect(&self, endpoint: &Endpoint) -> std::io::Result<Sender> {
        let connected = Pool::connect(endpoint.addr, self.limits.connect_timeout).await;
        match &connected {
            Ok(_) => endpoint.accepted(),
            Err(_) => endpoint.refused(self.routes.now()),
        }
        connected
    }

    async fn send(
        &self,
        mut sender: Sender,
        addr: SocketAddr,
        request: Request<RequestBody>,
        sent: &mut Option<oneshot::Receiver<()>>,
    ) -> Result<Response<Incoming>, Failure> {
        let response = sender.try_send_request(request);
        let late = async {
            if let Some(sent) = sent {
                // An error means that the body was dropped: sent, or given up.
                let _ = sent.await;
            }
            tokio::time::sleep(self.limits.response_timeout).await;
        };
        tokio::select! {
            biased;
            response = response => match response {
                Ok(response) => {
                    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                        self.pool.give_back(addr, sender);
                    }
                    Ok(response)
                }
                Err(mut error) => match error.take_message() {
                    Some(request) => Err(Failure::Unsent(Box::new(request))),
                    None => Err(Failure::Lost(error.into_error())),
                },
            },
            () = late => Err(Failure::Late),
        }
    }

    fn respond(
        &self,
        mut response: Response<Incoming>,
        guard: InFlight,
        tunnel: Option<OnUpgrade>,
    ) -> Response<ResponseBody> {
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switching && let Some(client) = tunnel {
            self.tunnel(client, hyper::upgrade::on(&mut response));
        } else {
            headers::strip_hop_by_hop(response.headers_mut());
        }
        *response.version_mut() = Version::HTTP_11;
        let idle = self.limits.idle_timeout;
        response.map(|body| ResponseBody::Upstream(Timed::new(body, idle), guard))
    }

    /// Joins both sides once each has switched protocols.
    fn tunnel(&self, client: OnUpgrade, upstream: OnUpgrade) {
        self.tunnels.spawn_local(async move {
            let (client, upstream) = match tokio::try_join!(client, upstream) {
                Ok(both) => both,
                Err(error) => return tracing::debug!(%error, "protocol switch failed"),
            };
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            // How such a connection ends is a matter of its two ends.
            if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut upstream).await {
                tracing::debug!(%error, "upgraded connection ended");
            }
        });
    }

    fn fail(
        &self,
        service: &str,
        endpoint: &Endpoint,
        failure: &Failure,
    ) -> Response<ResponseBody> {
        let addr = endpoint.addr;
        match failure {
            Failure::Late => {
                let limit = self.limits.response_timeout;
                let why = format!("endpoint {addr} did not answer within {limit:?}");
                answer::gateway_timeout(service, &why)
            }
            // The client's own body failed, not the pod.
            Failure::Lost(error) if error.is_user() => answer::client_too_slow(),
            Failure::Lost(error) => {
                let why = format!("endpoint {addr} broke the connection: {}", chain(error));
                answer::bad_gateway(service, &why)
            }
            Failure::Unsent(_) => answer::bad_gateway(service, "the request could not be sent"),
        }
    }
}

/// A request without a body once more.
fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// `/path?query`: a pod is the origin, not a proxy.
fn origin_form(uri: &Uri) -> Uri {
    match uri.path_and_query() {
        Some(path) => Uri::from(path.clone()),
        None => Uri::from_static("/"),
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

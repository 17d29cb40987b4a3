//! One request: find its Service, pass it to an endpoint, pass the answer back.

pub mod answer;
pub mod body;
mod forward;
pub mod headers;
pub mod io;
mod pool;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{HOST, HeaderValue};
use http::{Method, Request, Response, Version};
use hyper::body::Incoming;
use tokio_util::task::TaskTracker;

use self::body::ResponseBody;
use self::headers::Client;
use self::pool::Pool;
use crate::config::Limits;
use crate::route::RouteTable;
use crate::routes::Routes;

/// What the requests of one worker share. It lives on the worker's thread.
pub struct Proxy {
    routes: Arc<Routes>,
    /// The table in use, with its version, so that a request takes no lock.
    current: RefCell<(u64, Arc<RouteTable>)>,
    limits: Limits,
    pool: Rc<Pool>,
    /// Upgraded connections, which outlive their request.
    tunnels: TaskTracker,
}

impl Proxy {
    pub fn new(routes: Arc<Routes>, limits: Limits, tunnels: TaskTracker) -> Self {
        let current = RefCell::new(routes.load());
        let pool = Pool::new(limits.max_idle_per_endpoint);
        Self { routes, current, limits, pool, tunnels }
    }

    /// Always an answer: what fails is told to the client.
    pub async fn serve(
        &self,
        client: &Client,
        request: Request<Incoming>,
    ) -> Response<ResponseBody> {
        let Some(host) = host_of(&request) else {
            return answer::bad_request("an HTTP/1.1 request must have one valid Host header");
        };
        if request.method() == Method::CONNECT {
            return answer::bad_request("CONNECT is not served: this is no forward proxy");
        }
        let name = host.to_str().unwrap_or_default();
        let path = request.uri().path();
        let target = self.table().find(name, path).cloned();
        let Some(target) = target else {
            return answer::no_rule(name, path);
        };
        match &target.balancer {
            Ok(balancer) => self.forward(client, host, &target.service, balancer, request).await,
            Err(why) => answer::unavailable(why),
        }
    }

    fn table(&self) -> Arc<RouteTable> {
        let mut current = self.current.borrow_mut();
        if current.0 != self.routes.version() {
            *current = self.routes.load();
        }
        current.1.clone()
    }
}

/// The host asked for: that of an absolute target, else the Host header (RFC 9112 section
/// 3.2). HTTP/1.0 may have none, which is the empty host.
fn host_of(request: &Request<Incoming>) -> Option<HeaderValue> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (request.uri().authority(), hosts.next(), hosts.next()) {
        (_, _, Some(_)) => None,
        (Some(authority), ..) => HeaderValue::from_str(authority.as_str()).ok(),
        (None, Some(host), None) => host.to_str().is_ok().then(|| host.clone()),
        (None, None, None) if request.version() < Version::HTTP_11 => {
            Some(HeaderValue::from_static(""))
        }
        (None, None, None) => None,
    }
}

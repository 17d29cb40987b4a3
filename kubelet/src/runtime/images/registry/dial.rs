//! Opens connections, through HTTP_PROXY, HTTPS_PROXY and NO_PROXY as the environment has them.

use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::{Service, ServiceExt};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct Dialer {
    direct: HttpConnector,
    /// `None`: this machine itself is never asked through a proxy.
    proxies: Option<Arc<Matcher>>,
}

impl Dialer {
    pub fn new(plain: bool) -> Dialer {
        let mut direct = HttpConnector::new();
        direct.enforce_http(false);
        direct.set_nodelay(true);
        direct.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Dialer { direct, proxies: (!plain).then(|| Matcher::from_env().into()) }
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let direct = self.direct.clone();
        let proxy = self.proxies.as_ref().and_then(|proxies| proxies.intercept(&to));
        Box::pin(async move {
            let Some(proxy) = proxy else { return Ok(direct.oneshot(to).await?) };
            let mut tunnel = Tunnel::new(proxy.uri().clone(), direct);
            if let Some(login) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(login.clone());
            }
            Ok(tunnel.oneshot(to).await?)
        })
    }
}

//! Requests per second through the ingress beside those straight to the pod's server, all on
//! loopback: `cargo run --release -p skiff-ingress --example bench_ingress [CLIENTS SECONDS]`.
//!
//! Client, ingress and server share the machine's cores, so the figures compare, they do not
//! tell what the ingress alone can do. With a third argument `serve` it only serves, for a
//! load generator such as wrk: `wrk -H 'Host: web.example' http://ADDRESS/`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Response;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use skiff_ingress::route::{Endpoints, Observed, RouteTable};
use skiff_ingress::routes::Routes;
use skiff_ingress::{Config, Server};
use skiff_proto::ObjectKey;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

async fn pod() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let hello = Full::<Bytes>::from("hello\n");
            let answer =
                move |_| std::future::ready(Ok::<_, Infallible>(Response::new(hello.clone())));
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service_fn(answer)));
        }
    });
    Ok(addr)
}

/// One Ingress with one path to one Service with one endpoint.
fn table(pod: SocketAddr) -> Result<RouteTable, serde_json::Error> {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
    let rule = json!({"host": "web.example", "http": {"paths": [path]}});
    let ingress = json!({"metadata": {"namespace": "default", "name": "web"},
        "spec": {"ingressClassName": "skiff", "rules": [rule]}});
    let class = json!({"metadata": {"name": "skiff"}, "spec": {"controller": "skiff.dev/ingress"}});
    let slice = json!({"ports": [{"port": pod.port()}], "endpoints": [{"addresses": [pod.ip()]}]});
    let key = ObjectKey::new("default", "web");
    let service = serde_json::from_value(json!({"spec": {"ports": [{"port": 80}]}}))?;
    let observed = Observed {
        ingresses: vec![Arc::new(serde_json::from_value(ingress)?)],
        classes: vec![Arc::new(serde_json::from_value(class)?)],
        services: [(key.clone(), Arc::new(service))].into(),
        slices: [(key, vec![Arc::new(serde_json::from_value(slice)?)])].into(),
    };
    Ok(RouteTable::build(&observed, &mut Endpoints::new(), 0))
}

/// One connection, one request after another; each one's duration.
async fn client(addr: SocketAddr, until: Instant) -> hyper::Result<Vec<Duration>> {
    let stream = TcpStream::connect(addr).await.expect("the server listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut took = Vec::new();
    while Instant::now() < until {
        let begin = Instant::now();
        sender.ready().await?;
        let request = hyper::Request::get("/").header("host", "web.example");
        let request = request.body(Full::<Bytes>::default()).expect("a request");
        let response = sender.send_request(request).await?;
        assert!(response.status().is_success(), "{}", response.status());
        response.into_body().collect().await?;
        took.push(begin.elapsed());
    }
    Ok(took)
}

async fn measure(what: &str, addr: SocketAddr, clients: usize, seconds: u64) {
    let until = Instant::now() + Duration::from_secs(seconds);
    let tasks: Vec<_> = (0..clients).map(|_| tokio::spawn(client(addr, until))).collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.expect("does not panic").expect("no request fails"));
    }
    took.sort();
    let at = |share: usize| took[(took.len() - 1) * share / 100].as_secs_f64() * 1e3;
    println!(
        "{what:<16} {clients} clients: {:>8.0} requests/s, median {:.2} ms, p99 {:.2} ms",
        took.len() as f64 / seconds as f64,
        at(50),
        at(99),
    );
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |n: usize| args.get(n).and_then(|a| a.parse().ok());
    let (clients, seconds) = (number(0).unwrap_or(64), number(1).unwrap_or(5) as u64);
    let pod = pod().await?;
    let config = Config { listen: vec!["127.0.0.1:0".parse()?], ..Config::default() };
    let server = Server::bind(&config)?;
    let ingress = server.local_addrs()[0];
    let (routes, shutdown) = (Arc::new(Routes::default()), CancellationToken::new());
    routes.replace(table(pod)?);
    let serving = tokio::spawn(server.serve(routes, shutdown.clone()));
    if args.get(2).is_some_and(|arg| arg == "serve") {
        println!("ingress http://{ingress}/ with Host web.example, pod http://{pod}/");
        serving.await??;
        return Ok(());
    }
    measure("straight", pod, clients, seconds).await;
    measure("through ingress", ingress, clients, seconds).await;
    shutdown.cancel();
    serving.await??;
    Ok(())
}

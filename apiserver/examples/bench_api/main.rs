//! Measures the API server over its own store: pods created by many clients through gRPC with
//! TLS, one list of all of them, and events to many watchers. Everything shares this machine,
//! the clients too.
//! `cargo run --release -p skiff-apiserver --example bench_api -- [pods] [clients] [connections]`
//!
//! Each client creates one pod after the other and waits for each answer. Clients share
//! connections, as the workers of one process do: 8 to a connection unless told otherwise.
//! Creates go through `load`, whose requests are encoded before the clock starts; lists and
//! watches through the client that everybody uses.
//!
//! Server and clients run on threads of their own, so that each side's CPU time can be told:
//! on a busy machine that figure holds where the time on the clock does not.

mod load;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;
use skiff_apiserver::{Config, Core, serve};
use skiff_client::grpc::{GrpcApi, Server};
use skiff_client::{Api, ListOptions, Patch, Target, WatchOptions, WriteOptions};
use skiff_kit::pki::{Ca, LEAF_LIFETIME, Request};
use skiff_kit::tls::{ClientAuth, install_provider, server_config};
use skiff_proto::resource::{CONFIG_MAPS, PODS, SERVICE_ACCOUNTS};
use skiff_store::Store;
use tokio::runtime::Builder;

use load::Connection;

const CLIENTS_OF_A_CONNECTION: usize = 8;
const WATCHERS: usize = 100;
const WATCHED_CHANGES: usize = 500;
const LISTS: usize = 20;

/// Threads of this name are the clients'; all others are the server's.
const CLIENT_THREAD: &str = "bench-client";

fn main() -> Result<()> {
    install_provider();
    // As the server's own process has it: without one, spans are formatted for nobody.
    skiff_kit::telemetry::init("warn");
    let mut arguments = std::env::args().skip(1);
    let pods: usize = arguments.next().map_or(Ok(5000), |text| text.parse())?;
    let clients: usize = arguments.next().map_or(Ok(32), |text| text.parse())?;
    let shared = clients.div_ceil(CLIENTS_OF_A_CONNECTION);
    let connections: usize = arguments.next().map_or(Ok(shared), |text| text.parse())?;

    let server = Builder::new_multi_thread().enable_all().build()?;
    let client = Builder::new_multi_thread().thread_name(CLIENT_THREAD).enable_all().build()?;
    let dir = tempfile::tempdir()?;
    let (store, core, endpoint) = server.block_on(async {
        let store = Store::open(skiff_store::Config::new("bench", dir.path())).await?;
        let core = Core::new(store.clone(), Config::default()).await?;
        let ca = Ca::load_or_create(dir.path(), "ca")?;
        let endpoint = start(&core, &ca).await?;
        anyhow::Ok((store, core, endpoint))
    })?;
    // Spawned, because what `block_on` polls would run on this thread, which counts as the server's.
    let measured = client.spawn(async move {
        let api = GrpcApi::connect(&endpoint).await?;
        create_one(&api, &Target::all(&SERVICE_ACCOUNTS, "default"), account()).await?;
        creates(&endpoint, pods, clients, connections).await?;
        lists(&api, pods).await?;
        fan_out(&api).await
    });
    client.block_on(measured)??;
    core.config().shutdown.cancel();
    server.block_on(store.shutdown());
    Ok(())
}

/// CPU time, user and system, of the server's and of the clients' threads.
#[derive(Clone, Copy, Default)]
struct Cpu {
    server: Duration,
    client: Duration,
}

impl Cpu {
    /// What the threads that live have used so far, by the kernel's scheduler.
    fn now() -> Result<Self> {
        let mut used = Self::default();
        for task in std::fs::read_dir("/proc/self/task").context("reading the threads")? {
            let task = task?.path();
            // A thread may end between the listing and here.
            let (Ok(name), Ok(stat)) = (
                std::fs::read_to_string(task.join("comm")),
                std::fs::read_to_string(task.join("schedstat")),
            ) else {
                continue;
            };
            let ran = stat.split(' ').next().unwrap_or_default().parse().map(Duration::from_nanos);
            let ran = ran.context("reading a thread's schedstat")?;
            *(if name.trim_end() == CLIENT_THREAD {
                &mut used.client
            } else {
                &mut used.server
            }) += ran;
        }
        Ok(used)
    }

    /// Used since `before`, for each of `count` things.
    fn each(before: Self, count: usize) -> Result<String> {
        let now = Self::now()?;
        let each = |now: Duration, before: Duration| (now - before).div_f64(count as f64);
        let (server, client) = (each(now.server, before.server), each(now.client, before.client));
        Ok(format!("CPU each: server {server:.1?}, client {client:.1?}"))
    }
}

/// Serves the core on loopback; returns how an administrator reaches it.
async fn start(core: &Arc<Core>, ca: &Ca) -> Result<Server> {
    let request = Request {
        common_name: "skiff".into(),
        ips: vec!["127.0.0.1".parse()?],
        ..Request::default()
    };
    let tls =
        server_config(&ca.issue(&request, LEAF_LIFETIME)?, &ca.cert_pem, ClientAuth::Optional)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("https://{}", listener.local_addr()?);
    tokio::spawn(serve(core.clone(), listener, Arc::new(tls), core.config().shutdown.clone()));
    let request = Request {
        common_name: "admin".into(),
        organization: Some("system:masters".into()),
        ..Request::default()
    };
    let admin = ca.issue(&request, LEAF_LIFETIME)?;
    Ok(Server {
        url,
        ca_pem: ca.cert_pem.clone(),
        cert_pem: admin.cert_pem,
        key_pem: admin.key_pem,
        tls_name: String::new(),
    })
}

async fn creates(endpoint: &Server, pods: usize, clients: usize, connections: usize) -> Result<()> {
    let target = Target::all(&PODS, "default");
    let mut work: Vec<Vec<Bytes>> = vec![Vec::new(); clients];
    for n in 0..pods {
        work[n % clients].push(load::message(&target, pod(n).to_string()));
    }
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(Connection::open(endpoint).await?);
    }
    let (began, cpu) = (Instant::now(), Cpu::now()?);
    let tasks = work.into_iter().enumerate().map(|(client, messages)| {
        let connection = open[client % connections].clone();
        tokio::spawn(async move {
            let mut took = Vec::new();
            for message in messages {
                let began = Instant::now();
                connection.create(message).await.context("creating a pod")?;
                took.push(began.elapsed());
            }
            anyhow::Ok(took)
        })
    });
    let mut took = Vec::new();
    for task in futures_util::future::join_all(tasks).await {
        took.extend(task??);
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu = Cpu::each(cpu, pods)?;
    took.sort();
    println!(
        "creates     {:.0}/s ({pods} pods, {clients} clients, {connections} connections; p50 {:.1?}, p99 {:.1?}; {cpu})",
        pods as f64 / seconds,
        took[took.len() / 2],
        took[took.len() * 99 / 100],
    );
    Ok(())
}

async fn lists(api: &GrpcApi, pods: usize) -> Result<()> {
    let target = Target::all(&PODS, "default");
    let mut took: Vec<Duration> = Vec::new();
    let mut bytes = 0;
    let cpu = Cpu::now()?;
    for _ in 0..LISTS {
        let began = Instant::now();
        let list = api.list(&target, &ListOptions::default()).await?;
        took.push(began.elapsed());
        anyhow::ensure!(list.items.len() == pods, "{} of {pods} pods listed", list.items.len());
        bytes = list.items.iter().map(|o| o.json.len()).sum();
    }
    took.sort();
    println!(
        "list        {:.1?} at the median, {:.1?} at best ({pods} pods, {} KiB; {})",
        took[LISTS / 2],
        took[0],
        bytes / 1024,
        Cpu::each(cpu, LISTS)?,
    );
    Ok(())
}

async fn fan_out(api: &GrpcApi) -> Result<()> {
    let all = Target::all(&CONFIG_MAPS, "default");
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "watched"}});
    create_one(api, &all, object).await?;
    let version = api.list(&all, &ListOptions::default()).await?.resource_version;
    let mut watches = Vec::new();
    for _ in 0..WATCHERS {
        let options = WatchOptions { resource_version: version.clone(), ..WatchOptions::default() };
        watches.push(api.watch(&all, &options).await?);
    }
    let (began, cpu) = (Instant::now(), Cpu::now()?);
    let watching = watches.into_iter().map(|watch| {
        tokio::spawn(async move {
            watch
                .take(WATCHED_CHANGES)
                .filter(|e| {
                    let good = e.is_ok();
                    async move { good }
                })
                .count()
                .await
        })
    });
    let watching: Vec<_> = watching.collect();
    let one = Target::one(&CONFIG_MAPS, "default", "watched");
    for n in 0..WATCHED_CHANGES {
        let patch = Patch::Merge(Bytes::from(json!({"data": {"n": n.to_string()}}).to_string()));
        api.patch(&one, patch, &WriteOptions::default()).await?;
    }
    let mut events = 0;
    for watch in watching {
        events += watch.await?;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "watch       {:.0} events/s ({WATCHERS} watchers, {WATCHED_CHANGES} changes, {events} events; {})",
        events as f64 / seconds,
        Cpu::each(cpu, events)?,
    );
    Ok(())
}

async fn create_one(api: &GrpcApi, target: &Target, object: serde_json::Value) -> Result<()> {
    let json = Bytes::from(object.to_string());
    let created = api.create(target, json, &WriteOptions::default()).await;
    created.map(drop).with_context(|| format!("creating a {}", target.resource))
}

fn account() -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}})
}

/// A pod such as a Deployment makes.
fn pod(n: usize) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("web-{n:06}"), "labels": {"app": "web", "pod-template-hash": "5d8f9c7b4"}},
        "spec": {"containers": [{
            "name": "web", "image": "registry.example/web:1.2.3",
            "ports": [{"containerPort": 8080}],
            "env": [{"name": "MODE", "value": "production"}],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}},
        }]},
    })
}

//! A store with its etcd face on a port of its own, and Debian's `etcdctl` to talk to it.
#![allow(dead_code, clippy::unwrap_used)]

pub mod stream;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use skiff_kit::pki::{Ca, LEAF_LIFETIME, Request};
use skiff_kit::tls::{ClientAuth, server_config};
use skiff_store::{Config, Store};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// Far longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Served {
    pub dir: tempfile::TempDir,
    pub store: Arc<Store>,
    pub address: SocketAddr,
    pub shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
    secure: bool,
}

pub fn config(dir: &Path) -> Config {
    let mut config = Config::new("test", dir.join("store"));
    config.log_segment_bytes = 4 << 20;
    config.engine_segment_bytes = 256 << 10;
    config.min_free_bytes = 6 << 20;
    config
}

impl Served {
    pub async fn plain() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start(change, false).await
    }

    pub async fn secure() -> Self {
        Self::start(|_| {}, true).await
    }

    async fn start(change: impl FnOnce(&mut Config), secure: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        change(&mut config);
        let store = Store::open(config).await.expect("open the store");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = secure.then(|| Arc::new(certificates(dir.path())));
        let shutdown = CancellationToken::new();
        let serving = {
            let (store, shutdown) = (store.clone(), shutdown.clone());
            tokio::spawn(async move {
                skiff_store::etcd::serve(store, listener, tls, shutdown).await.expect("serve");
            })
        };
        Self { dir, store, address, shutdown, serving, secure }
    }

    pub fn url(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.address)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Ends the face, then the store.
    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.serving).await.expect("the face stops").unwrap();
        self.store.shutdown().await;
    }

    /// `etcdctl` with this endpoint and, if it needs them, certificates.
    pub fn etcdctl(&self, args: &[&str]) -> Command {
        let mut command = etcdctl(&self.url());
        if self.secure {
            command.arg("--cacert").arg(self.path("ca.crt"));
            command.arg("--cert").arg(self.path("client.crt"));
            command.arg("--key").arg(self.path("client.key"));
        }
        command.args(args);
        command
    }

    /// What it prints; it must succeed. Some commands print to the one side, some to the
    /// other.
    pub async fn ctl(&self, args: &[&str]) -> String {
        self.ctl_with_stdin(args, "").await
    }

    pub async fn ctl_with_stdin(&self, args: &[&str], stdin: &str) -> String {
        let output = run(self.etcdctl(args), stdin).await;
        let (out, err) = text(&output);
        assert!(output.status.success(), "etcdctl {args:?}: {out}{err}");
        if out.is_empty() { err } else { out }
    }

    /// What it complains about; it must fail.
    pub async fn ctl_fails(&self, args: &[&str]) -> String {
        let output = run(self.etcdctl(args), "").await;
        let (out, err) = text(&output);
        assert!(!output.status.success(), "etcdctl {args:?} was to fail: {out}{err}");
        err
    }

    pub async fn json(&self, args: &[&str]) -> serde_json::Value {
        let mut args = args.to_vec();
        args.extend(["-w", "json"]);
        let out = self.ctl(&args).await;
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}"))
    }
}

pub fn etcdctl(endpoint: &str) -> Command {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").arg("--endpoints").arg(endpoint);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

pub async fn run(mut command: Command, stdin: &str) -> Output {
    let mut child = command
        .spawn()
        .expect("run etcdctl: it is in Debian's package etcd-client, which this test needs");
    let mut input = child.stdin.take().unwrap();
    input.write_all(stdin.as_bytes()).await.unwrap();
    drop(input);
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    ended.expect("etcdctl ends in time").unwrap()
}

pub fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// A CA, the server's certificate from it and a client's, as files; the server's side.
fn certificates(dir: &Path) -> rustls::ServerConfig {
    let ca = Ca::load_or_create(dir, "ca").unwrap();
    let request = |name: &str| Request {
        common_name: name.into(),
        dns_names: vec!["localhost".into()],
        ips: vec!["127.0.0.1".parse().unwrap()],
        ..Default::default()
    };
    let server = ca.issue(&request("server"), LEAF_LIFETIME).unwrap();
    let client = ca.issue(&request("client"), LEAF_LIFETIME).unwrap();
    std::fs::write(dir.join("client.crt"), client.cert_pem).unwrap();
    std::fs::write(dir.join("client.key"), client.key_pem).unwrap();
    server_config(&server, &ca.cert_pem, ClientAuth::Required).unwrap()
}

/// A real etcd in a folder of its own; killed when it is dropped.
pub struct Etcd {
    pub dir: tempfile::TempDir,
    pub url: String,
    flags: Vec<String>,
    child: Option<tokio::process::Child>,
}

impl Etcd {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    pub async fn with(more: &[&str]) -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (clients, peers) = (free(), free());
        let url =
            |listener: &std::net::TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let (url, peer_url) = (url(&clients), url(&peers));
        drop((clients, peers));
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data").display().to_string();
        let cluster = format!("default={peer_url}");
        let mut flags: Vec<String> = [
            ["--data-dir", &data],
            ["--listen-client-urls", &url],
            ["--advertise-client-urls", &url],
            ["--listen-peer-urls", &peer_url],
            ["--initial-advertise-peer-urls", &peer_url],
            ["--initial-cluster", &cluster],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
        flags.extend(more.iter().map(|flag| (*flag).to_owned()));
        let mut etcd = Self { dir, url, flags, child: None };
        etcd.run().await;
        etcd
    }

    /// Also again, after it was killed.
    pub async fn run(&mut self) {
        use skiff_proto::grpc::etcdserverpb as pb;
        let mut command = Command::new("etcd");
        command.args(&self.flags).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let child = command
            .spawn()
            .expect("run etcd: it is in Debian's package etcd-server, which this test needs");
        self.child = Some(child);
        let request = || pb::RangeRequest { key: "x".into(), ..Default::default() };
        let answers = async {
            loop {
                let client = pb::kv_client::KvClient::connect(self.url.clone()).await;
                if let Ok(mut client) = client
                    && client.range(request()).await.is_ok()
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, answers).await.expect("etcd answers in time");
    }

    /// As a power loss would end it.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }
}

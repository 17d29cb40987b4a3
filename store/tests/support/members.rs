//! Three members in one process, talking over loopback.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use skiff_store::kv::Kv as _;
use skiff_store::{Config, InitialMember, Store};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

use super::{config, one};

pub struct Member {
    pub store: Arc<Store>,
    pub config: Config,
    server: tokio::task::JoinHandle<()>,
}

impl Member {
    pub async fn start(config: Config, listener: TcpListener) -> Self {
        let store = Store::open(config.clone()).await.unwrap();
        let service = store.peer_service(Default::default());
        let server = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let served = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming);
            served.await.unwrap();
        });
        Self { store, config, server }
    }

    pub async fn stop(self) {
        self.server.abort();
        // Its listener goes with it, and the next life needs the port.
        let _ = self.server.await;
        self.store.shutdown().await;
    }

    /// One that was stopped.
    pub async fn start_again(config: Config) -> Self {
        let address = config.peer_urls[0].trim_start_matches("http://").to_owned();
        Self::start(config, TcpListener::bind(address).await.unwrap()).await
    }
}

pub async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

pub fn member_config(dir: &Path, name: &str, url: &str) -> Config {
    let mut config = config(&dir.join(name));
    config.name = name.into();
    config.peer_urls = vec![url.into()];
    config
}

pub async fn three(dir: &Path) -> Vec<Member> {
    three_with(dir, |_| {}).await
}

pub async fn three_with(dir: &Path, change: impl Fn(&mut Config)) -> Vec<Member> {
    let mut listeners = Vec::new();
    for name in ["a", "b", "c"] {
        let (listener, url) = listen().await;
        listeners.push((name, listener, url));
    }
    let initial = |(name, _, url): &(&str, TcpListener, String)| InitialMember {
        name: (*name).into(),
        peer_urls: vec![url.clone()],
    };
    let cluster: Vec<_> = listeners.iter().map(initial).collect();
    let mut members = Vec::new();
    for (name, listener, url) in listeners {
        let mut config = member_config(dir, name, &url);
        config.initial_cluster = cluster.clone();
        change(&mut config);
        members.push(Member::start(config, listener).await);
    }
    members
}

/// Until one of them answers a linearizable read.
pub async fn leader(members: &[Member]) -> usize {
    for _ in 0..300 {
        for (at, member) in members.iter().enumerate() {
            if member.store.range(one("any")).await.is_ok() {
                return at;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no leader in 15 s");
}

/// Until it holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: not in 30 s");
}

pub async fn wait_for(store: &Store, key: &str, expected: &str) {
    let mut request = one(key);
    request.serializable = true;
    eventually(&format!("{key} arrives"), async || {
        let got = store.range(request.clone()).await.unwrap().kvs.pop();
        got.is_some_and(|kv| kv.value == expected)
    })
    .await;
}

/// A small tmpfs, gone with the test.
pub struct Tmpfs(pub PathBuf);

impl Tmpfs {
    pub fn mount(path: PathBuf, megabytes: u32) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let options = format!("size={megabytes}m");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&path)
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "this test needs root, to mount a small tmpfs on {}",
            path.display()
        );
        Self(path)
    }

    /// Leaves about so much.
    pub fn fill(&self, left_bytes: u64) {
        let stat = nix::sys::statvfs::statvfs(&self.0).unwrap();
        let free = stat.blocks_available() as u64 * stat.fragment_size() as u64;
        let filler = vec![1u8; free.saturating_sub(left_bytes) as usize];
        std::fs::write(self.0.join("filler"), filler).unwrap();
    }

    pub fn empty(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

//! Three members in one process, talking over loopback: nothing in the store assumes one.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use skiff_store::kv::*;
use skiff_store::{Config, InitialMember, InitialState, Store};
use support::*;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

struct Member {
    store: Arc<Store>,
    server: tokio::task::JoinHandle<()>,
}

impl Member {
    async fn start(config: Config, listener: TcpListener) -> Self {
        let store = Store::open(config).await.unwrap();
        let service = store.peer_service();
        let server = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let served = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming);
            served.await.unwrap();
        });
        Self { store, server }
    }

    async fn stop(self) {
        self.server.abort();
        self.store.shutdown().await;
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

fn member_config(dir: &Path, name: &str, url: &str) -> Config {
    let mut config = config(&dir.join(name));
    config.name = name.into();
    config.peer_urls = vec![url.into()];
    config
}

async fn three(dir: &Path) -> Vec<Member> {
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
        members.push(Member::start(config, listener).await);
    }
    members
}

/// Until one of them answers a linearizable read.
async fn leader(members: &[Member]) -> usize {
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

async fn wait_for(store: &Store, key: &str, expected: &str) {
    let mut request = one(key);
    request.serializable = true;
    for _ in 0..400 {
        let got = store.range(request.clone()).await.unwrap().kvs.pop();
        if got.is_some_and(|kv| kv.value == expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{key} did not arrive in 20 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_survive_the_loss_of_their_leader() {
    let dir = tempfile::tempdir().unwrap();
    let mut members = three(dir.path()).await;
    let first = leader(&members).await;
    put(&members[first].store, "k", "1").await;
    for member in &members {
        wait_for(&member.store, "k", "1").await;
    }
    let follower = (first + 1) % 3;
    // A follower serves too: it has applied what it acknowledges.
    put(&members[follower].store, "f", "1").await;
    let mut here = one("f");
    here.serializable = true;
    assert_eq!(members[follower].store.range(here).await.unwrap().kvs[0].value, "1");
    assert_eq!(value(&members[(first + 2) % 3].store, "f").await.as_deref(), Some("1"));

    members.remove(first).stop().await;
    let second = leader(&members).await;
    let store = &members[second].store;
    assert_eq!(value(store, "k").await.as_deref(), Some("1"));
    put(store, "k", "2").await;
    wait_for(&members[1 - second].store, "k", "2").await;

    // One of three alone is no majority: no write, and no read that might be stale.
    members.remove(second).stop().await;
    let alone = &members[0].store;
    let refused =
        tokio::time::timeout(Duration::from_secs(20), alone.range(one("k"))).await.unwrap();
    assert_eq!(refused, Err(KvError::NoLeader));
    let mut stale = one("k");
    stale.serializable = true;
    assert_eq!(alone.range(stale).await.unwrap().kvs[0].value, "2");
    members.remove(0).stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_gets_a_snapshot_and_becomes_a_voter() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, url) = listen().await;
    let first = Member::start(member_config(dir.path(), "a", &url), listener).await;
    for n in 0..100 {
        put(&first.store, &format!("k{n}"), &"x".repeat(3000)).await;
    }
    // The log before is gone, so the new member needs the snapshot.
    first.store.defragment().await.unwrap();
    put(&first.store, "after", "1").await;

    let (listener, url) = listen().await;
    let mut joining = member_config(dir.path(), "b", &url);
    joining.initial_state = InitialState::Existing;
    joining.initial_cluster = vec![
        InitialMember {
            name: "a".into(),
            peer_urls: first.store.members()[0].node.peer_urls.clone(),
        },
        InitialMember { name: "b".into(), peer_urls: vec![url.clone()] },
    ];
    let id = first.store.member_add(vec![url], true).await.unwrap();
    let second = Member::start(joining, listener).await;
    wait_for(&second.store, "after", "1").await;
    assert!(second.store.status().is_learner);
    first.store.member_promote(id).await.unwrap();
    put(&first.store, "both", "1").await;
    wait_for(&second.store, "both", "1").await;
    assert_eq!(first.store.hash_kv(0).await.unwrap(), second.store.hash_kv(0).await.unwrap());

    first.store.move_leader(id).await.unwrap();
    let members = [first, second];
    for _ in 0..200 {
        if members[1].store.txn(txn(vec![put_op("moved", "1")])).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    wait_for(&members[0].store, "moved", "1").await;
    for member in members {
        member.stop().await;
    }
}

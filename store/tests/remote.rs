//! The store's client of an etcd cluster, when things go wrong: etcd killed and started
//! again, one endpoint of several gone, certificates of the wrong authority.
#![allow(clippy::unwrap_used)]

mod etcd_support;
mod support;

use std::sync::Arc;

use etcd_support::{Etcd, PATIENCE, Served};
use skiff_store::kv::*;
use skiff_store::remote::{Options, Remote, Tls};
use support::{one, put_op, txn};

async fn connect(urls: &[&str]) -> Arc<Remote> {
    let endpoints = urls.iter().map(|url| (*url).to_owned()).collect();
    Remote::connect(Options { endpoints, ..Default::default() }).await.unwrap()
}

async fn put(kv: &dyn Kv, key: &str, value: &str) -> Result<Revision, KvError> {
    Ok(kv.txn(txn(vec![put_op(key, value)])).await?.revision)
}

fn watch_all(start_revision: Revision) -> WatchRequest {
    WatchRequest { range: KeyRange::From("\0".into()), start_revision, prev_kv: false }
}

/// The next `count` events' revisions, none of them twice.
async fn revisions(watch: &mut Watch, count: usize) -> Vec<Revision> {
    let mut got = Vec::new();
    while got.len() < count {
        let message = tokio::time::timeout(PATIENCE, watch.messages.recv()).await;
        match message.expect("events come in time") {
            Some(WatchMessage::Events { events, .. }) => {
                got.extend(events.iter().map(|event| event.kv.mod_revision))
            }
            Some(WatchMessage::Progress { .. }) => {}
            other => panic!("after {got:?}: {other:?}"),
        }
    }
    got
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_datastore_that_is_killed_and_comes_back() {
    let mut etcd = Etcd::start().await;
    let remote = connect(&[&etcd.url]).await;
    let mut watch = remote.watch(watch_all(0)).await.unwrap();
    let first = put(&*remote, "a", "1").await.unwrap();
    assert_eq!(revisions(&mut watch, 1).await, [first]);

    etcd.kill().await;
    let error = remote.range(one("a")).await.unwrap_err();
    assert!(matches!(error, KvError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&etcd.url), "{error}");
    let error = put(&*remote, "a", "lost").await.unwrap_err();
    assert!(matches!(error, KvError::Unreachable { .. }), "nothing was sent: {error}");

    etcd.run().await;
    let next = put(&*remote, "a", "2").await.unwrap();
    assert_eq!(next, first + 1, "what was refused was not written");
    assert_eq!(revisions(&mut watch, 1).await, [next], "the watch goes on where it was");
    let mut seen = next;
    for _ in 0..3 {
        etcd.kill().await;
        etcd.run().await;
        // The first write may meet the connection as it breaks: then its outcome is not known.
        while put(&*remote, "a", "again").await.is_err() {}
        let now = remote.range(one("a")).await.unwrap().revision;
        let got = revisions(&mut watch, (now - seen) as usize).await;
        assert_eq!(got, (seen + 1..=now).collect::<Vec<_>>(), "none lost, none twice");
        seen = now;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_endpoint_takes_over() {
    let served = Served::plain().await;
    // Two ways to one store, so that both know the same.
    let second = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let second_url = format!("http://{}", second.local_addr().unwrap());
    let shutdown = tokio_util::sync::CancellationToken::new();
    let serving = skiff_store::etcd::serve(served.store.clone(), second, None, shutdown.clone());
    let serving = tokio::spawn(serving);
    let remote = connect(&["http://127.0.0.1:1", &second_url, &served.url()]).await;
    let mut watch = remote.watch(watch_all(0)).await.unwrap();
    let first = put(&*remote, "a", "1").await.unwrap();
    shutdown.cancel();
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
    let value = remote.range(one("a")).await.unwrap();
    assert_eq!(value.kvs.len(), 1, "reads go to the next endpoint by themselves");
    let next = put(&*remote, "a", "2").await.unwrap();
    assert_eq!(revisions(&mut watch, 2).await, [first, next]);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_start_is_one_clear_error() {
    skiff_kit::tls::install_provider();
    let served = Served::secure().await;
    let read = |name: &str| std::fs::read_to_string(served.path(name)).unwrap();
    let identity = Some((read("client.crt"), read("client.key")));
    let other = tempfile::tempdir().unwrap();
    let stranger = skiff_kit::pki::Ca::load_or_create(other.path(), "ca").unwrap();
    let foreign =
        stranger.issue(&skiff_kit::pki::Request::default(), skiff_kit::pki::LEAF_LIFETIME).unwrap();
    let foreign = Some((foreign.cert_pem, foreign.key_pem));
    let check = async |ca_pem: &str, identity: &Option<(String, String)>, expect: &str| {
        let tls = Tls { ca_pem: ca_pem.to_owned(), identity: identity.clone() };
        let options =
            Options { endpoints: vec![served.url()], tls: Some(tls), ..Default::default() };
        match Remote::connect(options).await {
            Ok(_) => assert_eq!(expect, "good"),
            Err(error) => {
                let text = error.to_string();
                for part in [expect, &served.url(), "--datastore-endpoint"] {
                    assert!(text.contains(part), "{part} not in {text}");
                }
            }
        }
    };
    let ca = read("ca.crt");
    check(&ca, &identity, "good").await;
    check(&stranger.cert_pem, &identity, "its certificate is not of --datastore-cafile").await;
    check(&ca, &None, "--datastore-certfile").await;
    check(&ca, &foreign, "--datastore-certfile").await;
    served.stop().await;
}

/// No call waits for ever on a peer that takes connections and says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_endpoint_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let options = Options { endpoints: vec![url.clone()], ..Default::default() };
    let error = tokio::time::timeout(PATIENCE, Remote::connect(options)).await.unwrap();
    let text = error.err().unwrap().to_string();
    assert!(text.contains(&url) && text.contains("no answer within"), "{text}");
}

//! Backups: saved over the etcd face while the store runs, restored into new clusters.
#![allow(clippy::unwrap_used)]

mod etcd_support;
mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_support::Served;
use skiff_store::kv::*;
use skiff_store::remote::{Options, Tls, save};
use skiff_store::snapshot::Kept;
use skiff_store::{Config, InitialMember, RestoreOptions, Store};
use support::*;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

/// The folder goes with its last owner, and the file with it.
async fn saved(served: &Served, tls: Option<Tls>) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backup.skiff");
    let options = Options { endpoints: vec![served.url()], tls, ..Default::default() };
    let kept = [Kept { name: "ca.key".into(), content: b"key".to_vec() }];
    let status = save(&options, &path, "2026-01-01T00:00:00Z".into(), &kept).await.unwrap();
    assert_eq!(status.revision, served.store.revision());
    assert!(!dir.path().join("backup.skiff.part").exists());
    (dir, path)
}

async fn filled(served: &Served) {
    for n in 0..300 {
        put(&served.store, &format!("k{:03}", n % 100), &"v".repeat(1000 + n)).await;
    }
    delete(&served.store, "k050").await;
    served.store.compact(100, true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saved_with_certificates_and_restored_alone() {
    skiff_kit::tls::install_provider();
    let served = Served::secure().await;
    filled(&served).await;
    let read = |name: &str| std::fs::read_to_string(served.path(name)).unwrap();
    let identity = Some((read("client.crt"), read("client.key")));
    let (_folder, path) = saved(&served, Some(Tls { ca_pem: read("ca.crt"), identity })).await;
    let status = Store::snapshot_status(&path).unwrap();
    assert_eq!((status.revision, status.compacted), (302, 100));
    assert!(status.files[0].content == b"key" && status.manifest.is_some());
    let hash = served.store.hash_kv(0).await.unwrap();
    served.stop().await;

    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    Store::restore(&path, &config).unwrap();
    let restored = Store::open(config).await.unwrap();
    assert_eq!(restored.revision(), 302);
    assert_eq!(restored.hash_kv(0).await.unwrap(), hash);
    assert_eq!(value(&restored, "k050").await, None);
    assert_eq!(value(&restored, "k099").await.unwrap().len(), 1299);
    let old = RangeRequest { revision: 99, ..one("k001") };
    let compacted = KvError::Compacted { requested: 99, compacted: 100 };
    assert_eq!(restored.range(old).await.unwrap_err(), compacted);
    assert_eq!(put(&restored, "new", "v").await, 303, "revisions go on");
    restored.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revisions_left_out_and_watches_told_to_list_again() {
    let served = Served::plain().await;
    filled(&served).await;
    let (_folder, path) = saved(&served, None).await;
    served.stop().await;
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let options = RestoreOptions { bump_revision: 1_000_000, mark_compacted: true };
    Store::restore_with(&path, &config, options).unwrap();
    for round in 0..2 {
        let restored = Store::open(config.clone()).await.unwrap();
        let next = put(&restored, "k001", "new").await;
        assert!(next > 1_000_302, "{next}");
        let mut watch = restored.watch(watch_from("k", 303)).await.unwrap();
        let told = tokio::time::timeout(Duration::from_secs(20), watch.messages.recv()).await;
        let told = told.unwrap().unwrap();
        // The second time, what the first one compacted.
        let expect = 1_000_302 + round;
        let WatchMessage::Compacted { compacted } = told else { panic!("{told:?}") };
        assert_eq!(compacted, expect);
        assert_eq!(value(&restored, "k099").await.unwrap().len(), 1299);
        assert_eq!(restored.range(prefix("k")).await.unwrap().count, 99);
        restored.compact(next, true).await.unwrap();
        assert_eq!(restored.range(prefix("k")).await.unwrap().count, 99);
        assert_eq!(value(&restored, "k099").await.unwrap().len(), 1299);
        restored.shutdown().await;
    }
}

fn member_config(dir: &Path, name: &str, cluster: &[InitialMember]) -> Config {
    let mut config = config(&dir.join(name));
    config.name = name.into();
    config.initial_cluster = cluster.to_vec();
    config.cluster_token = "restored".into();
    let me = cluster.iter().find(|member| member.name == name).unwrap();
    config.peer_urls.clone_from(&me.peer_urls);
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restored_into_three_members() {
    let served = Served::plain().await;
    filled(&served).await;
    let (_folder, path) = saved(&served, None).await;
    served.stop().await;

    let dir = tempfile::tempdir().unwrap();
    let mut listeners = Vec::new();
    let mut cluster = Vec::new();
    for name in ["a", "b", "c"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        cluster.push(InitialMember { name: name.into(), peer_urls: vec![url] });
        listeners.push((name, listener));
    }
    let mut stores = Vec::new();
    let mut servers = tokio::task::JoinSet::new();
    for (name, listener) in listeners {
        let config = member_config(dir.path(), name, &cluster);
        Store::restore(&path, &config).unwrap();
        let store = Store::open(config).await.unwrap();
        let serving = tonic::transport::Server::builder()
            .add_service(store.peer_service(Default::default()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        servers.spawn(serving);
        stores.push(store);
    }
    let mut written = None;
    for _ in 0..600 {
        for store in &stores {
            let op = vec![put_op("new", "v")];
            if written.is_none()
                && let Ok(response) = store.txn(txn(op)).await
            {
                written = Some(response.revision);
            }
        }
        if written.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(written, Some(303), "a leader among the three took a write");
    for store in &stores {
        let read = RangeRequest { serializable: true, ..one("new") };
        let mut arrived = false;
        for _ in 0..600 {
            arrived = store.range(read.clone()).await.unwrap().count == 1;
            if arrived {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(arrived);
        let old = RangeRequest { serializable: true, ..prefix("k") };
        assert_eq!(store.range(old).await.unwrap().count, 99);
        assert_eq!(store.members().len(), 3);
    }
    for store in stores {
        store.shutdown().await;
    }
    servers.shutdown().await;
}

/// What etcd itself saves is not ours, and is said to be etcd's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcds_own_snapshot_is_refused_by_name() {
    let etcd = etcd_support::Etcd::start().await;
    let path = etcd.dir.path().join("backup");
    let options = Options { endpoints: vec![etcd.url.clone()], ..Default::default() };
    let error = save(&options, &path, "now".into(), &[]).await.err().unwrap().to_string();
    assert!(error.contains(&etcd.url) && error.contains("snapshot of an etcd"), "{error}");
    assert!(!path.exists(), "nothing useless is kept");
}

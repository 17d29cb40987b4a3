//! One member, as the API server uses it: writes, reads, watches, leases, restarts.
#![allow(clippy::unwrap_used)]

mod support;

use skiff_store::kv::*;
use skiff_store::{OpenError, Store};
use support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_is_read_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    assert_eq!(store.revision(), 1);
    assert_eq!(put(&store, "a", "1").await, 2);
    assert_eq!(put(&store, "a", "2").await, 3);
    assert_eq!(put(&store, "b", "x").await, 4);
    let kv = get(&store, "a").await.unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 3, 2));
    let mut old = one("a");
    old.revision = 2;
    assert_eq!(store.range(old).await.unwrap().kvs[0].value, "1");
    store.shutdown().await;
    assert_eq!(store.range(one("a")).await, Err(KvError::Stopped));
    drop(store);

    let store = open(dir.path()).await;
    assert_eq!(store.revision(), 4);
    assert_eq!(value(&store, "a").await.as_deref(), Some("2"));
    assert_eq!(delete(&store, "a").await, 5);
    assert_eq!(value(&store, "a").await, None);
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let error = Store::open(config(dir.path())).await.err().expect("the folder is locked");
    assert!(matches!(error, OpenError::Locked { .. }));
    let lock = dir.path().join("store/lock");
    assert_eq!(
        error.to_string(),
        format!(
            "store: {} is locked: another process uses this data folder; stop it or choose another --data-dir",
            lock.display()
        )
    );
    store.shutdown().await;
    drop(store);
    open(dir.path()).await.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_gets_history_then_news_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    put(&store, "k/a", "1").await;
    put(&store, "other", "1").await;
    put(&store, "k/b", "2").await;
    let mut watch = store.watch(watch_from("k/", 2)).await.unwrap();
    put(&store, "k/a", "3").await;
    delete(&store, "k/b").await;
    let got = events(&mut watch, 4).await;
    assert_eq!(got, ["PUT k/a=1@2", "PUT k/b=2@4", "PUT k/a=3@5", "DELETE k/b@6"]);
    let mut request = watch_from("k/", 5);
    request.prev_kv = true;
    let mut watch = store.watch(request).await.unwrap();
    put(&store, "k/a", "4").await;
    let got = events(&mut watch, 3).await;
    assert_eq!(got, ["PUT k/a=3@5 was 1", "DELETE k/b@6 was 2", "PUT k/a=4@7 was 3"]);
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_runs_out_takes_its_keys_along() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (id, ttl) = store.lease_grant(0, 1).await.unwrap();
    assert_eq!(ttl, 2);
    let mut op = put_op("held", "v");
    if let Op::Put(put) = &mut op {
        put.lease = id;
    }
    store.txn(txn(vec![op])).await.unwrap();
    let info = store.lease_time_to_live(id, true).await.unwrap();
    assert_eq!(info.keys, ["held"]);
    let mut watch = store.watch(watch_from("held", 0)).await.unwrap();
    assert_eq!(events(&mut watch, 1).await, ["DELETE held@3"]);
    assert_eq!(store.leases().await.unwrap(), [] as [LeaseId; 0]);
    assert_eq!(store.lease_keep_alive(id).await, Err(KvError::LeaseNotFound(id)));
    assert_eq!(store.lease_time_to_live(id, false).await.unwrap().ttl_seconds, -1);
    store.shutdown().await;
}

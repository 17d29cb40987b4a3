//! One member, as the API server uses it: writes, reads, watches, leases, restarts.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

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
async fn one_that_is_just_ending_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).await;
    assert_eq!(put(&first, "a", "1").await, 2);
    let second = tokio::spawn(Store::open(config(dir.path())));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!second.is_finished(), "the folder is locked");
    first.shutdown().await;
    drop(first);
    let second = second.await.unwrap().expect("the folder is free");
    assert_eq!(value(&second, "a").await.as_deref(), Some("1"));
    second.shutdown().await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_before_the_compaction_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for n in 0..10 {
        put(&store, "k", &n.to_string()).await;
    }
    delete(&store, "k").await;
    let compacted = store.revision();
    store.compact(compacted, true).await.unwrap();
    let mut watch = store.watch(watch_from("k", 5)).await.unwrap();
    assert_eq!(
        events(&mut watch, 1).await,
        [format!("Some(Compacted {{ compacted: {compacted} }})")]
    );
    assert!(watch.messages.recv().await.is_none());
    // etcd #18089, #19179: the delete at the boundary itself is still reported.
    let mut watch = store.watch(watch_from("k", compacted)).await.unwrap();
    assert_eq!(events(&mut watch, 1).await, [format!("DELETE k@{compacted}")]);
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_take_its_events_is_cut_off_with_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.watch_queue_messages = 4;
    let store = Store::open(config).await.unwrap();
    let mut watch = store.watch(watch_from("k", 0)).await.unwrap();
    for n in 0..6 {
        put(&store, "k", &n.to_string()).await;
    }
    let got = events(&mut watch, 9).await;
    assert_eq!(got, ["PUT k=0@2", "PUT k=1@3", "PUT k=2@4", "PUT k=3@5", "Some(TooSlow)"]);
    // History waits for its reader: nothing is lost by beginning again.
    let mut watch = store.watch(watch_from("k", 2)).await.unwrap();
    let got = events(&mut watch, 6).await;
    assert_eq!(got.last().map(String::as_str), Some("PUT k=5@7"));
    store.shutdown().await;
}

/// etcd's `defrag` stops the world; here only reads of what is not in memory wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_defragmentation_gives_space_back_while_writes_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.recent_bytes = 20_000;
    let store = Store::open(config).await.unwrap();
    let value = "v".repeat(10_000);
    for n in 0..2000 {
        put(&store, &format!("k{}", n % 50), &value).await;
    }
    let revision = store.status().revision;
    store.compact(revision, true).await.unwrap();
    let before = store.status().db_bytes;
    assert!(before > 10_000 * 1000, "{before}");
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..100 {
                put(&store, &format!("new{n}"), "v").await;
            }
        })
    };
    store.defragment().await.unwrap();
    writer.await.unwrap();
    let after = store.status().db_bytes;
    assert!(after < before / 4, "{after} of {before}");
    assert_eq!(get(&store, "k7").await.unwrap().value, value);
    store.shutdown().await;
}

/// etcd #17529: watches that begin anywhere while writes go on miss nothing, twice nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_begun_under_load_see_every_revision_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    // History comes from the engine and from memory.
    config.recent_bytes = 20_000;
    let store = Store::open(config).await.unwrap();
    const WRITES: i64 = 2000;
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..WRITES {
                put(&store, &format!("k{}", n % 13), &n.to_string()).await;
            }
        })
    };
    let mut watchers = Vec::new();
    for start in 0..20 {
        let store = store.clone();
        watchers.push(tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(start * 20)).await;
            let mut watch = store.watch(watch_from("k", 2)).await.unwrap();
            let mut next = 2;
            while next <= WRITES + 1 {
                match watch.messages.recv().await {
                    Some(WatchMessage::Events { events, revision }) => {
                        for event in &events {
                            assert_eq!(event.kv.mod_revision, next);
                            next += 1;
                        }
                        assert_eq!(revision, next - 1);
                    }
                    // Began again from where it was.
                    Some(WatchMessage::TooSlow) => {
                        watch = store.watch(watch_from("k", next)).await.unwrap()
                    }
                    other => panic!("{other:?}"),
                }
            }
        }));
    }
    writer.await.unwrap();
    for watcher in watchers {
        watcher.await.unwrap();
    }
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_share_syncs_and_an_idle_store_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (before, _) = store.log_written();
    let clients: Vec<_> = (0..64)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..20 {
                    put(&store, &format!("{client}/{n}"), "v").await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let written = store.log_written();
    let syncs = written.0 - before;
    assert!(syncs < 64 * 20 / 4, "{syncs} syncs for 1280 puts");
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    assert_eq!(store.log_written(), written);
    store.shutdown().await;
}

/// The engine writes tens of kilobytes for any batch, so it is not given each heartbeat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_write_costs_the_log_alone_and_is_read_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let engine = || {
        let files = std::fs::read_dir(dir.path().join("store/engine")).unwrap();
        let files = files.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        let mut files: Vec<_> =
            files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
        files.sort();
        files
    };
    let before = engine();
    for n in 0..50 {
        put(&store, "lease", &format!("beat {n}")).await;
    }
    delete(&store, "lease").await;
    let last = put(&store, "lease", "again").await;
    assert!(engine() == before, "the engine was written");
    assert_eq!(value(&store, "lease").await.as_deref(), Some("again"));
    let mut old = one("lease");
    old.revision = 5;
    assert_eq!(store.range(old).await.unwrap().kvs[0].value, "beat 3");
    let mut watch = store.watch(watch_from("lease", last - 2)).await.unwrap();
    let history = [format!("PUT lease=beat 49@{}", last - 2), format!("DELETE lease@{}", last - 1)];
    assert_eq!(events(&mut watch, 3).await[..2], history);
    let hash = store.hash_kv(0).await.unwrap();
    store.shutdown().await;
    drop(store);
    let store = open(dir.path()).await;
    assert_eq!(store.hash_kv(0).await.unwrap(), hash);
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_too_large_or_wrong_are_refused_before_they_are_proposed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let big = "x".repeat(2 << 20);
    let refused = store.txn(txn(vec![put_op("k", &big)])).await;
    assert!(
        matches!(refused, Err(KvError::TooLarge { limit_bytes, .. }) if limit_bytes == 3 << 19)
    );
    assert_eq!(store.txn(txn(vec![put_op("", "v")])).await, Err(KvError::EmptyKey));
    let twice = txn(vec![put_op("k", "1"), put_op("k", "2")]);
    assert_eq!(store.txn(twice).await, Err(KvError::DuplicateKey("k".into())));
    let many = txn((0..129).map(|n| put_op(&n.to_string(), "")).collect());
    let expected = KvError::TooManyOps { given: 129, limit: 128 };
    assert_eq!(store.txn(many).await, Err(expected));
    // The largest that fits, several times, over segments of the log and back.
    let large = "y".repeat((3 << 19) - 200);
    for n in 0..8 {
        put(&store, &format!("large{n}"), &large).await;
    }
    store.shutdown().await;
    drop(store);
    let store = open(dir.path()).await;
    assert_eq!(store.range(prefix("large")).await.unwrap().kvs.len(), 8);
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_compacted_by_itself_and_space_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.snapshot_log_bytes = 1 << 20;
    let store = Store::open(config.clone()).await.unwrap();
    let value = "v".repeat(10_000);
    for n in 0..600 {
        put(&store, &format!("k{}", n % 5), &value).await;
        if n % 50 == 49 {
            store.compact(store.revision(), true).await.unwrap();
        }
    }
    let status = store.status();
    assert_eq!(status.db_bytes_in_use, 5 * (10_000 + 2));
    let log: u64 = std::fs::read_dir(dir.path().join("store/log")).unwrap().count() as u64;
    assert!(log <= 4, "{log} segments of the log are left");
    // The last one may be under way; the one before it goes when that is whole.
    let snapshots = || std::fs::read_dir(dir.path().join("store/snapshots")).unwrap().count();
    for _ in 0..500 {
        if snapshots() == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(snapshots(), 1);
    let hash = store.hash_kv(0).await.unwrap();
    store.shutdown().await;
    drop(store);
    let store = Store::open(config).await.unwrap();
    assert_eq!(store.hash_kv(0).await.unwrap(), hash);
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_restored_as_a_new_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    put(&store, "a", "1").await;
    put(&store, "a", "2").await;
    let (lease, _) = store.lease_grant(9, 500).await.unwrap();
    let path = dir.path().join("backup");
    let file = std::fs::File::create(&path).unwrap();
    store.snapshot_to(file).await.unwrap().sync_all().unwrap();
    let hash = store.hash_kv(0).await.unwrap();
    put(&store, "later", "1").await;
    let first_cluster = store.identity().cluster_id;
    store.shutdown().await;
    drop(store);

    let status = Store::snapshot_status(&path).unwrap();
    assert_eq!((status.revision, status.records), (3, 2));
    assert!(matches!(Store::restore(&path, &config(dir.path())), Err(OpenError::NotEmpty { .. })));
    let other = tempfile::tempdir().unwrap();
    let mut new = config(other.path());
    new.cluster_token = "restored".into();
    Store::restore(&path, &new).unwrap();
    for _ in 0..2 {
        let restored = Store::open(new.clone()).await.unwrap();
        assert_ne!(restored.identity().cluster_id, first_cluster);
        assert_eq!(value(&restored, "later").await, None);
        assert_eq!(restored.leases().await.unwrap(), [lease]);
        if restored.revision() == 3 {
            assert_eq!(restored.hash_kv(0).await.unwrap(), hash);
            assert_eq!(put(&restored, "b", "1").await, 4);
        }
        assert_eq!(get(&restored, "a").await.unwrap().version, 2);
        restored.shutdown().await;
    }
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = Store::snapshot_status(&path).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&path.display().to_string()) && text.contains("snapshot: "), "{text}");
}

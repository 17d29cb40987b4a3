//! A store in a folder of its own, and short words for requests.
#![allow(dead_code, clippy::unwrap_used)]

pub mod hooked;
pub mod members;

use std::path::Path;
use std::sync::Arc;

use skiff_store::kv::*;
use skiff_store::{Config, Store};

/// Small limits, so that a test reaches them.
pub fn config(dir: &Path) -> Config {
    let mut config = Config::new("test", dir.join("store"));
    config.log_segment_bytes = 4 << 20;
    config.engine_segment_bytes = 256 << 10;
    config.min_free_bytes = 6 << 20;
    config
}

pub async fn open(dir: &Path) -> Arc<Store> {
    Store::open(config(dir)).await.expect("open the store")
}

pub fn put_op(key: &str, value: &str) -> Op {
    Op::Put(PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        lease: 0,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    })
}

pub fn delete_op(range: KeyRange) -> Op {
    Op::Delete(DeleteRequest { range, prev_kv: false })
}

pub fn txn(success: Vec<Op>) -> TxnRequest {
    TxnRequest { success, ..Default::default() }
}

pub async fn put(store: &Store, key: &str, value: &str) -> Revision {
    store.txn(txn(vec![put_op(key, value)])).await.expect("put").revision
}

pub async fn delete(store: &Store, key: &str) -> Revision {
    let range = KeyRange::One(key.to_owned().into());
    store.txn(txn(vec![delete_op(range)])).await.expect("delete").revision
}

pub fn one(key: &str) -> RangeRequest {
    RangeRequest::new(KeyRange::One(key.to_owned().into()))
}

pub fn prefix(prefix: &str) -> RangeRequest {
    RangeRequest::new(KeyRange::Prefix(prefix.to_owned().into()))
}

pub async fn get(store: &Store, key: &str) -> Option<KeyValue> {
    store.range(one(key)).await.expect("range").kvs.pop()
}

pub async fn value(store: &Store, key: &str) -> Option<String> {
    let kv = get(store, key).await?;
    Some(String::from_utf8_lossy(&kv.value).into_owned())
}

/// What a watch delivers until `count` events have come, as `PUT key=value@revision`.
pub async fn events(watch: &mut Watch, count: usize) -> Vec<String> {
    let mut got = Vec::new();
    while got.len() < count {
        let next = tokio::time::timeout(std::time::Duration::from_secs(20), watch.messages.recv());
        match next.await.expect("the watch delivers in time") {
            Some(WatchMessage::Events { events, .. }) => got.extend(events.iter().map(show)),
            Some(WatchMessage::Progress { .. }) => {}
            other => {
                got.push(format!("{other:?}"));
                break;
            }
        }
    }
    got
}

pub fn show(event: &Event) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let key = text(&event.kv.key);
    let at = event.kv.mod_revision;
    let prev =
        event.prev.as_ref().map_or(String::new(), |prev| format!(" was {}", text(&prev.value)));
    match event.kind {
        EventType::Put => format!("PUT {key}={}@{at}{prev}", text(&event.kv.value)),
        EventType::Delete => format!("DELETE {key}@{at}{prev}"),
    }
}

pub fn watch_from(key_prefix: &str, start_revision: Revision) -> WatchRequest {
    WatchRequest {
        range: KeyRange::Prefix(key_prefix.to_owned().into()),
        start_revision,
        prev_kv: false,
    }
}

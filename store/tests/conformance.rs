//! One suite of what [`Kv`] means, on every implementation: the embedded store, a real etcd
//! (Debian's 3.4) over the network, and the store over its own etcd face.
#![allow(clippy::unwrap_used)]

mod etcd_support;
mod suite;

use std::sync::Arc;

use etcd_support::*;
use skiff_store::Store;
use skiff_store::kv::Kv;
use skiff_store::remote::{Options, Remote};

async fn remote(url: &str) -> Arc<dyn Kv> {
    let options =
        Options { endpoints: vec![url.to_owned()], watch_queue_messages: 64, ..Default::default() };
    Remote::connect(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.watch_queue_messages = 64;
    let store = Store::open(config).await.unwrap();
    suite::all(store.clone()).await;
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_etcd() {
    let etcd = Etcd::start().await;
    suite::all(remote(&etcd.url).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stores_own_etcd_face() {
    let served = Served::plain().await;
    suite::all(remote(&served.url()).await).await;
    served.stop().await;
}

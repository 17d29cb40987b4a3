//! Watches: resuming, expiry, selector transitions, and who is too slow.

use futures_util::StreamExt;
use serde_json::json;
use skiff_apiserver::Config;
use skiff_apiserver::cache::Limits;
use skiff_client::{ListOptions, Target, WatchEvent, WatchOptions};
use skiff_proto::resource::{CONFIG_MAPS, PODS};
use skiff_proto::{FieldSelector, Selector};

use crate::support::{Server, next, one, value};

fn from(version: &str) -> WatchOptions {
    WatchOptions { resource_version: version.into(), ..Default::default() }
}

#[tokio::test]
async fn begins_with_what_exists_and_goes_on() {
    let server = Server::start().await;
    server.config_map("a", "1").await;
    let options = WatchOptions { allow_bookmarks: true, ..Default::default() };
    let mut watch = server.watch(&CONFIG_MAPS, options).await.unwrap();
    assert_eq!(next(&mut watch).await, "ADDED a");
    assert_eq!(next(&mut watch).await, "BOOKMARK");
    server.config_map("b", "1").await;
    server.merge(&one(&CONFIG_MAPS, "a"), json!({"data": {"k": "2"}})).await.unwrap();
    server.delete(&one(&CONFIG_MAPS, "b")).await.unwrap();
    for expected in ["ADDED b", "MODIFIED a", "DELETED b"] {
        assert_eq!(next(&mut watch).await, expected);
    }
}

#[tokio::test]
async fn resumes_from_a_list_without_a_gap() {
    let server = Server::start().await;
    server.config_map("a", "1").await;
    let target = Target::all(&CONFIG_MAPS, "default");
    let list = server.api.list(&target, &ListOptions::default()).await.unwrap();
    server.config_map("b", "1").await;
    let deleted = server.delete(&one(&CONFIG_MAPS, "a")).await.unwrap();
    let mut watch = server.watch(&CONFIG_MAPS, from(&list.resource_version)).await.unwrap();
    assert_eq!(next(&mut watch).await, "ADDED b");
    // A removal carries its own version, in the object too.
    let Some(Ok(WatchEvent::Deleted(gone))) = watch.next().await else { panic!("a removal") };
    let skiff_client::Deleted::Gone(expected) = deleted else { panic!("gone at once") };
    assert_eq!(gone, expected);
    assert_eq!(value(&gone)["metadata"]["resourceVersion"], gone.resource_version());
    let mut resumed = server.watch(&CONFIG_MAPS, from(gone.resource_version())).await.unwrap();
    server.config_map("c", "1").await;
    assert_eq!(next(&mut resumed).await, "ADDED c");
}

#[tokio::test]
async fn history_that_is_gone_is_expired() {
    let limits = Limits { history_bytes: 4096, queue_events: 64 };
    let server = Server::with(Config { limits, ..Config::default() }).await;
    let target = Target::all(&CONFIG_MAPS, "default");
    let list = server.api.list(&target, &ListOptions::default()).await.unwrap();
    for n in 0..20 {
        server.config_map(&format!("c{n}"), "1").await;
    }
    server.api.list(&target, &ListOptions::default()).await.unwrap();
    let Err(expired) = server.watch(&CONFIG_MAPS, from(&list.resource_version)).await else {
        panic!("history is gone")
    };
    assert_eq!((expired.reason.as_str(), expired.code), ("Expired", 410));
    let words = format!("too old resource version: {} (", list.resource_version);
    assert!(expired.message.starts_with(&words), "{expired}");
}

#[tokio::test]
async fn stepping_in_and_out_of_a_selection() {
    let server = Server::start().await;
    let options =
        WatchOptions { labels: Selector::parse("app=web").unwrap(), ..Default::default() };
    let mut watch = server.watch(&PODS, options).await.unwrap();
    let fields = FieldSelector::parse("spec.nodeName=n1").unwrap();
    let mut on_node =
        server.watch(&PODS, WatchOptions { fields, ..Default::default() }).await.unwrap();
    server.pod("other").await;
    server.pod("web").await;
    let target = one(&PODS, "web");
    server.bind("web", "n1").await.unwrap();
    let out = server.merge(&target, json!({"metadata": {"labels": {"app": "x"}}})).await.unwrap();
    server.merge(&target, json!({"metadata": {"labels": {"app": "web"}}})).await.unwrap();
    assert_eq!(next(&mut watch).await, "ADDED web");
    assert_eq!(next(&mut watch).await, "MODIFIED web");
    let Some(Ok(WatchEvent::Deleted(gone))) = watch.next().await else { panic!("steps out") };
    // As it was while it was selected, at the version of the change.
    assert_eq!(gone.labels()["app"], "web");
    assert_eq!(gone.resource_version(), out.resource_version());
    assert_eq!(next(&mut watch).await, "ADDED web");
    assert_eq!(next(&mut on_node).await, "ADDED web");
    assert_eq!(next(&mut on_node).await, "MODIFIED web");
}

#[tokio::test]
async fn a_slow_watcher_is_cut_off_and_a_quick_one_is_not() {
    let limits = Limits { history_bytes: 1 << 20, queue_events: 8 };
    let server = Server::with(Config { limits, ..Config::default() }).await;
    let mut slow = server.watch(&CONFIG_MAPS, from("")).await.unwrap();
    let mut quick = server.watch(&CONFIG_MAPS, from("")).await.unwrap();
    for n in 0..20 {
        server.config_map(&format!("c{n}"), "1").await;
        assert_eq!(next(&mut quick).await, format!("ADDED c{n}"));
    }
    let mut delivered = 0;
    let end = loop {
        let event = next(&mut slow).await;
        if !event.starts_with("ADDED") {
            break event;
        }
        delivered += 1;
    };
    assert_eq!((delivered, end.as_str()), (8, "ERROR Expired 410"));
    assert!(slow.next().await.is_none());
}

#[tokio::test]
async fn a_restart_keeps_everything_and_expires_old_watches() {
    let server = Server::start().await;
    let created = server.config_map("a", "1").await;
    let server = server.restart(Config::default()).await;
    let read = server.api.get(&one(&CONFIG_MAPS, "a")).await.unwrap();
    assert_eq!(read, created);
    let Err(expired) = server.watch(&CONFIG_MAPS, from("1")).await else { panic!("too old") };
    assert_eq!(expired.reason, "Expired");
}

#[tokio::test]
async fn watches_end_quietly_when_the_server_stops() {
    let server = Server::start().await;
    let mut watch = server.watch(&CONFIG_MAPS, from("")).await.unwrap();
    server.core.config().shutdown.cancel();
    assert!(watch.next().await.is_none());
}

//! Lists: freshness, selectors, paging.

use serde_json::json;
use skiff_client::{ListOptions, Target};
use skiff_proto::resource::{CONFIG_MAPS, PODS};
use skiff_proto::{FieldSelector, Resource, Selector};

use crate::support::{Server, one, pod};

fn limit(limit: i64, continue_token: &str) -> ListOptions {
    ListOptions { limit, continue_token: continue_token.into(), ..Default::default() }
}

#[tokio::test]
async fn a_list_holds_every_acknowledged_write() {
    let server = Server::start().await;
    for n in 0..50 {
        server.config_map(&format!("c{n:02}"), "1").await;
        let names = server.names(&CONFIG_MAPS, "default", &ListOptions::default()).await;
        assert_eq!(names.len(), n + 1);
    }
}

#[tokio::test]
async fn selectors() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.pod(name).await;
    }
    server.bind("b", "n1").await.unwrap();
    let labels =
        |text: &str| ListOptions { labels: Selector::parse(text).unwrap(), ..Default::default() };
    let fields = |text: &str| ListOptions {
        fields: FieldSelector::parse(text).unwrap(),
        ..Default::default()
    };
    assert_eq!(server.names(&PODS, "default", &labels("app in (a,c)")).await, ["a", "c"]);
    assert_eq!(server.names(&PODS, "", &fields("spec.nodeName=n1")).await, ["b"]);
    assert_eq!(server.names(&PODS, "default", &fields("spec.nodeName=")).await, ["a", "c"]);
    assert_eq!(server.names(&PODS, "default", &fields("metadata.name=c")).await, ["c"]);
    assert_eq!(server.names(&PODS, "other", &ListOptions::default()).await, [""; 0]);
    let unknown =
        server.api.list(&Target::all(&PODS, ""), &fields("spec.foo=x")).await.unwrap_err();
    assert_eq!(unknown.code, 400);
    assert!(unknown.message.ends_with("field label not supported: spec.foo"), "{unknown}");
}

#[tokio::test]
async fn pages_show_one_moment_while_others_write() {
    let server = Server::start().await;
    for n in 0..10 {
        server.config_map(&format!("c{n}"), "1").await;
    }
    let target = Target::all(&CONFIG_MAPS, "default");
    let first = server.api.list(&target, &limit(4, "")).await.unwrap();
    assert_eq!(first.items.len(), 4);
    assert_eq!(first.remaining_item_count, Some(6));
    // The second page comes from the cache, the third, after writes, from the store's history.
    let second = server.api.list(&target, &limit(4, &first.continue_token)).await.unwrap();
    server.delete(&one(&CONFIG_MAPS, "c8")).await.unwrap();
    server.config_map("c85", "1").await;
    server.merge(&one(&CONFIG_MAPS, "c9"), json!({"data": {"k": "2"}})).await.unwrap();
    let third = server.api.list(&target, &limit(4, &second.continue_token)).await.unwrap();
    let names: Vec<&str> =
        [&first, &second, &third].iter().flat_map(|l| &l.items).map(|o| o.name()).collect();
    assert_eq!(names, ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9"]);
    assert_eq!(third.resource_version, first.resource_version);
    assert_eq!(third.continue_token, "");
    assert!(String::from_utf8_lossy(&third.items[1].json).contains(r#""k":"1""#));
}

#[tokio::test]
async fn a_token_of_compacted_history_says_how_to_go_on() {
    let server = Server::start().await;
    for n in 0..5 {
        server.config_map(&format!("c{n}"), "1").await;
    }
    let target = Target::all(&CONFIG_MAPS, "default");
    let first = server.api.list(&target, &limit(2, "")).await.unwrap();
    let newest = server.config_map("c5", "1").await;
    server.kv.compact(newest.resource_version().parse().unwrap(), false).await.unwrap();
    let expired = server.api.list(&target, &limit(2, &first.continue_token)).await.unwrap_err();
    assert_eq!((expired.reason.as_str(), expired.code), ("Expired", 410));
    assert!(expired.message.starts_with("The provided continue parameter is too old"), "{expired}");
    let token = expired.metadata["continue"].as_str().unwrap();
    let rest = server.api.list(&target, &limit(0, token)).await.unwrap();
    assert_eq!(rest.items.len(), 4);
    let broken = server.api.list(&target, &limit(2, "???")).await.unwrap_err();
    assert_eq!(broken.message, "continue key is not valid");
}

#[tokio::test]
async fn versions_that_do_not_exist_yet() {
    let server = Server::start().await;
    let options =
        |version: &str| ListOptions { resource_version: version.into(), ..Default::default() };
    let target = Target::all(&CONFIG_MAPS, "default");
    let future = server.api.list(&target, &options("999999999")).await.unwrap_err();
    assert_eq!((future.reason.as_str(), future.code), ("Timeout", 504));
    assert!(future.message.contains("Too large resource version: 999999999"), "{future}");
    let garbage = server.api.list(&target, &options("x")).await.unwrap_err();
    assert_eq!(garbage.code, 400);
    server.api.list(&target, &options("0")).await.unwrap();
}

#[tokio::test]
async fn unknown_resources_and_names() {
    let server = Server::start().await;
    let unknown = Resource::new("example.com", "v1", "widgets");
    let missing = server.api.list(&Target::all(&unknown, ""), &ListOptions::default()).await;
    assert_eq!(missing.unwrap_err().message, "the server could not find the requested resource");
    let missing = server.api.get(&one(&PODS, "none")).await.unwrap_err();
    assert_eq!(missing.message, r#"pods "none" not found"#);
    let mut unnamed = pod("x");
    unnamed["metadata"] = json!({});
    let refused = server.create(&PODS, "default", unnamed).await.unwrap_err();
    assert_eq!(refused.code, 422);
    assert!(
        refused.message.contains("metadata.name: Required value: name or generateName is required"),
        "{refused}"
    );
}

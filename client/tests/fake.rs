//! The fake API server keeps its word, and what is built on the `Api` does on it what it
//! should.

use std::time::Duration;

use serde_json::{Value, json};
use skiff_client::event::Recorder;
use skiff_client::testing::{FakeApi, suite};
use skiff_client::{Api, ListOptions, Target, WatchOptions};
use skiff_proto::{ObjectReference, resource};

#[tokio::test]
async fn it_passes_the_suite_of_the_real_server() {
    suite::run(FakeApi::new()).await;
}

#[tokio::test]
async fn watchers_that_hear_late_miss_nothing() {
    suite::run(FakeApi::late(Duration::from_millis(2))).await;
}

#[tokio::test]
async fn forgotten_history_is_told() {
    let api = FakeApi::new();
    let all = Target::all(&resource::NAMESPACES, "");
    let listed = api.list(&all, &ListOptions::default()).await.expect("lists");
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}});
    api.put(&resource::NAMESPACES, namespace);
    api.compact();
    let options =
        WatchOptions { resource_version: listed.resource_version, ..WatchOptions::default() };
    let refused = api.watch(&all, &options).await.err().expect("too old");
    assert!(refused.is_expired(), "{refused}");
}

fn pod(name: &str) -> ObjectReference {
    ObjectReference {
        kind: "Pod".into(),
        namespace: "default".into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        ..ObjectReference::default()
    }
}

/// The events about a pod: message and count, in the order of their creation.
fn told(api: &FakeApi, about: &str) -> Vec<(String, i64)> {
    let events = api.all(&resource::EVENTS);
    let mut of: Vec<&Value> =
        events.iter().filter(|e| e["involvedObject"]["name"] == about).collect();
    of.sort_by_key(|event| event["metadata"]["name"].as_str().map(str::to_owned));
    let text = |event: &&Value| event["message"].as_str().unwrap_or_default().to_owned();
    of.iter().map(|event| (text(event), event["count"].as_i64().unwrap_or(0))).collect()
}

/// An event about another object, written behind all that were recorded before.
async fn settle(api: &FakeApi, recorder: &Recorder) {
    recorder.normal(&pod("last"), "Done", "m");
    api.until("all are written", |api| !told(api, "last").is_empty()).await;
}

#[tokio::test]
async fn an_event_that_repeats_is_counted_up_to_its_objects_burst() {
    let api = FakeApi::new();
    let recorder = Recorder::new(api.clone(), "kubelet", "n1");
    for _ in 0..40 {
        recorder.warning(&pod("web"), "BackOff", "Back-off restarting failed container");
    }
    settle(&api, &recorder).await;
    assert_eq!(told(&api, "web"), [("Back-off restarting failed container".to_owned(), 25)]);
}

#[tokio::test]
async fn ten_similar_events_become_one() {
    let api = FakeApi::new();
    let recorder = Recorder::new(api.clone(), "kubelet", "n1");
    for n in 1..=12 {
        recorder.warning(&pod("web"), "Failed", format!("message {n}"));
    }
    settle(&api, &recorder).await;
    let told = told(&api, "web");
    assert_eq!(told.len(), 10, "{told:?}");
    assert!(told.iter().take(9).all(|(_, count)| *count == 1), "{told:?}");
    assert_eq!(told[9], ("(combined from similar events): message 12".to_owned(), 3));
}

#[tokio::test]
async fn an_event_that_is_gone_is_made_anew() {
    let api = FakeApi::new();
    let recorder = Recorder::new(api.clone(), "kubelet", "n1");
    recorder.normal(&pod("web"), "Killing", "m");
    settle(&api, &recorder).await;
    let event = api.all(&resource::EVENTS).into_iter().find(|e| e["reason"] == "Killing");
    let name = event.expect("there")["metadata"]["name"].as_str().expect("named").to_owned();
    api.remove(&resource::EVENTS, "default", &name);
    recorder.normal(&pod("web"), "Killing", "m");
    api.until("told again", |api| told(api, "web") == [("m".to_owned(), 2)]).await;
}

//! Deleting: grace, finalizers, preconditions, collections.

use serde_json::json;
use skiff_client::{DeleteOptions, Deleted, ListOptions, Target};
use skiff_proto::Selector;
use skiff_proto::resource::{CONFIG_MAPS, PODS};

use crate::support::{Server, config_map, one, value};

#[tokio::test]
async fn a_running_pod_waits_for_its_kubelet() {
    let server = Server::start().await;
    server.pod("web").await;
    server.bind("web", "n1").await.unwrap();
    let target = one(&PODS, "web");
    let Deleted::Terminating(marked) = server.delete(&target).await.unwrap() else {
        panic!("must wait")
    };
    assert_eq!(value(&marked)["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(marked.is_terminating());
    // The kubelet, when the containers are gone; of another pod of that name it must not be.
    let zero = DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
    let wrong = DeleteOptions { uid: "another".into(), ..zero.clone() };
    let refused = server.api.delete(&target, &wrong).await.unwrap_err();
    assert_eq!(refused.reason, "Conflict");
    assert_eq!(
        refused.message,
        format!(
            r#"Operation cannot be fulfilled on pods "web": Precondition failed: UID in precondition: another, UID in object meta: {}"#,
            marked.uid()
        )
    );
    let right = DeleteOptions { uid: marked.uid().into(), ..zero };
    assert!(matches!(server.api.delete(&target, &right).await.unwrap(), Deleted::Gone(_)));
    assert!(server.delete(&target).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn finalizers_are_waited_for() {
    let server = Server::start().await;
    let mut held = config_map("held", "1");
    held["metadata"]["finalizers"] = json!(["example.com/a", "example.com/b"]);
    server.create(&CONFIG_MAPS, "default", held).await.unwrap();
    let target = one(&CONFIG_MAPS, "held");
    assert!(matches!(server.delete(&target).await.unwrap(), Deleted::Terminating(_)));
    let added = json!({"metadata": {"finalizers": ["example.com/a", "example.com/c"]}});
    let refused = server.merge(&target, added).await.unwrap_err();
    assert_eq!(refused.code, 422);
    assert!(refused.message.contains("no new finalizers can be added"), "{refused}");
    server.merge(&target, json!({"metadata": {"finalizers": ["example.com/a"]}})).await.unwrap();
    server.merge(&target, json!({"metadata": {"finalizers": null}})).await.unwrap();
    assert!(server.api.get(&target).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_stale_version_deletes_nothing() {
    let server = Server::start().await;
    let created = server.config_map("a", "1").await;
    server.merge(&one(&CONFIG_MAPS, "a"), json!({"data": {"k": "2"}})).await.unwrap();
    let options =
        DeleteOptions { resource_version: created.resource_version().into(), ..Default::default() };
    let refused = server.api.delete(&one(&CONFIG_MAPS, "a"), &options).await.unwrap_err();
    assert!(
        refused.message.contains("Precondition failed: ResourceVersion in precondition"),
        "{refused}"
    );
    let dry = DeleteOptions { dry_run: true, ..Default::default() };
    server.api.delete(&one(&CONFIG_MAPS, "a"), &dry).await.unwrap();
    server.api.get(&one(&CONFIG_MAPS, "a")).await.unwrap();
}

#[tokio::test]
async fn a_selection_of_a_collection() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.pod(name).await;
    }
    let list = ListOptions { labels: Selector::parse("app!=b").unwrap(), ..Default::default() };
    let target = Target::all(&PODS, "default");
    let deleted = server.api.delete_collection(&target, &list, &DeleteOptions::default()).await;
    assert_eq!(deleted.unwrap().len(), 2);
    assert_eq!(server.names(&PODS, "default", &ListOptions::default()).await, ["b"]);
}

//! Creating, updating, patching: upstream's meaning and words.

use bytes::Bytes;
use serde_json::json;
use skiff_client::{Patch, Target, WriteOptions};
use skiff_proto::resource::{CONFIG_MAPS, DEPLOYMENTS, PODS};

use crate::support::{Server, config_map, one, pod, value};

#[tokio::test]
async fn a_created_object_is_complete_and_readable() {
    let server = Server::start().await;
    let created = server.config_map("a", "1").await;
    let read = server.api.get(&one(&CONFIG_MAPS, "a")).await.unwrap();
    assert_eq!(read, created);
    let seen = value(&created);
    assert_eq!(seen["metadata"]["resourceVersion"], created.resource_version());
    assert_eq!(seen["metadata"]["namespace"], "default");
    assert_eq!(seen["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert!(created.index.metadata.creation_timestamp.is_some());
    let again = server.create(&CONFIG_MAPS, "default", config_map("a", "1")).await.unwrap_err();
    assert_eq!((again.code, again.message.as_str()), (409, r#"configmaps "a" already exists"#));
    assert_eq!(again.reason, "AlreadyExists");
}

#[tokio::test]
async fn generated_names_and_refused_metadata() {
    let server = Server::start().await;
    let mut generated = config_map("", "1");
    generated["metadata"] = json!({"generateName": "web-"});
    let created = server.create(&CONFIG_MAPS, "default", generated).await.unwrap();
    assert!(created.name().starts_with("web-") && created.name().len() == 9, "{}", created.name());

    let mut versioned = config_map("v", "1");
    versioned["metadata"]["resourceVersion"] = json!("5");
    let refused = server.create(&CONFIG_MAPS, "default", versioned).await.unwrap_err();
    assert_eq!(refused.message, "resourceVersion should not be set on objects to be created");

    let mut elsewhere = config_map("e", "1");
    elsewhere["metadata"]["namespace"] = json!("other");
    let refused = server.create(&CONFIG_MAPS, "default", elsewhere).await.unwrap_err();
    assert_eq!(
        refused.message,
        "the namespace of the provided object does not match the namespace sent on the request"
    );
}

#[tokio::test]
async fn updates_are_optimistic() {
    let server = Server::start().await;
    let created = server.config_map("a", "1").await;
    let mut stale = value(&created);
    stale["data"]["k"] = json!("2");
    let updated = server.update(&one(&CONFIG_MAPS, "a"), stale.clone()).await.unwrap();
    assert_ne!(updated.resource_version(), created.resource_version());
    let conflict = server.update(&one(&CONFIG_MAPS, "a"), stale).await.unwrap_err();
    assert_eq!((conflict.reason.as_str(), conflict.code), ("Conflict", 409));
    assert_eq!(
        conflict.message,
        r#"Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#
    );
    // Without a version the last writer wins.
    let blind = server.update(&one(&CONFIG_MAPS, "a"), config_map("a", "3")).await.unwrap();
    assert_eq!(value(&blind)["data"]["k"], "3");
    assert_eq!(blind.uid(), created.uid());
    // Nothing changes: nothing is written.
    let same = server.update(&one(&CONFIG_MAPS, "a"), config_map("a", "3")).await.unwrap();
    assert_eq!(same.resource_version(), blind.resource_version());

    let missing = server.update(&one(&CONFIG_MAPS, "none"), config_map("none", "1")).await;
    assert_eq!(missing.unwrap_err().message, r#"configmaps "none" not found"#);
    let misnamed = server.update(&one(&CONFIG_MAPS, "a"), config_map("b", "1")).await.unwrap_err();
    assert_eq!(
        misnamed.message,
        "the name of the object (b) does not match the name on the URL (a)"
    );
    let mut foreign = config_map("a", "1");
    foreign["metadata"]["uid"] = json!("11111111-2222-3333-4444-555555555555");
    let foreign = server.update(&one(&CONFIG_MAPS, "a"), foreign).await.unwrap_err();
    assert!(
        foreign.message.contains("Precondition failed: UID in precondition: 11111111-"),
        "{foreign}"
    );
}

#[tokio::test]
async fn concurrent_patches_all_land() {
    let server = Server::start().await;
    server.config_map("a", "1").await;
    let target = one(&CONFIG_MAPS, "a");
    let patches = (0..20).map(|n| server.merge(&target, json!({"data": {(format!("k{n}")): "x"}})));
    for patched in futures_util::future::join_all(patches).await {
        patched.unwrap();
    }
    let read = server.api.get(&target).await.unwrap();
    assert_eq!(value(&read)["data"].as_object().unwrap().len(), 21);
}

#[tokio::test]
async fn patches_of_all_types() {
    let server = Server::start().await;
    let created = server.config_map("a", "1").await;
    let target = one(&CONFIG_MAPS, "a");
    let patch =
        async |patch: Patch| server.api.patch(&target, patch, &WriteOptions::default()).await;
    let json =
        Patch::Json(Bytes::from_static(br#"[{"op": "add", "path": "/data/j", "value": "1"}]"#));
    assert_eq!(value(&patch(json).await.unwrap())["data"], json!({"j": "1", "k": "1"}));
    let failing =
        Patch::Json(Bytes::from_static(br#"[{"op": "test", "path": "/data/j", "value": "9"}]"#));
    let failed = patch(failing).await.unwrap_err();
    assert_eq!(failed.code, 422);
    assert_eq!(failed.message, "the server rejected our request due to an error in our request");
    let merged = server.merge(&target, json!({"data": {"k": null}})).await.unwrap();
    assert_eq!(value(&merged)["data"], json!({"j": "1"}));
    let nothing = server.merge(&target, json!({"data": {"j": "1"}})).await.unwrap();
    assert_eq!(nothing.resource_version(), merged.resource_version());
    let stale =
        json!({"metadata": {"resourceVersion": created.resource_version()}, "data": {"z": "1"}});
    assert_eq!(server.merge(&target, stale).await.unwrap_err().reason, "Conflict");
    let broken = patch(Patch::Merge(Bytes::from_static(b"{"))).await.unwrap_err();
    assert_eq!(broken.code, 400);
}

#[tokio::test]
async fn status_and_spec_have_their_own_faces() {
    let server = Server::start().await;
    server.pod("web").await;
    let status = one(&PODS, "web").subresource("status");
    let changed = server
        .merge(&status, json!({"status": {"phase": "Running"}, "spec": {"nodeName": "n9"}}))
        .await
        .unwrap();
    assert_eq!(value(&changed)["status"]["phase"], "Running");
    assert_eq!(value(&changed)["spec"].get("nodeName"), None);
    let changed =
        server.merge(&one(&PODS, "web"), json!({"status": {"phase": "Failed"}})).await.unwrap();
    assert_eq!(value(&changed)["status"]["phase"], "Running");
}

#[tokio::test]
async fn generation_counts_changes_of_the_spec() {
    let server = Server::start().await;
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "busybox"}]}}}});
    let created = server.create(&DEPLOYMENTS, "default", deployment).await.unwrap();
    assert_eq!(created.index.metadata.generation, 1);
    let target = one(&DEPLOYMENTS, "web");
    let labelled =
        server.merge(&target, json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    assert_eq!(labelled.index.metadata.generation, 1);

    let scale = target.clone().subresource("scale");
    let scaled = server.merge(&scale, json!({"spec": {"replicas": 5}})).await.unwrap();
    assert_eq!(scaled.index.kind, "Scale");
    assert_eq!(value(&scaled)["spec"]["replicas"], 5);
    let read = server.api.get(&target).await.unwrap();
    assert_eq!(
        (read.index.metadata.generation, value(&read)["spec"]["replicas"].clone()),
        (2, json!(5))
    );
    let scale = server.api.get(&scale).await.unwrap();
    assert_eq!(value(&scale)["status"]["selector"], "app=web");
}

#[tokio::test]
async fn a_dry_run_leaves_no_trace() {
    let server = Server::start().await;
    let options = WriteOptions { dry_run: true, ..Default::default() };
    let json = Bytes::from(config_map("dry", "1").to_string());
    let target = Target::all(&CONFIG_MAPS, "default");
    let object = server.api.create(&target, json, &options).await.unwrap();
    assert_eq!((object.name(), object.resource_version()), ("dry", ""));
    assert!(server.api.get(&one(&CONFIG_MAPS, "dry")).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let server = Server::start().await;
    server.pod("web").await;
    let bound = server.bind("web", "n1").await.unwrap();
    assert_eq!(value(&bound)["spec"]["nodeName"], "n1");
    assert_eq!(value(&bound)["status"]["conditions"][0]["type"], "PodScheduled");
    let again = server.bind("web", "n2").await.unwrap_err();
    assert_eq!(
        again.message,
        r#"Operation cannot be fulfilled on pods/binding "web": pod web is already assigned to node "n1""#
    );
}

#[tokio::test]
async fn a_pod_needs_its_service_account() {
    let server = Server::start().await;
    let mut web = pod("web");
    web["spec"]["serviceAccountName"] = json!("robot");
    let refused = server.create(&PODS, "default", web).await.unwrap_err();
    assert_eq!(
        refused.message,
        r#"pods "web" is forbidden: error looking up service account default/robot: serviceaccount "robot" not found"#
    );
}

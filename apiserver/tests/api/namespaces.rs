//! Namespaces: what is there from the start, and what happens when one goes away.

use serde_json::json;
use skiff_apiserver::Config;
use skiff_client::{Deleted, ListOptions, Target};
use skiff_proto::resource::{CONFIG_MAPS, ENDPOINT_SLICES, NAMESPACES, SERVICES};

use crate::support::{Server, config_map, one, value};

#[tokio::test]
async fn the_default_ones_are_there_and_stay() {
    let server = Server::start().await;
    let names = server.names(&NAMESPACES, "", &ListOptions::default()).await;
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    let refused = server.delete(&Target::one(&NAMESPACES, "", "default")).await.unwrap_err();
    assert_eq!(
        refused.message,
        r#"namespaces "default" is forbidden: this namespace may not be deleted"#
    );
}

#[tokio::test]
async fn nothing_is_made_in_a_namespace_that_is_not_there() {
    let server = Server::start().await;
    let refused = server.create(&CONFIG_MAPS, "nowhere", config_map("a", "1")).await.unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (404, r#"namespaces "nowhere" not found"#)
    );
}

#[tokio::test]
async fn a_namespace_ends_in_two_steps() {
    let server = Server::start().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}});
    let created = server.create(&NAMESPACES, "", namespace).await.unwrap();
    assert_eq!(value(&created)["spec"]["finalizers"], json!(["kubernetes"]));
    server.create(&CONFIG_MAPS, "x", config_map("a", "1")).await.unwrap();
    let target = Target::one(&NAMESPACES, "", "x");
    let Deleted::Terminating(marked) = server.delete(&target).await.unwrap() else {
        panic!("must wait for its content")
    };
    assert_eq!(value(&marked)["status"]["phase"], "Terminating");
    let refused = server.create(&CONFIG_MAPS, "x", config_map("b", "1")).await.unwrap_err();
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message,
        r#"configmaps "b" is forbidden: unable to create new content in namespace x because it is being terminated"#
    );
    assert_eq!(refused.details.unwrap().causes[0].reason, "NamespaceTerminating");
    // The namespace controller, when the namespace is empty.
    let mut finalized = value(&marked);
    finalized["spec"]["finalizers"] = json!([]);
    server.update(&target.clone().subresource("finalize"), finalized).await.unwrap();
    assert!(server.api.get(&target).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn the_kubernetes_service_leads_here() {
    let advertise = Some(("192.0.2.7".parse().unwrap(), 6443));
    let config = Config { advertise, ..Config::default() };
    let server = Server::with(config.clone()).await;
    let service = server.api.get(&one(&SERVICES, "kubernetes")).await.unwrap();
    assert_eq!(value(&service)["spec"]["clusterIP"], "10.43.0.1");
    let slice = server.api.get(&one(&ENDPOINT_SLICES, "kubernetes")).await.unwrap();
    assert_eq!(value(&slice)["endpoints"][0]["addresses"], json!(["192.0.2.7"]));
    // A restart changes nothing.
    let config = Config { shutdown: Default::default(), ..config };
    let server = server.restart(config).await;
    let again = server.api.get(&one(&ENDPOINT_SLICES, "kubernetes")).await.unwrap();
    assert_eq!(again.resource_version(), slice.resource_version());
}

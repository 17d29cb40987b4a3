//! Slices by scenario: exact actions.

use serde_json::{Value, json};
use skiff_client::cache::Entry;
use skiff_proto::ObjectKey;
use skiff_proto::model::{EndpointSlice, Node, Service};

use super::*;
use crate::testing::{entry, pod};

fn service(patch: Value) -> Entry<Service> {
    let mut json = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop", "uid": "svc", "labels": {"app": "web"}},
        "spec": {"clusterIP": "10.43.0.9", "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    });
    if let (Some(spec), Some(patch)) = (json["spec"].as_object_mut(), patch.as_object()) {
        spec.extend(patch.clone());
    }
    entry(json)
}

fn member(number: usize, ready: bool) -> Pod {
    let (a, b) = (number / 250, number % 250);
    pod(json!({
        "metadata": {"name": format!("web-{number:03}"), "namespace": "shop", "uid": format!("u{number}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", "podIP": format!("10.42.{a}.{b}"),
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}
    }))
}

fn node(name: &str) -> Option<Entry<Node>> {
    Some(entry(
        json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "z1"}}}),
    ))
}

/// The slices as they are after the actions.
fn apply(
    service: &Entry<Service>,
    mut slices: Vec<Entry<EndpointSlice>>,
    actions: &[Action],
) -> Vec<Entry<EndpointSlice>> {
    for action in actions {
        match action {
            Action::Create(content) => {
                let mut json = content.new_slice(service);
                json["metadata"]["name"] = format!("web-{}", slices.len()).into();
                slices.push(entry(json));
            }
            Action::Update(key, content) => {
                let slice = slices.iter_mut().find(|s| s.object.key() == *key).expect("there");
                let mut json: Value = slice.object.parse().expect("json");
                content.write(&mut json);
                *slice = entry(json);
            }
            Action::Delete(key) => slices.retain(|s| s.object.key() != *key),
        }
    }
    slices
}

fn run(service: &Entry<Service>, pods: Vec<Pod>, slices: &[Entry<EndpointSlice>]) -> Vec<Action> {
    plan(Observed { service, pods, slices: slices.to_vec(), node: &node })
}

fn words(actions: &[Action]) -> Vec<String> {
    let size = |content: &Content| content.endpoints.len();
    actions
        .iter()
        .map(|action| match action {
            Action::Create(content) => format!("create {}", size(content)),
            Action::Update(key, content) => format!("update {} {}", key.name, size(content)),
            Action::Delete(key) => format!("delete {}", key.name),
        })
        .collect()
}

#[test]
fn a_slice_in_full() {
    let service = service(json!({}));
    let actions = run(&service, vec![member(7, true)], &[]);
    let [Action::Create(content)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(
        content.new_slice(&service),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "generateName": "web-", "namespace": "shop",
                "labels": {"app": "web", "kubernetes.io/service-name": "web",
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "svc",
                    "controller": true, "blockOwnerDeletion": true}]
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
            "endpoints": [{
                "addresses": ["10.42.0.7"],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-007", "uid": "u7"},
                "nodeName": "n1", "zone": "z1"
            }]
        })
    );
}

#[test]
fn nothing_is_written_when_nothing_changed() {
    let service = service(json!({}));
    let pods: Vec<Pod> = (0..3).map(|n| member(n, true)).collect();
    let slices = apply(&service, vec![], &run(&service, pods.clone(), &[]));
    assert_eq!(run(&service, pods, &slices), []);
}

#[test]
fn slices_hold_a_hundred_and_change_alone() {
    let service = service(json!({}));
    let mut pods: Vec<Pod> = (0..250).map(|n| member(n, true)).collect();
    let actions = run(&service, pods.clone(), &[]);
    assert_eq!(words(&actions), ["create 100", "create 100", "create 50"]);
    let slices = apply(&service, vec![], &actions);
    pods[120] = member(120, false);
    let actions = run(&service, pods.clone(), &slices);
    assert_eq!(words(&actions), ["update web-1 100"]);
    let slices = apply(&service, slices, &actions);
    // A new pod goes where a write is due anyway.
    pods.remove(5);
    pods.push(member(300, true));
    let actions = run(&service, pods.clone(), &slices);
    assert_eq!(words(&actions), ["update web-0 100"]);
    let slices = apply(&service, slices, &actions);
    pods.push(member(301, true));
    assert_eq!(words(&run(&service, pods.clone(), &slices)), ["update web-2 51"]);
    pods.truncate(100);
    let kept: Vec<Pod> = pods.into_iter().take(99).collect();
    let left = run(&service, kept, &slices);
    assert_eq!(words(&left), ["update web-0 99", "delete web-1", "delete web-2"]);
}

#[test]
fn conditions_follow_the_pod() {
    let mut going = member(1, true);
    let mut object = (*going.object).clone();
    object.index.metadata.deletion_timestamp = skiff_proto::Timestamp::from_unix(1);
    going.object = object.into();
    for (pod, publish, expected) in [
        (member(1, true), false, (true, true, false)),
        (member(1, false), false, (false, false, false)),
        (member(1, false), true, (true, false, false)),
        (going.clone(), false, (false, true, true)),
        (going, true, (true, true, true)),
    ] {
        let service = service(json!({"publishNotReadyAddresses": publish}));
        let actions = run(&service, vec![pod], &[]);
        let [Action::Create(content)] = &actions[..] else { panic!("{actions:?}") };
        let c = &content.endpoints[0].conditions;
        assert_eq!(
            (c.ready, c.serving, c.terminating),
            (Some(expected.0), Some(expected.1), Some(expected.2))
        );
    }
}

#[test]
fn a_service_without_pods_has_one_empty_slice() {
    let service = service(json!({}));
    let actions = run(&service, vec![], &[]);
    assert_eq!(words(&actions), ["create 0"]);
    let slices = apply(&service, vec![], &actions);
    assert_eq!(run(&service, vec![], &slices), []);
    let actions = run(&service, vec![member(1, true)], &slices);
    assert_eq!(words(&actions), ["create 1", "delete web-0"]);
    let slices = apply(&service, slices, &actions);
    let done = pod(
        json!({"metadata": {"name": "done"}, "status": {"phase": "Succeeded", "podIP": "10.42.0.1"}}),
    );
    let waiting = pod(json!({"metadata": {"name": "waiting"}, "status": {"phase": "Pending"}}));
    assert_eq!(words(&run(&service, vec![done, waiting], &slices)), ["create 0", "delete web-1"]);
}

#[test]
fn pods_with_different_ports_are_kept_apart() {
    let service = service(json!({"ports": [{"name": "http", "port": 80, "targetPort": "web"}]}));
    let on = |name: &str, port: u16| {
        pod(json!({
            "metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"containers": [{"ports": [{"name": "web", "containerPort": port}]}]},
            "status": {"phase": "Running", "podIP": "10.42.0.1"}
        }))
    };
    let actions = run(&service, vec![on("a", 8080), on("b", 9090), on("c", 8080)], &[]);
    assert_eq!(words(&actions), ["create 2", "create 1"]);
}

#[test]
fn headless_services_are_labelled_and_foreign_slices_left_alone() {
    let service = service(json!({"clusterIP": "None", "ports": []}));
    let foreign: Entry<EndpointSlice> = entry(json!({
        "metadata": {"name": "mine", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4"
    }));
    let actions = run(&service, vec![member(1, true)], &[foreign]);
    let [Action::Create(content)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(content.labels["service.kubernetes.io/headless"], "");
    assert_eq!(content.ports, []);
    assert_eq!(content.endpoints.len(), 1);
}

#[test]
fn changed_labels_are_carried_over() {
    let old = service(json!({}));
    let slices = apply(&old, vec![], &run(&old, vec![member(1, true)], &[]));
    let mut json: Value = old.object.parse().expect("json");
    json["metadata"]["labels"] = json!({"app": "web", "team": "red"});
    let new: Entry<Service> = entry(json);
    let actions = run(&new, vec![member(1, true)], &slices);
    let [Action::Update(key, content)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(*key, ObjectKey::new("shop", "web-0"));
    assert_eq!(content.labels["team"], "red");
}

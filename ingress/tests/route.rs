//! From objects to routes: classes, backends, endpoints. Text in, text out.

use std::sync::Arc;

use serde_json::{Value, json};
use skiff_ingress::route::{Endpoints, Observed, RouteTable};
use skiff_ingress::status;
use skiff_proto::ObjectKey;

fn ingress(name: &str, changes: Value) -> Value {
    let mut ingress = json!({"metadata": {"namespace": "default", "name": name}});
    merge(&mut ingress, changes);
    ingress
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn to(service: &str) -> Value {
    json!({"service": {"name": service, "port": {"number": 80}}})
}

fn rule(host: &str, path: &str, service: &str) -> Value {
    json!({"host": host, "http": {"paths": [
        {"path": path, "pathType": "Prefix", "backend": to(service)},
    ]}})
}

fn class(name: &str, controller: &str, default: bool) -> Value {
    let default = if default { "true" } else { "false" };
    json!({
        "metadata": {"name": name, "annotations": {
            "ingressclass.kubernetes.io/is-default-class": default,
        }},
        "spec": {"controller": controller},
    })
}

/// Services a, b and c, each with one endpoint 10.0.0.1, .2 and .3 on port 8080.
fn observe(ingresses: Vec<Value>, classes: Vec<Value>) -> Observed {
    let mut observed = Observed::default();
    let read = |value| Arc::new(serde_json::from_value(value).expect("an Ingress"));
    observed.ingresses = ingresses.into_iter().map(read).collect();
    let read = |value| Arc::new(serde_json::from_value(value).expect("a class"));
    observed.classes = classes.into_iter().map(read).collect();
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        let slice = json!({
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": [format!("10.0.0.{}", n + 1)]}],
        });
        let service = json!({"spec": {"ports": [{"name": "http", "port": 80}]}});
        add_service(&mut observed, name, service, vec![slice]);
    }
    observed
}

fn add_service(observed: &mut Observed, name: &str, service: Value, slices: Vec<Value>) {
    let key = ObjectKey::new("default", name);
    let service = serde_json::from_value(service).expect("a Service");
    observed.services.insert(key.clone(), Arc::new(service));
    let read = |value| Arc::new(serde_json::from_value(value).expect("a slice"));
    observed.slices.insert(key, slices.into_iter().map(read).collect());
}

fn build(observed: &Observed) -> RouteTable {
    RouteTable::build(observed, &mut Endpoints::new(), 0)
}

/// The endpoints a request goes to, or what its client is told.
fn way(table: &RouteTable, host: &str, path: &str) -> String {
    match table.find(host, path).map(|target| &target.balancer) {
        None => "404".to_owned(),
        Some(Err(why)) => why.clone(),
        Some(Ok(balancer)) => {
            let addrs = balancer.endpoints().iter().map(|e| e.addr.to_string());
            addrs.collect::<Vec<_>>().join(" ")
        }
    }
}

fn ours() -> Vec<Value> {
    vec![class("skiff", "skiff.dev/ingress", true)]
}

#[test]
fn rules_lead_to_pod_addresses() {
    let fan = json!({"spec": {"rules": [
        rule("web.example", "/", "a"),
        rule("web.example", "/api", "b"),
        rule("*.wild.example", "/", "c"),
    ]}});
    let table = build(&observe(vec![ingress("fan", fan)], ours()));
    for (host, path, expected) in [
        ("web.example", "/", "10.0.0.1:8080"),
        ("web.example", "/api/v1", "10.0.0.2:8080"),
        ("web.example", "/apis", "10.0.0.1:8080"),
        ("x.wild.example", "/", "10.0.0.3:8080"),
        ("other.example", "/", "404"),
    ] {
        assert_eq!(way(&table, host, path), expected, "{host}{path}");
    }
}

#[test]
fn implementation_specific_paths_are_prefixes_and_an_empty_one_is_all() {
    let rules = json!({"spec": {"rules": [{"http": {"paths": [
        {"pathType": "ImplementationSpecific", "backend": to("a")},
        {"path": "/b", "pathType": "ImplementationSpecific", "backend": to("b")},
    ]}}]}});
    let table = build(&observe(vec![ingress("any", rules)], ours()));
    assert_eq!(way(&table, "x", "/b/c"), "10.0.0.2:8080");
    assert_eq!(way(&table, "x", "/c"), "10.0.0.1:8080");
}

#[test]
fn a_default_backend_takes_what_no_rule_matches() {
    let rules =
        json!({"spec": {"defaultBackend": to("b"), "rules": [rule("a.example", "/a", "a")]}});
    let table = build(&observe(vec![ingress("x", rules)], ours()));
    assert_eq!(way(&table, "a.example", "/a"), "10.0.0.1:8080");
    assert_eq!(way(&table, "a.example", "/b"), "10.0.0.2:8080");
    assert_eq!(way(&table, "b.example", "/"), "10.0.0.2:8080");
}

#[test]
fn only_our_classes_are_served() {
    let classes = |default| {
        vec![
            class("skiff", "skiff.dev/ingress", default),
            class("edge", "skiff.dev/ingress", false),
            class("nginx", "k8s.io/ingress-nginx", false),
        ]
    };
    let named = |name: &str| json!({"spec": {"ingressClassName": name}});
    let annotated =
        |name: &str| json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": name}}});
    for (changes, default, served) in [
        (named("skiff"), true, true),
        (named("edge"), false, true),
        (named("nginx"), true, false),
        (named("unknown"), true, false),
        (annotated("skiff"), false, true),
        (annotated("nginx"), true, false),
        (json!({}), true, true),
        (json!({}), false, false),
    ] {
        let mut with_rule = json!({"spec": {"rules": [rule("h", "/", "a")]}});
        merge(&mut with_rule, changes.clone());
        let table = build(&observe(vec![ingress("i", with_rule)], classes(default)));
        assert_eq!(way(&table, "h", "/") != "404", served, "{changes} default {default}");
    }
}

#[test]
fn the_older_ingress_keeps_a_path() {
    let aged = |service: &str, created: &str| {
        json!({
            "metadata": {"creationTimestamp": created},
            "spec": {"rules": [rule("h", "/", service)]},
        })
    };
    let young = ingress("a-young", aged("a", "2024-02-01T00:00:00Z"));
    let old = ingress("b-old", aged("b", "2024-01-01T00:00:00Z"));
    let table = build(&observe(vec![young, old], ours()));
    assert_eq!(way(&table, "h", "/"), "10.0.0.2:8080");
}

#[test]
fn what_is_wrong_with_a_backend_is_said() {
    let rules = json!({"spec": {"rules": [
        rule("none", "/", "none"),
        rule("empty", "/", "empty"),
        rule("outside", "/", "outside"),
        {"host": "port", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend":
            {"service": {"name": "a", "port": {"name": "metrics"}}}}]}},
        {"host": "bucket", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend":
            {"resource": {"kind": "Bucket", "name": "b"}}}]}},
    ]}});
    let mut observed = observe(vec![ingress("i", rules)], ours());
    add_service(&mut observed, "empty", json!({"spec": {"ports": [{"port": 80}]}}), vec![]);
    let outside = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    add_service(&mut observed, "outside", outside, vec![]);
    let table = build(&observed);
    for (host, expected) in [
        ("none", "Service default/none does not exist"),
        ("empty", "Service default/empty has no ready endpoints"),
        ("outside", "Service default/outside is of type ExternalName, which is not served"),
        ("port", "Service default/a has no port metrics"),
        ("bucket", "the Ingress names a backend that is no Service, which is not served"),
    ] {
        assert_eq!(way(&table, host, "/"), expected);
    }
}

#[test]
fn only_ready_endpoints_of_the_named_port_are_used() {
    let rules = json!({"spec": {"rules": [{"host": "h", "http": {"paths": [
        {"path": "/", "pathType": "Prefix", "backend":
            {"service": {"name": "multi", "port": {"name": "web"}}}},
    ]}}]}});
    let endpoint =
        |ip: &str, conditions: Value| json!({"addresses": [ip], "conditions": conditions});
    let slice = |endpoints: Vec<Value>| {
        json!({
            "ports": [{"name": "web", "port": 8000}, {"name": "metrics", "port": 9000}],
            "endpoints": endpoints,
        })
    };
    let ending = json!({"ready": false, "serving": true, "terminating": true});
    let service = json!({"spec": {"ports": [
        {"name": "metrics", "port": 90}, {"name": "web", "port": 80},
    ]}});
    for (slices, expected) in [
        (
            vec![
                slice(vec![
                    endpoint("10.0.0.2", json!({"ready": true})),
                    endpoint("10.0.0.9", json!({"ready": false})),
                    endpoint("10.0.0.8", ending.clone()),
                ]),
                slice(vec![endpoint("10.0.0.1", json!({})), endpoint("10.0.0.2", json!({}))]),
                slice(vec![endpoint("fd00::1", json!({}))]),
            ],
            "10.0.0.1:8000 10.0.0.2:8000 [fd00::1]:8000",
        ),
        (
            vec![slice(vec![
                endpoint("10.0.0.9", json!({"ready": false, "serving": false})),
                endpoint("10.0.0.8", ending),
            ])],
            "10.0.0.8:8000",
        ),
        (
            vec![slice(vec![endpoint("10.0.0.9", json!({"ready": false}))])],
            "Service default/multi has no ready endpoints",
        ),
    ] {
        let mut observed = observe(vec![ingress("i", rules.clone())], ours());
        add_service(&mut observed, "multi", service.clone(), slices);
        assert_eq!(way(&build(&observed), "h", "/"), expected);
    }
}

#[test]
fn what_is_known_of_an_endpoint_survives_a_change() {
    let rules = json!({"spec": {"rules": [rule("h", "/", "a")]}});
    let observed = observe(vec![ingress("i", rules)], ours());
    let mut endpoints = Endpoints::new();
    let before = RouteTable::build(&observed, &mut endpoints, 0);
    let busy = endpoints.values().next().expect("one endpoint").enter();
    let after = RouteTable::build(&observed, &mut endpoints, 1);
    assert_eq!(endpoints.values().next().map(|e| e.in_flight()), Some(1));
    drop((before, after, busy));
    RouteTable::build(&Observed::default(), &mut endpoints, 2);
    assert!(endpoints.is_empty(), "endpoints that no route leads to are forgotten");
}

#[test]
fn addresses_are_written_only_where_they_differ() {
    let told = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    let other = json!({"spec": {"ingressClassName": "nginx"}});
    let ingresses = vec![ingress("new", json!({})), ingress("told", told), ingress("other", other)];
    let observed = observe(ingresses, ours());
    let addresses = ["192.0.2.1".parse().expect("an address")];
    let writes = status::plan(&observed, &addresses);
    let names: Vec<String> = writes.iter().map(|write| write.ingress.to_string()).collect();
    assert_eq!(names, ["default/new"]);
    assert_eq!(status::plan(&observed, &[]), []);
}

//! What each plugin says, as text: nodes and placed pods in, the chosen node or upstream's
//! message out.

mod fixture;

use fixture::*;
use serde_json::{Value, json};

/// Places `wanted` in a cluster of these nodes and placed pods (node, name, changes).
fn check(nodes: &[(&str, Value)], placed: &[(&str, &str, Value)], wanted: Value, expected: &str) {
    let nodes: Vec<_> = nodes.iter().map(|(name, changes)| node(name, changes.clone())).collect();
    let mut scheduler = scheduler(nodes);
    for (on, name, changes) in placed {
        let there = both(changes.clone(), json!({"spec": {"nodeName": on}}));
        scheduler.set_pod(pod(name, there), at(0));
    }
    let said = place(&mut scheduler, pod("wanted", wanted.clone()));
    // What preemption adds is tested on its own.
    let said = said.split(" preemption: ").next().unwrap_or_default();
    assert_eq!(said, expected, "{wanted}");
}

fn labels(labels: Value) -> Value {
    json!({"metadata": {"labels": labels}})
}

fn zone(name: &str) -> Value {
    labels(json!({"topology.kubernetes.io/zone": name}))
}

#[test]
fn resources_must_be_free() {
    let small = json!({"status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "2"}}});
    let one = [("n", small.clone())];
    let request = |resources: Value| json!({"spec": {"containers": [{"resources": {"requests": resources}}]}});
    check(&one, &[], request(json!({"cpu": "1"})), "n");
    check(
        &one,
        &[],
        request(json!({"cpu": "1001m"})),
        "0/1 nodes are available: 1 Insufficient cpu.",
    );
    check(
        &one,
        &[("n", "a", cpu("600m"))],
        request(
            json!({"cpu": "600m", "memory": "2Gi", "ephemeral-storage": "1", "example.com/gpu": 1}),
        ),
        "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient ephemeral-storage, \
         1 Insufficient example.com/gpu, 1 Insufficient memory.",
    );
    check(
        &one,
        &[("n", "a", json!({})), ("n", "b", json!({}))],
        json!({}),
        "0/1 nodes are available: 1 Too many pods.",
    );
    let sidecar = json!({"spec": {"initContainers": [
        {"restartPolicy": "Always", "resources": {"requests": {"cpu": "600m"}}},
    ], "containers": [{"resources": {"requests": {"cpu": "600m"}}}]}});
    check(&one, &[], sidecar, "0/1 nodes are available: 1 Insufficient cpu.");
    let finished = both(cpu("1"), json!({"status": {"phase": "Succeeded"}}));
    check(&one, &[("n", "done", finished)], cpu("1"), "n");
}

#[test]
fn nodes_are_chosen_by_selector_and_affinity() {
    let nodes = [
        ("ssd", labels(json!({"disk": "ssd", "cores": "8"}))),
        ("hdd", labels(json!({"disk": "hdd", "cores": "4"}))),
    ];
    let none = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.";
    check(&nodes, &[], json!({"spec": {"nodeSelector": {"disk": "ssd"}}}), "ssd");
    check(&nodes, &[], json!({"spec": {"nodeSelector": {"disk": "tape"}}}), none);
    for (term, expected) in [
        (json!({"key": "disk", "operator": "In", "values": ["hdd", "tape"]}), "hdd"),
        (json!({"key": "disk", "operator": "NotIn", "values": ["hdd"]}), "ssd"),
        (json!({"key": "cores", "operator": "Gt", "values": ["4"]}), "ssd"),
        (json!({"key": "cores", "operator": "Lt", "values": ["8"]}), "hdd"),
        (json!({"key": "gpu", "operator": "Exists"}), none),
        (json!({"key": "disk", "operator": "DoesNotExist"}), none),
        (json!({"key": "cores", "operator": "Gt", "values": ["many"]}), none),
    ] {
        check(&nodes, &[], required(json!([{"matchExpressions": [term]}])), expected);
    }
    let either = json!([
        {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]},
        {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["hdd"]}]},
    ]);
    check(&nodes, &[], required(either), "hdd");
    check(&nodes, &[], required(json!([{}])), none);
}

fn required(terms: Value) -> Value {
    json!({"spec": {"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
    }}}})
}

#[test]
fn a_pod_for_one_node_asks_no_other() {
    let nodes = [("a", json!({})), ("b", json!({})), ("c", json!({}))];
    let only = |name: &str| {
        required(json!([{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": [name]},
        ]}]))
    };
    check(&nodes, &[], only("b"), "b");
    check(
        &nodes,
        &[("b", "full", cpu("4"))],
        both(only("b"), cpu("1")),
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity].",
    );
    check(
        &nodes,
        &[],
        only("gone"),
        "0/3 nodes are available: 3 node(s) didn't satisfy plugin(s) [NodeAffinity].",
    );
}

#[test]
fn preferred_nodes_win() {
    let nodes = [("a", labels(json!({"disk": "ssd"}))), ("b", json!({}))];
    let prefers = |weight: i64, operator: &str| {
        json!({"spec": {"affinity": {"nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{
                "weight": weight,
                "preference": {"matchExpressions": [{"key": "disk", "operator": operator}]},
            }],
        }}}})
    };
    check(&nodes, &[], prefers(1, "Exists"), "a");
    check(&nodes, &[], prefers(1, "DoesNotExist"), "b");
}

#[test]
fn taints_keep_pods_away_unless_tolerated() {
    let tainted = |effect: &str| json!({"spec": {"taints": [{"key": "team", "value": "db", "effect": effect}]}});
    let none = "0/1 nodes are available: 1 node(s) had untolerated taint {team: db}.";
    let tolerates = |toleration: Value| json!({"spec": {"tolerations": [toleration]}});
    for (effect, toleration, expected) in [
        ("NoSchedule", json!({"key": "other", "operator": "Exists"}), none),
        ("NoExecute", json!({"key": "team", "value": "web"}), none),
        ("NoSchedule", json!({"key": "team", "operator": "Exists", "effect": "NoExecute"}), none),
        ("NoSchedule", json!({"key": "team", "value": "db"}), "n"),
        ("NoSchedule", json!({"key": "team", "operator": "Exists"}), "n"),
        ("NoExecute", json!({"operator": "Exists"}), "n"),
        ("PreferNoSchedule", json!({"key": "other"}), "n"),
    ] {
        check(&[("n", tainted(effect))], &[], tolerates(toleration), expected);
    }
    let soft = [("a", tainted("PreferNoSchedule")), ("b", json!({}))];
    check(&soft, &[], json!({}), "b");
}

#[test]
fn a_cordoned_node_takes_only_who_tolerates_it() {
    let cordoned = [("n", json!({"spec": {"unschedulable": true}}))];
    check(&cordoned, &[], json!({}), "0/1 nodes are available: 1 node(s) were unschedulable.");
    let key = "node.kubernetes.io/unschedulable";
    let tolerant = json!({"spec": {"tolerations": [{"key": key, "operator": "Exists"}]}});
    check(&cordoned, &[], tolerant, "n");
}

#[test]
fn a_host_port_is_taken_once() {
    let port = |ip: &str, protocol: &str| {
        json!({"spec": {"containers": [{"ports": [
            {"containerPort": 80, "hostPort": 8080, "hostIP": ip, "protocol": protocol},
        ]}]}})
    };
    let none = "0/1 nodes are available: \
                1 node(s) didn't have free ports for the requested pod ports.";
    for (taken, wanted, expected) in [
        (port("", "TCP"), port("", "TCP"), none),
        (port("", "TCP"), port("", "UDP"), "n"),
        (port("127.0.0.1", "TCP"), port("0.0.0.0", "TCP"), none),
        (port("127.0.0.1", "TCP"), port("10.0.0.1", "TCP"), "n"),
    ] {
        check(&[("n", json!({}))], &[("n", "other", taken)], wanted, expected);
    }
}

fn spread(skew: i64, key: &str, when: &str, more: Value) -> Value {
    let mut constraint = json!({
        "maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": when,
        "labelSelector": {"matchLabels": {"app": "web"}},
    });
    merge(&mut constraint, more);
    both(
        labels(json!({"app": "web"})),
        json!({"spec": {"topologySpreadConstraints": [constraint]}}),
    )
}

#[test]
fn hard_spreading_keeps_the_skew() {
    let zone_key = "topology.kubernetes.io/zone";
    let web = || labels(json!({"app": "web"}));
    let nodes = [("a", zone("east")), ("b", zone("west")), ("c", zone("west"))];
    let hard = || spread(1, zone_key, "DoNotSchedule", json!({}));
    check(&nodes, &[("b", "1", web()), ("c", "2", web())], hard(), "a");
    let full =
        [("a", both(zone("east"), json!({"spec": {"unschedulable": true}}))), ("b", zone("west"))];
    check(
        &full,
        &[("b", "1", web())],
        hard(),
        "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, \
         1 node(s) were unschedulable.",
    );
    check(
        &[("bare", json!({}))],
        &[],
        hard(),
        "0/1 nodes are available: \
         1 node(s) didn't match pod topology spread constraints (missing required label).",
    );
    // Two domains are wanted, one is there: the emptiest counts as empty.
    check(
        &[("b", zone("west"))],
        &[("b", "1", web())],
        spread(1, zone_key, "DoNotSchedule", json!({"minDomains": 2})),
        "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints.",
    );
    // Pods of another revision do not count.
    let old = labels(json!({"app": "web", "pod-template-hash": "1"}));
    let new = both(
        spread(1, zone_key, "DoNotSchedule", json!({"matchLabelKeys": ["pod-template-hash"]})),
        labels(json!({"pod-template-hash": "2"})),
    );
    check(
        &[("a", zone("east")), ("b", both(zone("west"), json!({"spec": {"unschedulable": true}})))],
        &[("a", "1", old.clone()), ("a", "2", old)],
        new,
        "a",
    );
    let leaving = both(web(), json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}}));
    check(&full, &[("b", "1", leaving)], hard(), "b");
}

#[test]
fn soft_and_default_spreading_prefer_the_emptier_domain() {
    let web = || labels(json!({"app": "web"}));
    let nodes = [("a", json!({})), ("b", json!({}))];
    let host = "kubernetes.io/hostname";
    let soft = spread(1, host, "ScheduleAnyway", json!({}));
    check(&nodes, &[("a", "1", web())], soft, "b");
    let owned =
        |uid: &str| json!({"metadata": {"ownerReferences": [{"uid": uid, "controller": true}]}});
    // b is a little fuller, but a has the pods of the same ReplicaSet.
    let placed = [("a", "1", owned("rs")), ("b", "2", cpu("200m"))];
    check(&nodes, &placed, owned("rs"), "b");
}

fn pod_affinity(side: &str, key: &str, app: &str) -> Value {
    json!({"spec": {"affinity": {side: {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}},
    ]}}}})
}

#[test]
fn pods_attract_and_repel_each_other() {
    let zone_key = "topology.kubernetes.io/zone";
    let nodes = [("a", zone("east")), ("b", zone("west"))];
    let db = || labels(json!({"app": "db"}));
    let near = pod_affinity("podAffinity", zone_key, "db");
    let far = pod_affinity("podAntiAffinity", zone_key, "db");
    check(&nodes, &[("b", "db", db())], near.clone(), "b");
    check(&nodes, &[("b", "db", db())], far.clone(), "a");
    check(
        &nodes,
        &[],
        near.clone(),
        "0/2 nodes are available: 2 node(s) didn't match pod affinity rules.",
    );
    let elsewhere = both(db(), json!({"metadata": {"namespace": "other"}}));
    check(
        &nodes,
        &[("b", "db", elsewhere)],
        near.clone(),
        "0/2 nodes are available: 2 node(s) didn't match pod affinity rules.",
    );
    check(
        &nodes,
        &[("a", "1", db()), ("b", "2", db())],
        far.clone(),
        "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules.",
    );
    // The first of a group that wants to be together may go anywhere.
    check(&nodes[..1], &[], both(near, db()), "a");
    // Who is there already may refuse the new one.
    check(
        &nodes[..1],
        &[("a", "loner", far)],
        db(),
        "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules.",
    );
}

#[test]
fn preferred_neighbours_win() {
    let nodes = [("a", json!({})), ("b", json!({}))];
    let prefers = |side: &str| {
        json!({"spec": {"affinity": {side: {"preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "podAffinityTerm": {
                "topologyKey": "kubernetes.io/hostname",
                "labelSelector": {"matchLabels": {"app": "db"}},
            },
        }]}}}})
    };
    let placed = [("a", "db", labels(json!({"app": "db"})))];
    check(&nodes, &placed, prefers("podAffinity"), "a");
    check(&nodes, &placed, prefers("podAntiAffinity"), "b");
}

#[test]
fn the_emptier_and_the_balanced_node_win() {
    let nodes = [("a", json!({})), ("b", json!({}))];
    check(&nodes, &[("a", "1", cpu("2"))], cpu("100m"), "b");
    check(&nodes, &[("b", "1", cpu("2"))], cpu("100m"), "a");
}

#[test]
fn reasons_are_counted_over_all_nodes() {
    let tainted =
        json!({"spec": {"taints": [{"key": "key", "value": "value", "effect": "NoSchedule"}]}});
    check(
        &[("a", json!({})), ("b", tainted.clone()), ("c", tainted)],
        &[],
        cpu("5"),
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {key: value}.",
    );
    check(&[], &[], json!({}), "no nodes available to schedule pods");
}

//! What the rules say (golden text) and what they mean (the tracer), and which of them a change rewrites. Pure.
//!
//! `UPDATE_GOLDEN=1 cargo test -p skiff-proxy` writes the golden files anew.

#![allow(clippy::unwrap_used)]

mod plan;

use plan::{apply, node, rendered, send, service, settings, slice, story, table, web};
use serde_json::{Value, json};
use skiff_proxy::conntrack::{Flow, stale};
use skiff_proxy::iptables::render::{JUMPS, render};
use skiff_proxy::iptables::transaction::{Observed, State, delta, full, removal};
use skiff_proxy::model::Protocol;
use skiff_proxy::table::{Retired, Table};
use skiff_proxy::tracer::{Packet, trace};

#[track_caller]
fn golden(name: &str, objects: &[Value]) {
    let text = full(&Observed::default(), &rendered(objects));
    let path = format!("{}/tests/golden/{name}.rules", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expect = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expect, "{path} differs; UPDATE_GOLDEN=1 writes it anew");
}

/// Who sends where, and what comes of it.
#[track_caller]
fn check(objects: &[Value], sends: &[(&str, &str, &[&str])]) {
    let rules = rendered(objects);
    for (source, destination, expect) in sends {
        let found = story(&send(&rules, source, destination));
        assert_eq!(found, *expect, "{source} -> {destination}\n{rules:#?}");
    }
}

#[test]
fn golden_texts() {
    golden("empty", &[]);
    golden("node-port", &web(json!({})));
    golden("affinity", &web(json!({"sessionAffinity": "ClientIP"})));
    golden(
        "local",
        &web(json!({"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"})),
    );
    let mut none = web(json!({}));
    none[1] = slice("web", ("http", "TCP", 8080), &[]);
    golden("no-endpoints", &none);
}

#[test]
fn cluster_ip_and_node_port_reach_every_endpoint_evenly() {
    let plain = ["1/3 10.42.0.5:8080", "1/3 10.42.1.6:8080", "1/3 10.42.1.7:8080"];
    let masqueraded = [
        "1/3 10.42.0.5:8080 masqueraded",
        "1/3 10.42.1.6:8080 masqueraded",
        "1/3 10.42.1.7:8080 masqueraded",
    ];
    check(
        &web(json!({})),
        &[
            ("10.42.0.9", "10.43.0.10:80", &plain),
            ("192.0.2.1", "10.43.0.10:80", &masqueraded),
            ("203.0.113.9", "10.43.0.10:80", &masqueraded),
            ("203.0.113.9", "192.0.2.1:30080", &masqueraded),
            ("10.42.0.9", "192.0.2.1:30080", &masqueraded),
            ("127.0.0.1", "127.0.0.1:30080", &masqueraded),
            // Other ports, other addresses: not ours, and no mark stays behind.
            ("203.0.113.9", "192.0.2.1:22", &["1/1 untouched"]),
            ("203.0.113.9", "10.43.0.10:81", &["1/1 untouched"]),
            ("10.42.0.9", "198.51.100.1:30080", &["1/1 untouched"]),
            ("203.0.113.9", "10.42.0.5:8080", &["1/1 untouched"]),
        ],
    );
}

#[test]
fn who_reaches_itself_is_masqueraded() {
    let mut objects = web(json!({}));
    objects[1] = slice("web", ("http", "TCP", 8080), &["10.42.0.5@n1"]);
    check(
        &objects,
        &[
            ("10.42.0.5", "10.43.0.10:80", &["1/1 10.42.0.5:8080 masqueraded"]),
            ("10.42.0.6", "10.43.0.10:80", &["1/1 10.42.0.5:8080"]),
        ],
    );
    // An endpoint that nobody says the node of may be here.
    objects[1] = slice("web", ("http", "TCP", 8080), &["10.42.0.5"]);
    check(&objects, &[("10.42.0.5", "10.43.0.10:80", &["1/1 10.42.0.5:8080 masqueraded"])]);
}

#[test]
fn a_service_without_endpoints_is_refused() {
    let mut objects = web(json!({}));
    for endpoints in [&[][..], &["10.42.0.5@n1!unready"]] {
        objects[1] = slice("web", ("http", "TCP", 8080), endpoints);
        check(
            &objects,
            &[
                ("10.42.0.9", "10.43.0.10:80", &["1/1 rejected"]),
                ("192.0.2.1", "10.43.0.10:80", &["1/1 rejected"]),
                ("203.0.113.9", "192.0.2.1:30080", &["1/1 rejected"]),
                ("203.0.113.9", "192.0.2.1:22", &["1/1 untouched"]),
            ],
        );
    }
}

#[test]
fn terminating_endpoints_serve_when_nobody_else_does() {
    let mut objects = web(json!({}));
    let target = ("http", "TCP", 8080);
    objects[1] = slice("web", target, &["10.42.0.5@n1!draining", "10.42.1.6@n2"]);
    check(&objects, &[("10.42.0.9", "10.43.0.10:80", &["1/1 10.42.1.6:8080"])]);
    objects[1] = slice("web", target, &["10.42.0.5@n1!draining", "10.42.1.6@n2!unready"]);
    check(&objects, &[("10.42.0.9", "10.43.0.10:80", &["1/1 10.42.0.5:8080"])]);
}

#[test]
fn external_policy_local_keeps_the_source() {
    let all = [
        "1/3 10.42.0.5:8080 masqueraded",
        "1/3 10.42.1.6:8080 masqueraded",
        "1/3 10.42.1.7:8080 masqueraded",
    ];
    let objects = web(json!({"externalTrafficPolicy": "Local"}));
    check(
        &objects,
        &[
            ("203.0.113.9", "192.0.2.1:30080", &["1/1 10.42.0.5:8080"]),
            ("192.0.2.1", "192.0.2.1:30080", &all),
            (
                "10.42.0.9",
                "192.0.2.1:30080",
                &["1/3 10.42.0.5:8080", "1/3 10.42.1.6:8080", "1/3 10.42.1.7:8080"],
            ),
        ],
    );
    let mut elsewhere = objects;
    elsewhere[1] = slice("web", ("http", "TCP", 8080), &["10.42.1.6@n2"]);
    check(&elsewhere, &[("203.0.113.9", "192.0.2.1:30080", &["1/1 dropped"])]);
}

#[test]
fn internal_policy_local_stays_on_the_node() {
    let objects = web(json!({"internalTrafficPolicy": "Local"}));
    check(&objects, &[("10.42.0.9", "10.43.0.10:80", &["1/1 10.42.0.5:8080"])]);
    let mut elsewhere = objects;
    elsewhere[1] = slice("web", ("http", "TCP", 8080), &["10.42.1.6@n2"]);
    check(&elsewhere, &[("10.42.0.9", "10.43.0.10:80", &["1/1 dropped"])]);
}

#[test]
fn external_and_balancer_addresses() {
    let mut objects = web(json!({
        "type": "LoadBalancer", "externalIPs": ["198.51.100.7"],
        "loadBalancerSourceRanges": ["203.0.113.0/24"]
    }));
    objects[0]["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.8"}]}});
    objects[1] = slice("web", ("http", "TCP", 8080), &["10.42.1.6@n2"]);
    check(
        &objects,
        &[
            ("192.0.2.77", "198.51.100.7:80", &["1/1 10.42.1.6:8080 masqueraded"]),
            ("203.0.113.9", "198.51.100.8:80", &["1/1 10.42.1.6:8080 masqueraded"]),
            ("192.0.2.77", "198.51.100.8:80", &["1/1 dropped"]),
        ],
    );
}

#[test]
fn a_client_keeps_its_endpoint() {
    let rules = rendered(&web(json!({"sessionAffinity": "ClientIP"})));
    let first = send(&rules, "10.42.0.9", "10.43.0.10:80");
    assert_eq!(first.len(), 3);
    for outcome in first {
        let packet = Packet {
            source: "10.42.0.9".parse().unwrap(),
            destination: "10.43.0.10:80".parse().unwrap(),
            protocol: Protocol::Tcp,
            from_node: false,
        };
        let mut node = node();
        node.remembered = outcome.remembered.clone();
        let again = trace(&rules, &packet, &node).unwrap();
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].fate, outcome.fate);
    }
}

#[test]
fn slices_add_up_and_other_ports_do_not_mix() {
    let mut objects = web(json!({"ports": [
        {"name": "http", "protocol": "TCP", "port": 80}, {"name": "admin", "protocol": "TCP", "port": 9000}
    ]}));
    let mut second = slice("web", ("http", "TCP", 8081), &["10.42.1.9@n2"]);
    second["metadata"]["name"] = json!("web-y");
    objects[1] = slice("web", ("http", "TCP", 8080), &["10.42.0.5@n1"]);
    objects.push(second);
    check(
        &objects,
        &[
            ("10.42.0.9", "10.43.0.10:80", &["1/2 10.42.0.5:8080", "1/2 10.42.1.9:8081"]),
            ("10.42.0.9", "10.43.0.10:9000", &["1/1 rejected"]),
        ],
    );
}

#[test]
fn a_changed_endpoint_rewrites_one_chain() {
    let mut objects = web(json!({}));
    objects.push(service("other", json!({"clusterIP": "10.43.0.11", "ports": [{"port": 80}]})));
    let mut table = table(&objects);
    let before = render(&table, &settings());
    assert_eq!(delta(&State::of(&before), &before), None);
    apply(&mut table, &[slice("web", ("http", "TCP", 8080), &["10.42.0.5@n1", "10.42.1.8@n2"])]);
    let text = delta(&State::of(&before), &render(&table, &settings())).unwrap();
    let expect = "*nat\n\
        :CHAIN - [0:0]\n\
        -A CHAIN -p tcp -m statistic --mode random --probability 0.5000000000 -j DNAT --to-destination 10.42.0.5:8080\n\
        -A CHAIN -p tcp -j DNAT --to-destination 10.42.1.8:8080\n\
        COMMIT\n";
    let chain = before
        .nat
        .keys()
        .find(|chain| chain.starts_with("SKIFF-SVC-") && !before.nat[*chain].is_empty());
    assert_eq!(text.replace(chain.unwrap(), "CHAIN"), expect);
}

#[test]
fn a_removed_service_takes_its_chain_along() {
    let mut table = table(&web(json!({})));
    let before = render(&table, &settings());
    apply(&mut table, &[service("web", Value::Null)]);
    let text = delta(&State::of(&before), &render(&table, &settings())).unwrap();
    assert!(text.contains("\n-X SKIFF-SVC-"), "{text}");
    assert!(!text.contains("10.43.0.10"), "{text}");
}

/// What `iptables-save` says of a transaction that was written in full.
fn saved(text: &str) -> String {
    text.replace("-I ", "-A ").replace(" 1 -m", " -m")
}

#[test]
fn what_is_there_is_recognised_replaced_and_removed() {
    let rules = rendered(&web(json!({})));
    let whole = full(&Observed::default(), &rules);
    let observed = Observed::parse(&saved(&whole));
    assert!(observed.holds(&State::of(&rules)));

    let without_rule =
        saved(&whole).replace("-A SKIFF-POSTROUTING -j MASQUERADE --random-fully\n", "");
    assert!(!Observed::parse(&without_rule).holds(&State::of(&rules)));
    let without_jump: Vec<String> = saved(&whole)
        .lines()
        .filter(|line| !line.starts_with("-A OUTPUT"))
        .map(str::to_owned)
        .collect();
    assert!(!Observed::parse(&without_jump.join("\n")).holds(&State::of(&rules)));

    let again = full(&observed, &rendered(&[]));
    assert_eq!(again.matches("\n-D ").count(), JUMPS.len());
    assert_eq!(again.matches("\n-I ").count(), JUMPS.len());
    assert_eq!(again.matches("\n-X SKIFF-SVC-").count(), 1);
    let gone = removal(&observed).unwrap();
    assert_eq!(gone.matches("\n-D ").count(), JUMPS.len());
    assert_eq!(gone.matches("\n-X ").count(), rules.nat.len() + rules.filter.len());
    assert_eq!(removal(&Observed::default()), None);
}

#[test]
fn chains_of_others_are_left_alone() {
    let others = "*nat\n:SKIFF-MASQ-0A1B2C3D - [0:0]\n:KUBE-SERVICES - [0:0]\n\
        -A POSTROUTING -m comment --comment \"skiff-cni pods 0\" -j SKIFF-MASQ-0A1B2C3D\nCOMMIT\n";
    assert!(Observed::parse(others).is_empty());
}

#[test]
fn stale_udp_flows() {
    let dns = |endpoints: &[&str]| {
        vec![
            service(
                "dns",
                json!({"type": "NodePort", "clusterIP": "10.43.0.53",
                "ports": [{"protocol": "UDP", "port": 53, "nodePort": 30053}]}),
            ),
            slice("dns", ("", "UDP", 53), endpoints),
        ]
    };
    let flow = |destination: &str, answers: &str| {
        Flow::new(destination.parse().unwrap(), answers.parse().unwrap())
    };
    let flows = [
        flow("10.43.0.53:53", "10.42.0.5:53"),
        flow("10.43.0.53:53", "10.42.0.6:53"),
        flow("10.43.0.53:53", "10.43.0.53:53"),
        flow("192.0.2.1:30053", "10.42.0.6:53"),
        flow("198.51.100.1:30053", "198.51.100.1:30053"),
        flow("10.42.0.6:53", "10.42.0.6:53"),
    ];
    let is_node = |address: std::net::IpAddr| address.to_string() == "192.0.2.1";
    let mut table = table(&dns(&["10.42.0.5@n1"]));
    let none = Retired::default();
    let found: Vec<Flow> = stale(&table, &none, &flows, is_node).into_iter().cloned().collect();
    assert_eq!(found, flows[1..4], "gone, never translated, and gone behind the node port");

    // A removed Service lets go of its translated flows, and only of these.
    let retired = apply(&mut table, &[service("dns", Value::Null)]);
    let found: Vec<Flow> = stale(&table, &retired, &flows, is_node).into_iter().cloned().collect();
    assert_eq!(found, [flows[0].clone(), flows[1].clone(), flows[3].clone()]);
    assert!(stale(&Table::new("n1"), &none, &flows, is_node).is_empty());
}

#[test]
fn ipv6_has_the_same_meaning() {
    let mut web = web(json!({"clusterIPs": ["10.43.0.10", "fd43::10"]}));
    let mut six = slice("web", ("http", "TCP", 8080), &["fd42::5@n1", "fd42:1::6@n2"]);
    six["metadata"]["name"] = json!("web-six");
    six["addressType"] = json!("IPv6");
    web.push(six);
    let mut settings = settings();
    settings.family = skiff_proxy::iptables::Family::Ipv6;
    settings.cluster_cidr = "fd42::/16".into();
    settings.localhost_node_ports = false;
    let rules = render(&table(&web), &settings);
    let found = story(&send(&rules, "2001:db8::9", "[fd43::10]:80"));
    assert_eq!(found, ["1/2 [fd42::5]:8080 masqueraded", "1/2 [fd42:1::6]:8080 masqueraded"]);
    assert_eq!(story(&send(&rules, "fd42::9", "[fd43::10]:80"))[0], "1/2 [fd42::5]:8080");
    assert!(!full(&Observed::default(), &rules).contains("10.42."), "one family a text");
}

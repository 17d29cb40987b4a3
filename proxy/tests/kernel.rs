//! The proxy against the real kernel: packets through the rules it wrote. Needs root, iproute2 and iptables.

#![allow(clippy::unwrap_used)]

mod lab;
mod plan;

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use lab::{Lab, ask_udp, eventually};
use plan::{service, slice, web};
use serde_json::{Value, json};
use skiff_client::testing::FakeApi;
use skiff_proto::resource::{ENDPOINT_SLICES, SERVICES};
use skiff_proxy::iptables::Family;
use skiff_proxy::iptables::exec;
use skiff_proxy::monitor::Monitor;

const TARGET: (&str, &str, u16) = ("http", "TCP", 8080);

/// The Service of the plan, with the lab's pods behind it.
fn web_on(endpoints: &[&str], spec: Value) -> Vec<Value> {
    let mut objects = web(spec);
    objects[1] = slice("web", TARGET, endpoints);
    objects
}

fn apply(api: &FakeApi, objects: &[Value]) {
    for object in objects {
        let resource = if object["kind"] == "Service" { SERVICES } else { ENDPOINT_SLICES };
        api.put(&resource, object.clone());
    }
}

fn is_refused(answer: io::Result<String>) -> bool {
    match answer {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => true,
        other => {
            eprintln!("not refused: {other:?}");
            false
        }
    }
}

#[test]
fn every_way_to_a_service() {
    let (lab, api) = (Lab::new(), FakeApi::new());
    apply(&api, &web_on(&["10.42.0.5@n1"], json!({})));
    let _proxy = lab.start(&api);
    assert_eq!(lab.two.ask("10.43.0.10:80").unwrap(), "one 10.42.0.6", "a pod shows itself");
    assert_eq!(lab.one.ask("10.43.0.10:80").unwrap(), "one 10.42.0.1", "a pod reaches itself");
    assert_eq!(lab.node.ask("10.43.0.10:80").unwrap(), "one 10.42.0.1", "the node itself");
    assert_eq!(
        lab.client.ask("10.43.0.10:80").unwrap(),
        "one 10.42.0.1",
        "from outside, masqueraded"
    );
    assert_eq!(lab.client.ask("192.0.2.1:30080").unwrap(), "one 10.42.0.1", "node port");
    assert_eq!(lab.two.ask("192.0.2.1:30080").unwrap(), "one 10.42.0.1", "node port from a pod");
    assert_eq!(lab.node.ask("127.0.0.1:30080").unwrap(), "one 10.42.0.1", "node port on localhost");
    assert!(is_refused(lab.client.ask("192.0.2.1:30081")));

    // Balancing reaches all, and follows the endpoints.
    apply(&api, &[slice("web", TARGET, &["10.42.0.5@n1", "10.42.0.6@n1"])]);
    let mut seen = BTreeSet::new();
    eventually("both pods answer", || {
        seen.insert(lab.client.ask("192.0.2.1:30080").unwrap()[..3].to_owned());
        seen.len() == 2
    });
    apply(&api, &[slice("web", TARGET, &["10.42.0.5@n1!unready", "10.42.0.6@n1"])]);
    eventually("only pod two answers", || {
        (0..8).all(|_| lab.client.ask("10.43.0.10:80").unwrap().starts_with("two"))
    });

    // External traffic under the policy Local keeps its source.
    apply(&api, &web_on(&["10.42.0.6@n1"], json!({"externalTrafficPolicy": "Local"})));
    eventually("the source is kept", || {
        lab.client.ask("192.0.2.1:30080").is_ok_and(|answer| answer == "two 192.0.2.2")
    });
}

#[test]
fn a_service_that_nobody_serves_is_refused_at_once() {
    let (lab, api) = (Lab::new(), FakeApi::new());
    apply(&api, &web_on(&[], json!({})));
    let _proxy = lab.start(&api);
    for (space, target) in [
        (&lab.one, "10.43.0.10:80"),
        (&lab.node, "10.43.0.10:80"),
        (&lab.client, "10.43.0.10:80"),
        (&lab.client, "192.0.2.1:30080"),
    ] {
        assert!(is_refused(space.ask(target)), "{} -> {target}", space.name);
    }
    apply(&api, &[slice("web", TARGET, &["10.42.0.5@n1"])]);
    eventually("it answers", || lab.client.ask("192.0.2.1:30080").is_ok());
    api.remove(&ENDPOINT_SLICES, "shop", "web-x");
    eventually("it is refused again", || is_refused(lab.client.ask("192.0.2.1:30080")));
}

#[test]
fn a_client_keeps_its_endpoint() {
    let (lab, api) = (Lab::new(), FakeApi::new());
    apply(&api, &web_on(&["10.42.0.5@n1", "10.42.0.6@n1"], json!({"sessionAffinity": "ClientIP"})));
    let _proxy = lab.start(&api);
    let first = lab.client.ask("192.0.2.1:30080").unwrap();
    for _ in 0..20 {
        assert_eq!(lab.client.ask("192.0.2.1:30080").unwrap(), first);
    }
    // When its endpoint goes, it gets the other.
    let gone = if first.starts_with("one") { "10.42.0.6@n1" } else { "10.42.0.5@n1" };
    apply(&api, &[slice("web", TARGET, &[gone])]);
    eventually("the other answers", || {
        lab.client.ask("192.0.2.1:30080").unwrap()[..3] != first[..3]
    });
}

#[test]
fn udp_flows_move_to_new_endpoints() {
    let (lab, api) = (Lab::new(), FakeApi::new());
    let ports = json!([{"name": "q", "protocol": "UDP", "port": 53, "nodePort": 30053}]);
    let target = ("q", "UDP", 8080);
    apply(
        &api,
        &[service("dns", json!({"type": "NodePort", "clusterIP": "10.43.0.53", "ports": ports}))],
    );
    let _proxy = lab.start(&api);
    // These sockets keep their ports throughout: to connection tracking each is one flow.
    let pod = lab.two.udp("10.43.0.53:53");
    let client = lab.client.udp("192.0.2.1:30053");
    assert!(ask_udp(&pod).is_err() && ask_udp(&client).is_err(), "nobody serves yet");
    apply(&api, &[slice("dns", target, &["10.42.0.5@n1"])]);
    eventually("the pod is answered", || {
        ask_udp(&pod).is_ok_and(|answer| answer == "one 10.42.0.6")
    });
    eventually("the client is answered", || ask_udp(&client).is_ok_and(|a| a.starts_with("one")));
    apply(&api, &[slice("dns", target, &["10.42.0.6@n1"])]);
    eventually("the client has moved", || ask_udp(&client).is_ok_and(|a| a.starts_with("two")));
    eventually("the pod has moved", || ask_udp(&pod).is_ok_and(|answer| answer.starts_with("two")));
    api.remove(&SERVICES, "shop", "dns");
    eventually("the client is let go", || ask_udp(&client).is_err());
}

#[test]
fn rules_that_others_flush_come_back() {
    let (lab, api) = (Lab::new(), FakeApi::new());
    apply(&api, &web_on(&["10.42.0.5@n1"], json!({})));
    let _proxy = lab.start(&api);
    let rules = lab.rules();
    for damage in [
        "iptables -t nat -F",
        "iptables -F",
        "iptables -t nat -F SKIFF-SERVICES",
        "iptables -t nat -D OUTPUT -m comment --comment skiffxservices -j SKIFF-SERVICES",
        "nft flush ruleset",
        "nft delete table ip nat",
    ] {
        // A comment with a blank cannot be given as one word of a line.
        let words: Vec<String> =
            damage.split(' ').map(|word| word.replace("skiffx", "skiff ")).collect();
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", &lab.node.name]).args(&words);
        assert!(command.status().unwrap().success(), "{damage}");
        eventually(&format!("whole again after {damage}"), || lab.rules() == rules);
        assert!(lab.client.ask("192.0.2.1:30080").is_ok());
    }
}

#[test]
fn a_restart_replaces_what_the_last_run_left() {
    let (lab, api) = (Lab::new(), FakeApi::new());
    apply(&api, &web_on(&["10.42.0.5@n1"], json!({})));
    lab.start(&api).stop();
    assert!(lab.client.ask("192.0.2.1:30080").is_ok(), "rules stay when the proxy stops");
    let left = lab.rules();
    apply(&api, &[service("other", json!({"clusterIP": "10.43.0.11", "ports": [{"port": 80}]}))]);
    api.remove(&SERVICES, "shop", "web");
    let proxy = lab.start(&api);
    assert!(!lab.rules().contains("shop/web") && lab.rules().contains("shop/other"));
    api.remove(&SERVICES, "shop", "other");
    apply(&api, &web_on(&["10.42.0.5@n1"], json!({})));
    eventually("as it was", || lab.rules() == left);
    proxy.stop();
}

#[test]
fn nothing_is_written_before_everything_is_known() {
    let (lab, api) = (Lab::new(), FakeApi::new());
    apply(&api, &web_on(&["10.42.0.5@n1"], json!({})));
    api.hold(Some(&ENDPOINT_SLICES));
    let (_proxy, ready) = lab.launch(&api);
    assert!(ready.recv_timeout(Duration::from_millis(500)).is_err());
    assert!(!lab.rules().contains("SKIFF"));
    api.hold(None);
    ready.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(lab.two.ask("10.43.0.10:80").unwrap(), "one 10.42.0.6");
}

#[test]
fn cleanup_leaves_what_others_wrote_and_nothing_else() {
    let (lab, api) = (Lab::new(), FakeApi::new());
    // Made once, so that the tables with their own chains are there before and after.
    lab.node.run("iptables -t nat -N KUBE-SERVICES");
    lab.node.run("iptables -t nat -A PREROUTING -j KUBE-SERVICES");
    lab.node.run("iptables -N SKIFF-MASQ-0A1B2C3D");
    let before = lab.rules();
    apply(&api, &web_on(&["10.42.0.5@n1", "10.42.0.6@n1"], json!({"sessionAffinity": "ClientIP"})));
    lab.start(&api).stop();
    assert_ne!(lab.rules(), before);
    let clean = || lab.node.within(|| skiff_proxy::cleanup().map_err(io::Error::other)).unwrap();
    assert!(clean());
    assert_eq!(lab.rules(), before);
    assert!(!clean(), "a second time there is nothing to do");
    assert!(!lab.node.run("ip6tables-save").contains("SKIFF"));
}

#[test]
fn own_transactions_pass_unheard() {
    let lab = Lab::new();
    let text = "*nat\n:SKIFF-SERVICES - [0:0]\n-A SKIFF-SERVICES -j RETURN\nCOMMIT\n";
    lab.node
        .within(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut monitor = Monitor::open()?;
                for _ in 0..3 {
                    exec::restore(Family::Ipv4, text).map_err(io::Error::other)?;
                }
                let heard =
                    tokio::time::timeout(Duration::from_millis(300), monitor.disturbed()).await;
                assert!(heard.is_err(), "our own restore was taken for somebody else's");
                let flush = ["-t", "nat", "-F", "SKIFF-SERVICES"];
                assert!(std::process::Command::new("iptables").args(flush).status()?.success());
                tokio::time::timeout(Duration::from_secs(30), monitor.disturbed()).await?
            })
        })
        .unwrap();
}

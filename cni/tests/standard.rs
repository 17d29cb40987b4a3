//! Beside the plugins of Debian's containernetworking-plugins: same shape of result, and in one chain with them.

#![allow(clippy::unwrap_used)]

mod lab;

use lab::{Lab, Space, address};
use serde_json::{Value, json};

const DEBIAN: &str = "/usr/lib/cni";

fn debian(plugin: &str) -> String {
    let path = format!("{DEBIAN}/{plugin}");
    assert!(
        std::path::Path::new(&path).exists(),
        "{path} is missing: install containernetworking-plugins"
    );
    path
}

/// What may differ between two plugins, made equal: hardware addresses, the random name of the host end, paths.
fn masked(mut result: Value) -> Value {
    for interface in result["interfaces"].as_array_mut().unwrap() {
        interface["mac"] = json!(interface["mac"].as_str().unwrap().len());
        if interface["name"].as_str().unwrap().starts_with("veth") {
            interface["name"] = json!(["veth", interface["name"].as_str().unwrap().len()]);
        }
        if interface.get("sandbox").is_some() {
            interface["sandbox"] = json!("path");
        }
    }
    result
}

#[test]
fn the_result_is_shaped_as_debians_bridge_shapes_it() {
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        for routes in [
            json!([]),
            json!([{"dst": "10.42.0.0/16"}, {"dst": "10.43.0.0/16", "gw": "10.99.0.9"}]),
        ] {
            let results: Vec<Value> = ["", &debian("bridge")]
                .iter()
                .map(|plugin| {
                    let (lab, one) = (Lab::new(), Space::new("c1"));
                    let mut conf = lab.conf("10.99.0.0/24");
                    conf["cniVersion"] = json!(version);
                    conf["ipam"]["routes"] = routes.clone();
                    conf["dns"] =
                        json!({"nameservers": ["10.43.0.10"], "search": ["svc.cluster.local"]});
                    let plugin =
                        if plugin.is_empty() { env!("CARGO_BIN_EXE_skiff-bridge") } else { plugin };
                    masked(lab.call_plugin(plugin, "ADD", "c1", &one.path(), &conf).unwrap())
                })
                .collect();
            assert_eq!(results[0], results[1], "version {version}");
        }
    }
}

#[test]
fn leases_of_debians_host_local_are_respected() {
    let (lab, one, two) = (Lab::new(), Space::new("c1"), Space::new("c2"));
    let conf = lab.conf("10.99.0.0/24");
    lab.call_plugin(&debian("bridge"), "ADD", "c1", &one.path(), &conf).unwrap();
    assert_eq!(address(&lab.add(&two, &conf)), "10.99.0.3");
    // And theirs respects ours.
    let three = Space::new("c3");
    let third = lab.call_plugin(&debian("bridge"), "ADD", "c3", &three.path(), &conf).unwrap();
    assert_eq!(address(&third), "10.99.0.4");
}

#[test]
fn in_a_chain_with_loopback_and_portmap() {
    let (lab, one, outside) = (Lab::new(), Space::new("c1"), Space::new("out"));
    lab.host.run(
        "ip",
        &["link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", &outside.name],
    );
    lab.host.run("ip", &["addr", "add", "192.0.2.1/24", "dev", "up0"]);
    lab.host.run("ip", &["link", "set", "up0", "up"]);
    outside.run("ip", &["addr", "add", "192.0.2.2/24", "dev", "eth0"]);
    outside.run("ip", &["link", "set", "eth0", "up"]);

    let conf = lab.conf("10.99.0.0/24");
    let loopback = json!({"cniVersion": "1.0.0", "name": "lo", "type": "loopback"});
    lab.call_plugin(&debian("loopback"), "ADD", "c1", &one.path(), &loopback).unwrap();
    let result = lab.add(&one, &conf);
    let portmap = json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "portmap", "snat": true, "prevResult": result,
        "runtimeConfig": {"portMappings": [{"hostPort": 8081, "containerPort": 8080, "protocol": "tcp"}]}
    });
    let chained =
        lab.call_plugin(&debian("portmap"), "ADD", &one.name, &one.path(), &portmap).unwrap();
    assert_eq!(chained, result, "portmap hands our result on");
    one.echo_peer(8080);
    assert_eq!(outside.ask("192.0.2.1:8081").unwrap(), "192.0.2.2");
    let mut check = conf.clone();
    check["prevResult"] = chained;
    lab.call("CHECK", &one.name, &one.path(), &check).unwrap();
    lab.call_plugin(&debian("portmap"), "DEL", &one.name, &one.path(), &portmap).unwrap();
    lab.del(&one, &conf);
    assert!(lab.leases().is_empty());
}

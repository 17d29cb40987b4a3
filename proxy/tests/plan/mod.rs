//! The fixed address plan of the tests, and Services and EndpointSlices on it.
//!
//! Pods have 10.42.0.0/16: 10.42.0.x on this node (`n1`, 192.0.2.1), 10.42.1.x on the other. Services have
//! 10.43.0.0/16. Clients outside have 203.0.113.0/24.

#![allow(dead_code, clippy::unwrap_used)]

use std::sync::Arc;

use serde_json::{Value, json};
use skiff_proto::ObjectKey;
use skiff_proxy::iptables::render::{Rendered, render};
use skiff_proxy::iptables::{Family, Settings};
use skiff_proxy::model::{Protocol, ServiceInfo, SliceInfo};
use skiff_proxy::table::{Retired, Table};
use skiff_proxy::tracer::{Fate, Node, Outcome, Packet, trace};
use skiff_proxy::tracker::Changes;

pub fn settings() -> Settings {
    Settings {
        family: Family::Ipv4,
        cluster_cidr: "10.42.0.0/16".into(),
        node_port_cidrs: Vec::new(),
        localhost_node_ports: true,
    }
}

/// A Service `shop/NAME` as its manifest has it.
pub fn service(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"}, "spec": spec
    })
}

/// An EndpointSlice of `shop/NAME`: one port, and endpoints as `ADDRESS[@NODE][!STATE]`.
pub fn slice(name: &str, port: (&str, &str, u16), endpoints: &[&str]) -> Value {
    let endpoints: Vec<Value> = endpoints.iter().map(|text| endpoint(text)).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{name}-x"), "namespace": "shop", "labels": {"kubernetes.io/service-name": name}
        },
        "addressType": "IPv4",
        "ports": [{"name": port.0, "protocol": port.1, "port": port.2}],
        "endpoints": endpoints
    })
}

fn endpoint(text: &str) -> Value {
    let (text, state) = text.split_once('!').unwrap_or((text, "ready"));
    let (address, node) = text.split_once('@').unwrap_or((text, ""));
    let conditions = match state {
        "ready" => json!({"ready": true, "serving": true, "terminating": false}),
        "draining" => json!({"ready": false, "serving": true, "terminating": true}),
        "unready" => json!({"ready": false, "serving": false, "terminating": false}),
        other => panic!("state {other}"),
    };
    let node = if node.is_empty() { Value::Null } else { json!(node) };
    json!({"addresses": [address], "conditions": conditions, "nodeName": node})
}

/// Applies objects to a table; a null spec removes a Service.
pub fn apply(table: &mut Table, objects: &[Value]) -> Retired {
    let mut changes = Changes::default();
    for object in objects {
        let key = ObjectKey::new(
            object["metadata"]["namespace"].as_str().unwrap(),
            object["metadata"]["name"].as_str().unwrap(),
        );
        if object["kind"] == "Service" {
            let gone = object["spec"].is_null();
            let info = (!gone)
                .then(|| ServiceInfo::read(&serde_json::from_value(object.clone()).unwrap()));
            changes.services.push((key, info.map(Arc::new)));
        } else {
            let info = SliceInfo::read(&serde_json::from_value(object.clone()).unwrap());
            changes.slices.push((key, Some(Arc::new(info))));
        }
    }
    table.apply(changes)
}

pub fn table(objects: &[Value]) -> Table {
    let mut table = Table::new("n1");
    apply(&mut table, objects);
    table
}

/// A Service `shop/web`, port 80 to 8080, and three endpoints, one on this node.
pub fn web(spec: Value) -> Vec<Value> {
    let mut whole = json!({
        "type": "NodePort", "clusterIP": "10.43.0.10",
        "ports": [{"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080}]
    });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    vec![
        service("web", whole),
        slice("web", ("http", "TCP", 8080), &["10.42.0.5@n1", "10.42.1.6@n2", "10.42.1.7@n2"]),
    ]
}

pub fn rendered(objects: &[Value]) -> Rendered {
    render(&table(objects), &settings())
}

pub fn node() -> Node {
    Node { addresses: vec!["192.0.2.1".parse().unwrap()], ..Node::default() }
}

/// Sends the first packet of a TCP connection.
pub fn send(rendered: &Rendered, source: &str, destination: &str) -> Vec<Outcome> {
    let source = source.parse().unwrap();
    let packet = Packet {
        source,
        destination: destination.parse().unwrap(),
        protocol: Protocol::Tcp,
        from_node: node().addresses.contains(&source) || source.is_loopback(),
    };
    trace(rendered, &packet, &node()).unwrap()
}

/// Outcomes as text: `1/3 10.42.0.5:8080 masqueraded`.
pub fn story(outcomes: &[Outcome]) -> Vec<String> {
    let line = |outcome: &Outcome| {
        let share = format!("1/{:.0}", 1.0 / outcome.probability);
        match outcome.fate {
            Fate::Endpoint { target, masqueraded: true } => format!("{share} {target} masqueraded"),
            Fate::Endpoint { target, masqueraded: false } => format!("{share} {target}"),
            Fate::Untouched { masqueraded: true } => format!("{share} untouched masqueraded"),
            Fate::Untouched { masqueraded: false } => format!("{share} untouched"),
            Fate::Rejected => format!("{share} rejected"),
            Fate::Dropped => format!("{share} dropped"),
        }
    };
    outcomes.iter().map(line).collect()
}

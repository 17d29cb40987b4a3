//! Host ports against the real kernel: who reaches a container by a port of the node, what is left when it goes, and
//! what comes back after somebody's flush. Needs root, iptables and iproute2.

#![allow(clippy::unwrap_used)]

mod lab;

use lab::{Lab, Space};
use serde_json::{Value, json};

/// A lab with a neighbour on the wire: the node is 192.0.2.1, the neighbour 192.0.2.2.
fn wired() -> (Lab, Space) {
    let (lab, outside) = (Lab::new(), Space::new("out"));
    lab.host.run(
        "ip",
        &["link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", &outside.name],
    );
    lab.host.run("ip", &["addr", "add", "192.0.2.1/24", "dev", "up0"]);
    lab.host.run("ip", &["link", "set", "up0", "up"]);
    outside.run("ip", &["addr", "add", "192.0.2.2/24", "dev", "eth0"]);
    outside.run("ip", &["link", "set", "eth0", "up"]);
    (lab, outside)
}

fn mapping(conf: &Value, host_port: u16, host_ip: &str) -> Value {
    let mut conf = conf.clone();
    conf["runtimeConfig"] = json!({"portMappings": [
        {"hostPort": host_port, "containerPort": 8080, "protocol": "tcp", "hostIP": host_ip}]});
    conf
}

fn rules(lab: &Lab) -> String {
    lab.host.run("iptables-save", &["-t", "nat"])
}

#[test]
fn a_port_of_the_node_leads_to_the_container() {
    let (lab, outside) = wired();
    let conf = lab.conf("10.99.0.0/24");
    let (one, two) = (Space::new("c1"), Space::new("c2"));
    let mapped = mapping(&conf, 8081, "");
    let result = lab.add(&one, &mapped);
    lab.add(&two, &conf);
    one.echo_peer(8080);
    assert_eq!(outside.ask("192.0.2.1:8081").unwrap(), "192.0.2.2", "the source is kept");
    assert_eq!(lab.host.ask("192.0.2.1:8081").unwrap(), "192.0.2.1", "from the node itself");
    assert_eq!(two.ask("192.0.2.1:8081").unwrap(), "10.99.0.1", "from another pod");
    assert_eq!(one.ask("192.0.2.1:8081").unwrap(), "10.99.0.1", "from the pod itself");
    // What does not come by the port of the node is left as it is.
    assert_eq!(two.ask("10.99.0.2:8080").unwrap(), "10.99.0.3");

    let mut check = mapped.clone();
    check["prevResult"] = result;
    lab.call("CHECK", &one.name, &one.path(), &check).unwrap();
    lab.host.run("iptables", &["-t", "nat", "-F"]);
    let error = lab.call("CHECK", &one.name, &one.path(), &check).unwrap_err();
    assert!(error["details"].as_str().unwrap().contains("host ports"), "{error}");
    assert!(outside.ask("192.0.2.1:8081").is_err());
    let repaired = lab.host.within(|| Ok(skiff_cni::repair_rules(&conf).unwrap())).unwrap();
    assert!(repaired);
    assert_eq!(outside.ask("192.0.2.1:8081").unwrap(), "192.0.2.2", "repaired");
    assert!(!lab.host.within(|| Ok(skiff_cni::repair_rules(&conf).unwrap())).unwrap());

    lab.del(&one, &mapped);
    lab.del(&one, &conf);
    assert!(!rules(&lab).contains("SKIFF-H"), "the last one takes the chains with it");
    assert!(outside.ask("192.0.2.1:8081").is_err());
}

#[test]
fn each_has_its_own_ports_and_addresses() {
    let (lab, outside) = wired();
    lab.host.run("ip", &["addr", "add", "192.0.2.9/24", "dev", "up0"]);
    let conf = lab.conf("10.99.0.0/24");
    let (one, two) = (Space::new("c1"), Space::new("c2"));
    lab.add(&one, &mapping(&conf, 8081, "192.0.2.9"));
    lab.add(&two, &mapping(&conf, 8082, "0.0.0.0"));
    one.echo_peer(8080);
    two.echo_peer(8080);
    assert!(outside.ask("192.0.2.9:8081").is_ok());
    assert!(outside.ask("192.0.2.1:8081").is_err(), "only on the address that was asked for");
    assert!(outside.ask("192.0.2.1:8082").is_ok());
    // A runtime that crashed forgets one: GC takes its port away, and leaves the other's.
    let mut gc = conf.clone();
    gc["cniVersion"] = json!("1.1.0");
    gc["cni.dev/valid-attachments"] = json!([{"containerID": two.name, "ifname": "eth0"}]);
    lab.call("GC", "", "", &gc).unwrap();
    assert!(!rules(&lab).contains("--dport 8081") && rules(&lab).contains("--dport 8082"));
    assert!(outside.ask("192.0.2.1:8082").is_ok());
    let removed = lab
        .host
        .within(|| Ok(skiff_cni::remove_network("pods", "cni0", &lab.data_dir()).unwrap()))
        .unwrap();
    assert!(removed.host_ports);
    assert!(!rules(&lab).contains("SKIFF-H"));
}

#[test]
fn datagrams_too() {
    let (lab, outside) = wired();
    let one = Space::new("c1");
    let mut conf = mapping(&lab.conf("10.99.0.0/24"), 5300, "");
    conf["runtimeConfig"]["portMappings"][0]["protocol"] = json!("udp");
    lab.add(&one, &conf);
    let server = one.within(|| std::net::UdpSocket::bind("0.0.0.0:8080")).unwrap();
    server.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    let client = outside.within(|| std::net::UdpSocket::bind("0.0.0.0:0")).unwrap();
    client.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    client.send_to(b"ask", "192.0.2.1:5300").unwrap();
    let mut buffer = [0; 16];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    server.send_to(b"answer", from).unwrap();
    assert_eq!(&buffer[..length], b"ask");
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.to_string().as_str()), (&b"answer"[..], "192.0.2.1:5300"));
}

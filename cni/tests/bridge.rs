//! The plugin against the real kernel, each test in network namespaces of its own. Needs root and iproute2.

#![allow(clippy::unwrap_used)]

mod lab;

use std::path::Path;

use lab::{Lab, Space, address};
use serde_json::{Value, json};

#[test]
fn two_containers_talk_and_leave_nothing() {
    let lab = Lab::new();
    let conf = lab.conf("10.99.0.0/24");
    let before = lab.host.links();
    let (one, two) = (Space::new("c1"), Space::new("C2"));
    let (first, second) = (lab.add(&one, &conf), lab.add(&two, &conf));
    assert_eq!(
        first["ips"][0],
        json!({"address": "10.99.0.2/24", "gateway": "10.99.0.1", "interface": 2})
    );
    assert_eq!(address(&second), "10.99.0.3");

    assert!(
        one.succeeds("busybox", &["ping", "-c", "1", "-W", "5", "10.99.0.3"]),
        "ping between containers"
    );
    assert!(
        one.succeeds("busybox", &["ping", "-c", "1", "-W", "5", "10.99.0.1"]),
        "ping the gateway"
    );
    two.echo_peer(8080);
    assert_eq!(one.ask("10.99.0.3:8080").unwrap(), "10.99.0.2");
    assert_eq!(lab.host.ask("10.99.0.3:8080").unwrap(), "10.99.0.1");
    assert_eq!(two.ask("127.0.0.1:8080").unwrap(), "127.0.0.1", "the loopback is up");
    assert!(lab.host.run("bridge", &["-d", "link", "show"]).matches("hairpin on").count() == 2);
    assert_eq!(lab.host.run("cat", &["/proc/sys/net/ipv4/ip_forward"]).trim(), "1");

    for (container, result) in [(&one, &first), (&two, &second)] {
        let mut with_result = conf.clone();
        with_result["prevResult"] = result.clone();
        lab.call("CHECK", &container.name, &container.path(), &with_result).unwrap();
        lab.del(container, &conf);
        lab.del(container, &conf);
    }
    assert_eq!(one.links(), ["lo"]);
    assert!(lab.leases().is_empty());
    lab.host
        .within(|| Ok(skiff_cni::remove_network("pods", "cni0", &lab.data_dir()).unwrap()))
        .unwrap();
    assert_eq!(lab.host.links(), before);
    assert!(!lab.data_dir().join("pods").exists());
}

#[test]
fn a_container_reaches_itself_through_the_host() {
    let lab = Lab::new();
    let conf = lab.conf("10.99.0.0/24");
    let one = Space::new("c1");
    lab.add(&one, &conf);
    one.echo_peer(8080);
    let dnat = [
        "-t",
        "nat",
        "-A",
        "PREROUTING",
        "-d",
        "10.88.0.1",
        "-p",
        "tcp",
        "-j",
        "DNAT",
        "--to-destination",
        "10.99.0.2:8080",
    ];
    lab.host.run("iptables", &dnat);
    lab.host.run(
        "iptables",
        &[
            "-t",
            "nat",
            "-A",
            "POSTROUTING",
            "-s",
            "10.99.0.2",
            "-d",
            "10.99.0.2",
            "-j",
            "MASQUERADE",
        ],
    );
    assert_eq!(one.ask("10.88.0.1:80").unwrap(), "10.99.0.1");
}

#[test]
fn parallel_adds_get_distinct_addresses() {
    let lab = Lab::new();
    let mut conf = lab.conf("10.99.0.0/24");
    conf["ipMasq"] = json!(true);
    let containers: Vec<Space> = (0..12).map(|number| Space::new(&format!("p{number}"))).collect();
    let mut addresses: Vec<String> = std::thread::scope(|scope| {
        let adds: Vec<_> =
            containers.iter().map(|c| scope.spawn(|| address(&lab.add(c, &conf)))).collect();
        adds.into_iter().map(|add| add.join().unwrap()).collect()
    });
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), containers.len());
    let rules = lab.host.run("iptables", &["-t", "nat", "-S", "POSTROUTING"]);
    assert_eq!(
        rules.matches("SKIFF-MASQ-").count(),
        1,
        "one jump, however many adds at once:\n{rules}"
    );
    assert!(containers[0].succeeds("busybox", &["ping", "-c", "1", "-W", "5", &addresses[5]]));
}

#[test]
fn an_exhausted_range_says_so_and_leaves_nothing() {
    let lab = Lab::new();
    let conf = lab.conf("10.99.0.0/30");
    let (one, two) = (Space::new("c1"), Space::new("c2"));
    lab.add(&one, &conf);
    let links = lab.host.links();
    let error = lab.call("ADD", &two.name, &two.path(), &conf).unwrap_err();
    assert_eq!(error["code"], json!(11));
    assert!(error["details"].as_str().unwrap().contains("10.99.0.1-10.99.0.2"), "{error}");
    assert_eq!(lab.host.links(), links);
    lab.del(&one, &conf);
    assert_eq!(address(&lab.add(&two, &conf)), "10.99.0.2");
}

#[test]
fn a_failed_add_is_undone() {
    let lab = Lab::new();
    let mut conf = lab.conf("10.99.0.0/24");
    conf["ipam"]["routes"] = json!([{"dst": "10.7.0.0/16", "gw": "192.0.2.1"}]);
    let one = Space::new("c1");
    let error = lab.call("ADD", &one.name, &one.path(), &conf).unwrap_err();
    assert_eq!(error["code"], json!(100));
    assert!(
        error["details"].as_str().unwrap().contains("add route 10.7.0.0/16 through eth0"),
        "{error}"
    );
    assert_eq!(one.links(), ["lo"]);
    assert!(lab.leases().is_empty());
    assert!(!lab.host.links().iter().any(|link| link.starts_with("veth")));
}

#[test]
fn what_is_in_the_way_is_named() {
    let lab = Lab::new();
    let conf = lab.conf("10.99.0.0/24");
    let (one, two) = (Space::new("c1"), Space::new("c2"));
    lab.add(&one, &conf);
    let again = lab.call("ADD", &one.name, &one.path(), &conf).unwrap_err();
    assert_eq!(again["code"], json!(101), "{again}");
    assert_eq!(one.links(), ["lo", "eth0"], "the first ADD's interface stays");
    assert_eq!(lab.leases(), ["10.99.0.2"]);

    let mut other = lab.conf("10.77.0.0/24");
    other["name"] = json!("others");
    let address = lab.call("ADD", &two.name, &two.path(), &other).unwrap_err();
    assert!(address["details"].as_str().unwrap().contains("10.99.0.1/24 already"), "{address}");
    lab.host.run("ip", &["link", "add", "nobridge", "type", "veth", "peer", "name", "nb2"]);
    other["bridge"] = json!("nobridge");
    let kind = lab.call("ADD", &two.name, &two.path(), &other).unwrap_err();
    assert!(kind["details"].as_str().unwrap().contains("no bridge"), "{kind}");
    let own = lab.call("ADD", "c3", &lab.host.path(), &conf).unwrap_err();
    assert_eq!(own["code"], json!(4), "{own}");
}

#[test]
fn del_without_namespace_frees_everything() {
    let lab = Lab::new();
    let conf = lab.conf("10.99.0.0/24");
    let one = Space::new("c1");
    lab.add(&one, &conf);
    let name = one.name.clone();
    drop(one);
    lab.call("DEL", &name, "", &conf).unwrap();
    lab.call("DEL", &name, "/var/run/netns/never-was", &conf).unwrap();
    assert!(lab.leases().is_empty());
    assert!(!lab.host.links().iter().any(|link| link.starts_with("veth")));
}

#[test]
fn a_pair_left_by_a_killed_add_is_replaced() {
    let lab = Lab::new();
    let conf = lab.conf("10.99.0.0/24");
    let one = Space::new("c1");
    let veth = skiff_cni::names::host_veth("pods", &one.name, "eth0");
    lab.host.run("ip", &["link", "add", &veth, "type", "veth", "peer", "name", "lost"]);
    assert_eq!(address(&lab.add(&one, &conf)), "10.99.0.2");
    assert!(!lab.host.links().contains(&"lost".to_owned()));
}

#[test]
fn check_sees_every_damage() {
    let lab = Lab::new();
    let mut conf = lab.conf("10.99.0.0/24");
    conf["ipMasq"] = json!(true);
    let damages: [(&str, &[&str], &str); 7] = [
        (
            "container",
            &["ip", "addr", "del", "10.99.0.2/24", "dev", "eth0"],
            "lacks address 10.99.0.2/24",
        ),
        (
            "container",
            &["ip", "route", "del", "default"],
            "the route to 0.0.0.0/0 through 10.99.0.1 is missing",
        ),
        ("host", &["ip", "link", "set", "VETH", "nomaster"], "is no port of bridge cni0"),
        ("host", &["ip", "link", "set", "VETH", "down"], "is down"),
        ("host", &["ip", "addr", "flush", "dev", "cni0"], "lacks the gateway address 10.99.0.1/24"),
        ("host", &["iptables", "-t", "nat", "-F", "POSTROUTING"], "masquerade rules are missing"),
        ("host", &["iptables", "-t", "nat", "-F", "CHAIN"], "masquerade rules are missing"),
    ];
    for (place, damage, expect) in damages {
        let one = Space::new("c1");
        let mut with_result = conf.clone();
        with_result["prevResult"] = lab.add(&one, &conf);
        // The next container gets the first address again: the damages above name it.
        let _ = std::fs::remove_file(lab.data_dir().join("pods/last_reserved_ip.0"));
        lab.call("CHECK", &one.name, &one.path(), &with_result).unwrap();
        let veth = skiff_cni::names::host_veth("pods", &one.name, "eth0");
        let chain = skiff_cni::names::masquerade_chain("pods");
        let named = |word: &&'static str| match *word {
            "VETH" => veth.clone(),
            "CHAIN" => chain.clone(),
            word => word.to_owned(),
        };
        let damage: Vec<String> = damage.iter().map(named).collect();
        let damage: Vec<&str> = damage.iter().map(String::as_str).collect();
        let space = if place == "host" { &lab.host } else { &one };
        space.run(damage[0], &damage[1..]);
        let error = lab.call("CHECK", &one.name, &one.path(), &with_result).unwrap_err();
        assert_eq!(error["code"], json!(103));
        assert!(error["details"].as_str().unwrap().contains(expect), "{damage:?}: {error}");
        lab.del(&one, &conf);
    }
}

#[test]
fn traffic_that_leaves_the_cluster_is_masqueraded() {
    let lab = Lab::new();
    let outside = Space::new("out");
    lab.host.run(
        "ip",
        &["link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", &outside.name],
    );
    lab.host.run("ip", &["addr", "add", "192.0.2.1/24", "dev", "up0"]);
    lab.host.run("ip", &["link", "set", "up0", "up"]);
    outside.run("ip", &["addr", "add", "192.0.2.2/24", "dev", "eth0"]);
    outside.run("ip", &["addr", "add", "198.51.100.1/32", "dev", "eth0"]);
    outside.run("ip", &["link", "set", "eth0", "up"]);
    outside.run("ip", &["route", "add", "10.99.0.0/24", "via", "192.0.2.1"]);
    lab.host.run("ip", &["route", "add", "198.51.100.0/24", "via", "192.0.2.2"]);
    outside.echo_peer(8080);
    let mut conf = lab.conf("10.99.0.0/24");
    conf["ipMasq"] = json!(true);
    conf["nonMasqueradeCIDRs"] = json!(["198.51.100.0/24"]);
    let one = Space::new("c1");
    lab.add(&one, &conf);
    assert_eq!(one.ask("192.0.2.2:8080").unwrap(), "192.0.2.1");
    assert_eq!(
        one.ask("198.51.100.1:8080").unwrap(),
        "10.99.0.2",
        "inside the cluster the pod shows itself"
    );

    // A changed configuration replaces the rules instead of adding to them.
    let two = Space::new("c2");
    conf["nonMasqueradeCIDRs"] = json!([]);
    lab.add(&two, &conf);
    assert_eq!(two.ask("198.51.100.1:8080").unwrap(), "192.0.2.1");
    let rules = lab.host.run("iptables", &["-t", "nat", "-S", "POSTROUTING"]);
    assert_eq!(rules.matches("SKIFF-MASQ-").count(), 1, "{rules}");
    let removed = lab
        .host
        .within(|| Ok(skiff_cni::remove_network("pods", "cni0", &lab.data_dir()).unwrap()))
        .unwrap();
    assert!(
        removed.bridge
            && removed.masquerade
            && removed.host_links.len() == 2
            && removed.leases == 2
    );
    let again = lab
        .host
        .within(|| Ok(skiff_cni::remove_network("pods", "cni0", &lab.data_dir()).unwrap()))
        .unwrap();
    assert_eq!(again, skiff_cni::Removed::default());
    assert!(!lab.host.run("iptables-save", &[]).contains("SKIFF"));
}

#[test]
fn gc_frees_what_the_runtime_does_not_know() {
    let lab = Lab::new();
    let mut conf = lab.conf("10.99.0.0/24");
    conf["cniVersion"] = json!("1.1.0");
    let (one, two) = (Space::new("c1"), Space::new("c2"));
    lab.add(&one, &conf);
    lab.add(&two, &conf);
    lab.call("STATUS", "", "", &conf).unwrap();
    conf["cni.dev/valid-attachments"] = json!([{"containerID": two.name, "ifname": "eth0"}]);
    lab.call("GC", "", "", &conf).unwrap();
    assert_eq!(lab.leases(), ["10.99.0.3"]);
    assert_eq!(one.links(), ["lo"]);
    assert_eq!(two.links(), ["lo", "eth0"]);
}

#[test]
fn bad_calls_by_code() {
    let lab = Lab::new();
    let one = Space::new("c1");
    let good = lab.conf("10.99.0.0/24");
    let code = |command: &str, container: &str, netns: &str, change: &dyn Fn(&mut Value)| {
        let mut conf = good.clone();
        change(&mut conf);
        lab.call(command, container, netns, &conf).unwrap_err()["code"].as_i64().unwrap()
    };
    let path = one.path();
    assert_eq!(code("ADD", &one.name, &path, &|conf| conf["cniVersion"] = json!("0.2.0")), 1);
    assert_eq!(code("ADD", &one.name, &path, &|conf| conf["promiscMode"] = json!(true)), 2);
    assert_eq!(code("ADD", "", &path, &|_| ()), 4);
    assert_eq!(code("ADD", &one.name, "", &|_| ()), 4);
    assert_eq!(code("JOIN", &one.name, &path, &|_| ()), 4);
    assert_eq!(code("ADD", &one.name, "/var/run/netns/never-was", &|_| ()), 5);
    assert_eq!(code("ADD", &one.name, &path, &|conf| *conf = json!("text")), 1);
    assert_eq!(code("ADD", &one.name, &path, &|conf| conf["ipam"]["ranges"] = json!([])), 7);
    assert_eq!(code("ADD", &one.name, &path, &|conf| conf["ipam"]["type"] = json!("dhcp")), 7);
    assert_eq!(code("CHECK", &one.name, &path, &|_| ()), 7);
    assert!(lab.leases().is_empty());
}

#[test]
fn ipv6_beside_ipv4() {
    let lab = Lab::new();
    if !Path::new("/proc/sys/net/ipv6").exists() {
        panic!("this kernel has no IPv6; the test needs it");
    }
    let mut conf = lab.conf("10.99.0.0/24");
    conf["ipam"]["ranges"] = json!([[{"subnet": "10.99.0.0/24"}], [{"subnet": "fd99::/64"}]]);
    let (one, two) = (Space::new("c1"), Space::new("c2"));
    lab.add(&one, &conf);
    let second = lab.add(&two, &conf);
    assert_eq!(second["ips"][1]["address"], json!("fd99::3/64"));
    assert_eq!(second["routes"][1], json!({"dst": "::/0", "gw": "fd99::1"}));
    assert!(one.succeeds("busybox", &["ping", "-6", "-c", "1", "-W", "5", "fd99::3"]));
}

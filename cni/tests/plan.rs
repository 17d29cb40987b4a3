//! Golden plans: exactly which steps follow from a configuration and what is there. No root, no kernel.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use skiff_cni::addr::Cidr;
use skiff_cni::conf::BridgeConf;
use skiff_cni::ipam::lease::Lease;
use skiff_cni::ipam::range::Range;
use skiff_cni::names;
use skiff_cni::plan::{Attachment, Link, LinkKind, Links, Operation, Space, plan};

fn conf(change: impl FnOnce(&mut Value)) -> BridgeConf {
    let mut value = json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "skiff-bridge", "isDefaultGateway": true,
        "ipam": {"type": "host-local", "subnet": "10.42.3.0/24"}
    });
    change(&mut value);
    BridgeConf::read(&serde_json::from_value(value).unwrap(), &[]).unwrap()
}

fn who() -> Attachment {
    Attachment { container: "c1".to_owned(), ifname: "eth0".to_owned() }
}

fn lease(address: &str, subnet: &str) -> Lease {
    let range = Range::new(subnet.parse().unwrap(), None, None, None).unwrap();
    Lease { address: address.parse().unwrap(), range }
}

fn bridge(addresses: &[&str]) -> Link {
    Link {
        index: 5,
        name: "cni0".to_owned(),
        kind: LinkKind::Bridge,
        mac: vec![2, 0, 0, 0, 0, 1],
        mtu: 1500,
        up: true,
        alias: None,
        controller: None,
        hairpin: None,
        peer: None,
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

/// One line a step, short enough to read as a story.
fn lines(operations: &[Operation]) -> Vec<String> {
    let show = |operation: &Operation| match operation {
        Operation::CreateBridge { name, mtu, .. } => format!("create bridge {name} mtu {mtu}"),
        Operation::SetSysctl { space, key, value } => format!("{} set {key}={value}", place(space)),
        Operation::DeleteHostLink { name } => format!("host delete {name}"),
        Operation::RemoveAddress { link, address } => format!("host remove {address} from {link}"),
        Operation::AddAddress { space, link, address } => {
            format!("{} add {address} to {link}", place(space))
        }
        Operation::SetUp { space, link } => format!("{} up {link}", place(space)),
        Operation::CreatePair { host, ifname, mtu, .. } => {
            format!("create pair {host} {ifname} mtu {mtu}")
        }
        Operation::AttachPort { link, alias, bridge, hairpin } => {
            format!("attach {link} ({alias}) to {bridge} hairpin {hairpin}")
        }
        Operation::AddRoute { link, dst, gateway } => {
            format!("route {dst} via {gateway:?} dev {link}")
        }
        Operation::EnsureMasquerade(_) => "masquerade".to_owned(),
    };
    let veth = names::host_veth("pods", "c1", "eth0");
    operations.iter().map(|operation| show(operation).replace(&veth, "VETH")).collect()
}

fn place(space: &Space) -> &'static str {
    match space {
        Space::Host => "host",
        Space::Container => "container",
    }
}

fn check(conf: &BridgeConf, leases: &[Lease], links: &Links, expect: &[&str]) {
    assert_eq!(lines(&plan(conf, &who(), leases, links).unwrap()), expect);
}

const CONTAINER: [&str; 6] = [
    "create pair VETH eth0 mtu 0",
    "attach VETH (skiff:pods/c1/eth0) to cni0 hairpin false",
    "container up lo",
    "container set net/ipv4/conf/eth0/arp_notify=1",
    "container add 10.42.3.7/24 to eth0",
    "container up eth0",
];

#[test]
fn the_first_container_makes_the_bridge() {
    let mut expect = vec![
        "create bridge cni0 mtu 0",
        "host add 10.42.3.1/24 to cni0",
        "host set net/ipv4/ip_forward=1",
        "host up cni0",
    ];
    expect.extend(CONTAINER);
    expect.push("route 0.0.0.0/0 via Some(10.42.3.1) dev eth0");
    check(&conf(|_| ()), &[lease("10.42.3.7", "10.42.3.0/24")], &Links::default(), &expect);
}

#[test]
fn later_containers_only_join() {
    let links = Links {
        bridge: Some(bridge(&["10.42.3.1/24"])),
        ipv4_forwarding: true,
        ..Links::default()
    };
    let mut expect = CONTAINER.to_vec();
    expect.push("route 0.0.0.0/0 via Some(10.42.3.1) dev eth0");
    expect.push("masquerade");
    let conf = conf(|value| value["ipMasq"] = json!(true));
    check(&conf, &[lease("10.42.3.7", "10.42.3.0/24")], &links, &expect);
}

#[test]
fn a_bridge_without_gateway_routes_only_what_is_configured() {
    let conf = conf(|value| {
        value["isDefaultGateway"] = json!(false);
        value["ipam"]["routes"] =
            json!([{"dst": "10.0.0.0/8", "gw": "10.42.3.9"}, {"dst": "10.9.0.0/16"}]);
    });
    let mut expect = CONTAINER.to_vec();
    expect.push("route 10.0.0.0/8 via Some(10.42.3.9) dev eth0");
    expect.push("route 10.9.0.0/16 via Some(10.42.3.1) dev eth0");
    let links = Links { bridge: Some(bridge(&[])), ..Links::default() };
    check(&conf, &[lease("10.42.3.7", "10.42.3.0/24")], &links, &expect);
}

#[test]
fn another_address_on_the_bridge_is_an_error_or_forced_away() {
    let links =
        Links { bridge: Some(bridge(&["10.7.0.1/24"])), ipv4_forwarding: true, ..Links::default() };
    let leases = [lease("10.42.3.7", "10.42.3.0/24")];
    let error = plan(&conf(|_| ()), &who(), &leases, &links).unwrap_err();
    assert_eq!(error.code(), 101);
    let forced = conf(|value| value["forceAddress"] = json!(true));
    let operations = lines(&plan(&forced, &who(), &leases, &links).unwrap());
    assert_eq!(
        operations[..2],
        ["host remove 10.7.0.1/24 from cni0", "host add 10.42.3.1/24 to cni0"]
    );
}

#[test]
fn both_families_take_the_same_steps() {
    let conf = conf(|value| value["ipam"]["ranges"] = json!([[{"subnet": "fd42::/64"}]]));
    let leases = [lease("10.42.3.7", "10.42.3.0/24"), lease("fd42::7", "fd42::/64")];
    let links = Links {
        bridge: Some(bridge(&["10.42.3.1/24", "fe80::1/64"])),
        ipv4_forwarding: true,
        loopback_up: true,
        ..Links::default()
    };
    let expect = [
        "host set net/ipv6/conf/cni0/accept_dad=0",
        "host add fd42::1/64 to cni0",
        "host set net/ipv6/conf/all/forwarding=1",
        "create pair VETH eth0 mtu 0",
        "attach VETH (skiff:pods/c1/eth0) to cni0 hairpin false",
        "container set net/ipv4/conf/eth0/arp_notify=1",
        "container set net/ipv6/conf/eth0/accept_dad=0",
        "container add 10.42.3.7/24 to eth0",
        "container add fd42::7/64 to eth0",
        "container up eth0",
        "route 0.0.0.0/0 via Some(10.42.3.1) dev eth0",
        "route ::/0 via Some(fd42::1) dev eth0",
    ];
    check(&conf, &leases, &links, &expect);
}

#[test]
fn a_host_end_of_another_container_is_not_touched() {
    let mut veth = bridge(&[]);
    veth.kind = LinkKind::Veth;
    veth.alias = Some("skiff:pods/someone/eth0".to_owned());
    let links = Links { host_veth: Some(veth.clone()), ..Links::default() };
    assert_eq!(plan(&conf(|_| ()), &who(), &[], &links).unwrap_err().code(), 101);
    veth.alias = Some(names::host_alias("pods", "c1", "eth0"));
    let links = Links { host_veth: Some(veth), ..Links::default() };
    let leases = [lease("10.42.3.7", "10.42.3.0/24")];
    let operations = lines(&plan(&conf(|_| ()), &who(), &leases, &links).unwrap());
    assert!(operations.contains(&"host delete VETH".to_owned()), "{operations:#?}");
}

#[test]
fn a_range_set_may_use_several_subnets_of_one_bridge() {
    let conf = conf(|value| {
        value["ipam"] = json!({"type": "host-local",
            "ranges": [[{"subnet": "10.42.3.0/24"}, {"subnet": "10.42.4.0/24"}]]});
    });
    let links = Links {
        bridge: Some(bridge(&["10.42.3.1/24"])),
        ipv4_forwarding: true,
        ..Links::default()
    };
    let operations =
        lines(&plan(&conf, &who(), &[lease("10.42.4.2", "10.42.4.0/24")], &links).unwrap());
    assert_eq!(operations[0], "host add 10.42.4.1/24 to cni0");
    assert_eq!(
        conf.subnets(),
        ["10.42.3.0/24".parse::<Cidr>().unwrap(), "10.42.4.0/24".parse().unwrap()]
    );
}

//! What ADD has to do, decided from what is asked and what is there. Pure: the executor has no choices left.
//!
//! ```text
//!   host namespace                          container namespace
//!   bridge cni0 (gateway address)
//!     └─ port vethXXXXXXXX (hairpin) ─────── eth0 (address, routes)
//! ```

use std::net::IpAddr;

use crate::addr::Cidr;
use crate::conf::{BridgeConf, RouteConf};
use crate::error::CniError;
use crate::ipam::lease::Lease;
use crate::masquerade::Masquerade;
use crate::names;

/// What kind of link the kernel says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    Bridge,
    Veth,
    Other,
}

/// A link as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub kind: LinkKind,
    pub mac: Vec<u8>,
    pub mtu: u32,
    pub up: bool,
    pub alias: Option<String>,
    /// Index of the bridge this link is a port of.
    pub controller: Option<u32>,
    /// Hairpin mode of the bridge port, when it is one.
    pub hairpin: Option<bool>,
    /// Index of the other end of a pair, in the namespace of that end.
    pub peer: Option<u32>,
    pub addresses: Vec<Cidr>,
}

/// What was found before anything is touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    pub bridge: Option<Link>,
    pub host_veth: Option<Link>,
    pub container: Option<Link>,
    /// The namespace's `lo` is up already.
    pub loopback_up: bool,
    pub ipv4_forwarding: bool,
    pub ipv6_forwarding: bool,
}

/// Whom the network is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub container: String,
    pub ifname: String,
}

/// Which namespace an operation works in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Host,
    Container,
}

/// One step. Steps on things that containers share succeed when it is done already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    CreateBridge { name: String, mac: [u8; 6], mtu: u32 },
    SetSysctl { space: Space, key: String, value: &'static str },
    DeleteHostLink { name: String },
    RemoveAddress { link: String, address: Cidr },
    AddAddress { space: Space, link: String, address: Cidr },
    SetUp { space: Space, link: String },
    CreatePair { host: String, host_mac: [u8; 6], ifname: String, mac: [u8; 6], mtu: u32 },
    AttachPort { link: String, alias: String, bridge: String, hairpin: bool },
    AddRoute { link: String, dst: Cidr, gateway: Option<IpAddr> },
    EnsureMasquerade(Masquerade),
}

/// What is in the way, found before an address is taken.
pub fn conflicts(conf: &BridgeConf, who: &Attachment, links: &Links) -> Result<(), CniError> {
    if let Some(bridge) = &links.bridge
        && bridge.kind != LinkKind::Bridge
    {
        let found = format!(
            "link {} exists and is no bridge; rename it or set another \"bridge\"",
            conf.bridge
        );
        return Err(CniError::Conflict(found));
    }
    if let Some(link) = &links.container {
        let found = format!(
            "interface {} exists already in the namespace of container {}",
            link.name, who.container
        );
        return Err(CniError::Conflict(found));
    }
    let ours = names::host_alias(&conf.name, &who.container, &who.ifname);
    match &links.host_veth {
        Some(veth)
            if veth.kind != LinkKind::Veth
                || veth.alias.as_ref().is_some_and(|alias| *alias != ours) =>
        {
            let owner = veth.alias.as_deref().unwrap_or("something else");
            Err(CniError::Conflict(format!("host link {} belongs to {owner}", veth.name)))
        }
        _ => Ok(()),
    }
}

/// The routes the container gets: the configured ones, and a default route per family when this is its gateway.
pub fn routes(conf: &BridgeConf, leases: &[Lease]) -> Vec<RouteConf> {
    let mut routes = conf.ipam.as_ref().map(|ipam| ipam.routes.clone()).unwrap_or_default();
    if conf.is_default_gateway {
        for lease in leases {
            let dst = Cidr::default_route(lease.address);
            if !routes.iter().any(|route| route.dst == dst) {
                routes.push(RouteConf { dst, gw: Some(lease.range.gateway) });
            }
        }
    }
    routes
}

/// Every step of an ADD, in order.
pub fn plan(
    conf: &BridgeConf,
    who: &Attachment,
    leases: &[Lease],
    links: &Links,
) -> Result<Vec<Operation>, CniError> {
    conflicts(conf, who, links)?;
    let mut operations = Vec::new();
    plan_bridge(conf, leases, links, &mut operations)?;
    plan_pair(conf, who, links, &mut operations);
    plan_container(conf, who, leases, links, &mut operations);
    if conf.ip_masq {
        let subnets = conf.subnets();
        let families = [true, false];
        let rules = families
            .iter()
            .filter_map(|v4| Masquerade::of(&conf.name, *v4, &subnets, &conf.non_masquerade));
        operations.extend(rules.map(Operation::EnsureMasquerade));
    }
    Ok(operations)
}

fn plan_bridge(
    conf: &BridgeConf,
    leases: &[Lease],
    links: &Links,
    operations: &mut Vec<Operation>,
) -> Result<(), CniError> {
    let name = conf.bridge.clone();
    if links.bridge.is_none() {
        // A bridge without an address of its own takes its lowest port's, and changes it as pods come and go.
        let mac = names::stable_mac(&["bridge", &conf.name, &name]);
        operations.push(Operation::CreateBridge { name: name.clone(), mac, mtu: conf.mtu });
    }
    if conf.is_gateway {
        let has_ipv6 = leases.iter().any(|lease| lease.address.is_ipv6());
        if has_ipv6 {
            let key = format!("net/ipv6/conf/{name}/accept_dad");
            operations.push(Operation::SetSysctl { space: Space::Host, key, value: "0" });
        }
        for lease in leases {
            plan_gateway(conf, lease, links, operations)?;
        }
        if leases.iter().any(|lease| lease.address.is_ipv4()) && !links.ipv4_forwarding {
            let key = "net/ipv4/ip_forward".to_owned();
            operations.push(Operation::SetSysctl { space: Space::Host, key, value: "1" });
        }
        if has_ipv6 && !links.ipv6_forwarding {
            let key = "net/ipv6/conf/all/forwarding".to_owned();
            operations.push(Operation::SetSysctl { space: Space::Host, key, value: "1" });
        }
    }
    if !links.bridge.as_ref().is_some_and(|bridge| bridge.up) {
        operations.push(Operation::SetUp { space: Space::Host, link: name });
    }
    Ok(())
}

/// The bridge holds the range's gateway address; an overlapping one is in the way unless forceAddress is set.
fn plan_gateway(
    conf: &BridgeConf,
    lease: &Lease,
    links: &Links,
    operations: &mut Vec<Operation>,
) -> Result<(), CniError> {
    let address = Cidr::new(lease.range.gateway, lease.range.subnet.prefix);
    let held: &[Cidr] = links.bridge.as_ref().map_or(&[], |bridge| &bridge.addresses);
    if held.contains(&address) {
        return Ok(());
    }
    let link_local =
        |cidr: &Cidr| matches!(cidr.addr, IpAddr::V6(v6) if v6.is_unicast_link_local());
    // IPv4: one address a bridge, as upstream; IPv6: several, as long as their prefixes are apart.
    let in_the_way = |cidr: &&Cidr| {
        cidr.is_ipv4() == address.is_ipv4()
            && !link_local(cidr)
            && (address.is_ipv4() || cidr.overlaps(&address))
            && !conf.subnets().iter().any(|subnet| {
                subnet.truncated() == cidr.truncated() && *subnet != address.truncated()
            })
    };
    for old in held.iter().filter(in_the_way) {
        if !conf.force_address {
            return Err(CniError::Conflict(format!(
                "bridge {} has the address {old} already, not {address}; remove it or set forceAddress",
                conf.bridge
            )));
        }
        operations.push(Operation::RemoveAddress { link: conf.bridge.clone(), address: *old });
    }
    operations.push(Operation::AddAddress {
        space: Space::Host,
        link: conf.bridge.clone(),
        address,
    });
    Ok(())
}

fn plan_pair(conf: &BridgeConf, who: &Attachment, links: &Links, operations: &mut Vec<Operation>) {
    let host = names::host_veth(&conf.name, &who.container, &who.ifname);
    if links.host_veth.is_some() {
        // Ours by its alias, and its other end is not in this namespace: left behind by an ADD that was killed.
        operations.push(Operation::DeleteHostLink { name: host.clone() });
    }
    let parts = [conf.name.as_str(), &who.container, &who.ifname];
    operations.push(Operation::CreatePair {
        host: host.clone(),
        host_mac: names::stable_mac(&[&["host"], &parts[..]].concat()),
        ifname: who.ifname.clone(),
        mac: conf.mac.unwrap_or_else(|| names::stable_mac(&parts)),
        mtu: conf.mtu,
    });
    operations.push(Operation::AttachPort {
        link: host,
        alias: names::host_alias(&conf.name, &who.container, &who.ifname),
        bridge: conf.bridge.clone(),
        hairpin: conf.hairpin,
    });
}

fn plan_container(
    conf: &BridgeConf,
    who: &Attachment,
    leases: &[Lease],
    links: &Links,
    operations: &mut Vec<Operation>,
) {
    let space = Space::Container;
    if !links.loopback_up {
        operations.push(Operation::SetUp { space, link: "lo".to_owned() });
    }
    // Announces the address when the link comes up, so that neighbours forget who had it before.
    let key = format!("net/ipv4/conf/{}/arp_notify", who.ifname);
    operations.push(Operation::SetSysctl { space, key, value: "1" });
    if leases.iter().any(|lease| lease.address.is_ipv6()) {
        let key = format!("net/ipv6/conf/{}/accept_dad", who.ifname);
        operations.push(Operation::SetSysctl { space, key, value: "0" });
    }
    for lease in leases {
        let address = Cidr::new(lease.address, lease.range.subnet.prefix);
        operations.push(Operation::AddAddress { space, link: who.ifname.clone(), address });
    }
    operations.push(Operation::SetUp { space, link: who.ifname.clone() });
    for route in routes(conf, leases) {
        let same_family = |lease: &&Lease| lease.address.is_ipv4() == route.dst.is_ipv4();
        let gateway =
            route.gw.or_else(|| leases.iter().find(same_family).map(|lease| lease.range.gateway));
        operations.push(Operation::AddRoute { link: who.ifname.clone(), dst: route.dst, gateway });
    }
}

//! CHECK: whether everything that ADD made is still there, against the result that the runtime kept.

use std::net::IpAddr;

use cni_plugin::reply::SuccessReply;

use crate::addr::Cidr;
use crate::conf::{BridgeConf, lease_data_dir};
use crate::error::CniError;
use crate::exec::{World, kernel};
use crate::hostport::HostPorts;
use crate::ipam::lease::{Holder, LeaseStore};
use crate::masquerade::Masquerade;
use crate::names;
use crate::plan::{Attachment, Link, LinkKind, Links};
use crate::reply::parse_result;
use crate::request::Request;

pub fn check(request: &Request) -> Result<(), CniError> {
    let conf = BridgeConf::read(&request.config, &request.args)?;
    let Some(previous) = request.config.prev_result.clone() else {
        return Err(CniError::BadConfig(vec![
            "prevResult is missing; CHECK needs the result of ADD".to_owned(),
        ]));
    };
    let previous = parse_result(previous)?;
    let who = Attachment { container: request.container.clone(), ifname: request.ifname.clone() };
    let netns = request.netns.clone().unwrap_or_default();
    let mut world = World::open(&netns)?;
    let links = world.observe(&conf.name, &conf.bridge, &who)?;
    let mut faults = Vec::new();
    let sandbox = netns.display().to_string();
    check_interface(&previous, &who, &sandbox, &links, &mut faults);
    check_bridge(&conf, &who, &links, &mut faults);
    check_routes(&conf, &previous, &mut world, &links, &mut faults)?;
    check_leases(&conf, &previous, &who, &mut faults)?;
    check_masquerade(&conf, &mut faults)?;
    check_host_ports(request, &conf, &mut faults)?;
    if faults.is_empty() {
        return Ok(());
    }
    Err(CniError::CheckFailed { network: conf.name, container: who.container, faults })
}

/// The addresses in the result, read through their text: the crate's address type has no other door.
fn addresses(previous: &SuccessReply) -> Vec<Cidr> {
    previous.ips.iter().filter_map(|ip| ip.address.to_string().parse().ok()).collect()
}

fn check_interface(
    previous: &SuccessReply,
    who: &Attachment,
    sandbox: &str,
    links: &Links,
    faults: &mut Vec<String>,
) {
    let Some(expected) = previous
        .interfaces
        .iter()
        .find(|i| i.name == who.ifname && !i.sandbox.as_os_str().is_empty())
    else {
        return faults.push(format!("prevResult names no interface {} in a sandbox", who.ifname));
    };
    if expected.sandbox.as_os_str() != sandbox {
        faults.push(format!(
            "prevResult has the sandbox {}, CNI_NETNS is {sandbox}",
            expected.sandbox.display()
        ));
    }
    let Some(link) = &links.container else {
        return faults.push(format!("interface {} is missing", who.ifname));
    };
    if !link.up {
        faults.push(format!("interface {} is down", link.name));
    }
    if let Some(mac) = expected.mac.map(|mac| mac.to_string().to_lowercase())
        && mac != names::mac_text(&link.mac)
    {
        faults.push(format!(
            "interface {} has MAC {}, not {mac}",
            link.name,
            names::mac_text(&link.mac)
        ));
    }
    for address in addresses(previous) {
        if !link.addresses.contains(&address) {
            faults.push(format!("interface {} lacks address {address}", link.name));
        }
    }
}

fn check_bridge(conf: &BridgeConf, who: &Attachment, links: &Links, faults: &mut Vec<String>) {
    let Some(bridge) = &links.bridge else {
        return faults.push(format!("bridge {} is missing", conf.bridge));
    };
    if bridge.kind != LinkKind::Bridge || !bridge.up {
        faults.push(format!("link {} is no bridge that is up", bridge.name));
    }
    if conf.is_gateway {
        let ranges =
            conf.ipam.iter().flat_map(|ipam| &ipam.sets).filter_map(|set| set.ranges.first());
        for range in ranges {
            let gateway = Cidr::new(range.gateway, range.subnet.prefix);
            if !bridge.addresses.contains(&gateway) {
                faults.push(format!("bridge {} lacks the gateway address {gateway}", bridge.name));
            }
        }
    }
    check_port(conf, who, bridge, links, faults);
}

fn check_port(
    conf: &BridgeConf,
    who: &Attachment,
    bridge: &Link,
    links: &Links,
    faults: &mut Vec<String>,
) {
    let Some(port) = &links.host_veth else {
        let name = names::host_veth(&conf.name, &who.container, &who.ifname);
        return faults.push(format!("host link {name} is missing"));
    };
    if port.controller != Some(bridge.index) {
        faults.push(format!("host link {} is no port of bridge {}", port.name, bridge.name));
    } else if port.hairpin != Some(conf.hairpin) {
        faults.push(format!("port {} should have hairpin mode {}", port.name, conf.hairpin));
    }
    if !port.up {
        faults.push(format!("host link {} is down", port.name));
    }
    if let Some(container) = &links.container
        && port.peer != Some(container.index)
    {
        faults.push(format!("host link {} is not the other end of {}", port.name, container.name));
    }
}

fn check_routes(
    conf: &BridgeConf,
    previous: &SuccessReply,
    world: &mut World,
    links: &Links,
    faults: &mut Vec<String>,
) -> Result<(), CniError> {
    let Some(link) = &links.container else { return Ok(()) };
    let present = world.container.routes().map_err(kernel("list routes of", &link.name))?;
    for route in &previous.routes {
        let Ok(dst) = route.dst.to_string().parse::<Cidr>() else { continue };
        let dst = dst.truncated();
        let gateway: Option<IpAddr> = route.gw.or_else(|| {
            previous
                .ips
                .iter()
                .find(|ip| ip.address.is_ipv4() == dst.is_ipv4())
                .and_then(|ip| ip.gateway)
        });
        let found = present
            .iter()
            .any(|known| known.dst == dst && known.gateway == gateway && known.link == link.index);
        if !found {
            let via = gateway.map_or_else(|| "the link".to_owned(), |gateway| gateway.to_string());
            faults.push(format!(
                "network {}: the route to {dst} through {via} is missing",
                conf.name
            ));
        }
    }
    Ok(())
}

fn check_leases(
    conf: &BridgeConf,
    previous: &SuccessReply,
    who: &Attachment,
    faults: &mut Vec<String>,
) -> Result<(), CniError> {
    let Some(ipam) = &conf.ipam else { return Ok(()) };
    let holder = Holder { container: who.container.clone(), ifname: who.ifname.clone() };
    let Some(store) = LeaseStore::open_existing(&ipam.data_dir, &conf.name)? else {
        faults.push(format!("there are no leases in {}", ipam.data_dir.join(&conf.name).display()));
        return Ok(());
    };
    for address in addresses(previous) {
        if store.holder(address.addr)?.as_ref() != Some(&holder) {
            faults.push(format!("address {} is not leased to this container", address.addr));
        }
    }
    Ok(())
}

fn check_masquerade(conf: &BridgeConf, faults: &mut Vec<String>) -> Result<(), CniError> {
    if !conf.ip_masq {
        return Ok(());
    }
    let subnets = conf.subnets();
    for ipv4 in [true, false] {
        if let Some(rules) = Masquerade::of(&conf.name, ipv4, &subnets, &conf.non_masquerade)
            && !rules.is_complete()?
        {
            faults.push("the masquerade rules are missing".to_owned());
        }
    }
    Ok(())
}

fn check_host_ports(
    request: &Request,
    conf: &BridgeConf,
    faults: &mut Vec<String>,
) -> Result<(), CniError> {
    if request.port_mappings.is_empty() {
        return Ok(());
    }
    let ports = HostPorts::open(&lease_data_dir(&request.config), &conf.name)?;
    if !ports.are_present(&conf.subnets())? {
        faults.push("the rules of host ports are missing".to_owned());
    }
    Ok(())
}

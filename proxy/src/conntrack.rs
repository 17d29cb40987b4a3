//! Forgets UDP flows that lead to where they must not go any more.
//!
//! A flow is translated once, by its first packet; then connection tracking repeats it for as long as packets come.
//! TCP ends by itself when its endpoint goes. A UDP client that keeps sending (a DNS resolver with a fixed port)
//! would send to a dead pod for ever, or, if it began before there was an endpoint, to nobody. So after a change of
//! UDP services the entries are compared with the table, and the stale ones deleted, as kube-proxy does it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::iptables::Family;
use crate::model::Protocol;
use crate::netfilter::{Connection, attribute, nested};
use crate::table::{Retired, Table};

const GET: u16 = 0x0101;
const DELETE: u16 = 0x0102;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ZONE: u16 = 18;

/// One UDP entry: where the client sent to, and who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    pub destination: SocketAddr,
    pub answers: SocketAddr,
    /// Attributes that name the entry to the kernel.
    name: Vec<u8>,
}

impl Flow {
    pub fn new(destination: SocketAddr, answers: SocketAddr) -> Flow {
        Flow { destination, answers, name: Vec::new() }
    }

    fn is_translated(&self) -> bool {
        self.destination != self.answers
    }
}

/// The flows to delete. Pure; `is_node_address` tells the node's own addresses, which node ports are on.
pub fn stale<'f>(
    table: &Table,
    retired: &Retired,
    flows: &'f [Flow],
    is_node_address: impl Fn(IpAddr) -> bool,
) -> Vec<&'f Flow> {
    let mut by_address: HashMap<SocketAddr, HashSet<SocketAddr>> = HashMap::new();
    let mut by_node_port: HashMap<u16, HashSet<SocketAddr>> = HashMap::new();
    for port in table.ports().filter(|port| port.port.protocol == Protocol::Udp) {
        let targets: HashSet<SocketAddr> =
            port.cluster.iter().chain(&port.local).map(|endpoint| endpoint.target).collect();
        let external = port.external_addresses().map(|(address, _)| address);
        for address in port.service.cluster_ips.iter().copied().chain(external) {
            let served = by_address.entry(SocketAddr::new(address, port.port.port)).or_default();
            served.extend(&targets);
        }
        if port.port.node_port != 0 {
            by_node_port.entry(port.port.node_port).or_default().extend(&targets);
        }
    }
    let is_stale = |flow: &&Flow| {
        let (address, number) = (flow.destination.ip(), flow.destination.port());
        if let Some(targets) = by_address.get(&flow.destination) {
            return !targets.contains(&flow.answers);
        }
        if is_node_address(address)
            && let Some(targets) = by_node_port.get(&number)
        {
            return !targets.contains(&flow.answers);
        }
        let was_ours = retired.addresses.contains(&flow.destination)
            || (retired.node_ports.contains(&number) && is_node_address(address));
        was_ours && flow.is_translated()
    };
    flows.iter().filter(is_stale).collect()
}

/// Reads the kernel's entries of one family, deletes the stale ones and says how many.
pub fn forget_stale(table: &Table, retired: &Retired, family: Family) -> io::Result<usize> {
    let number = match family {
        Family::Ipv4 => libc::AF_INET,
        Family::Ipv6 => libc::AF_INET6,
    } as u8;
    let mut connection = Connection::open()?;
    let mut flows = Vec::new();
    connection.dump(GET, number, |attributes| flows.extend(read_flow(attributes)))?;
    let node: HashSet<IpAddr> = node_addresses()?;
    let is_node_address = |address: IpAddr| address.is_loopback() || node.contains(&address);
    let stale = stale(table, retired, &flows, is_node_address);
    for flow in &stale {
        match connection.command(DELETE, number, &flow.name) {
            // It ended by itself meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            done => done?,
        }
    }
    Ok(stale.len())
}

fn node_addresses() -> io::Result<HashSet<IpAddr>> {
    let read = |address: nix::ifaddrs::InterfaceAddress| {
        let storage = address.address?;
        let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    Ok(nix::ifaddrs::getifaddrs().map_err(io::Error::from)?.filter_map(read).collect())
}

fn read_flow(attributes: &[u8]) -> Option<Flow> {
    let original = attribute(attributes, TUPLE_ORIGINAL)?;
    let (_, destination) = read_tuple(original)?;
    let (answers, _) = read_tuple(attribute(attributes, TUPLE_REPLY)?)?;
    let mut name = nested(TUPLE_ORIGINAL, original);
    if let Some(zone) = attribute(attributes, ZONE) {
        name.extend(crate::netfilter::plain(ZONE, zone));
    }
    Some(Flow { destination, answers, name })
}

/// Source and destination of a tuple, if it is UDP.
fn read_tuple(tuple: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (addresses, protocol) = (attribute(tuple, 1)?, attribute(tuple, 2)?);
    if i32::from(*attribute(protocol, 1)?.first()?) != libc::IPPROTO_UDP {
        return None;
    }
    let port = |kind| {
        let bytes: [u8; 2] = attribute(protocol, kind)?.try_into().ok()?;
        Some(u16::from_be_bytes(bytes))
    };
    let address = |ipv4, ipv6| -> Option<IpAddr> {
        if let Some(bytes) = attribute(addresses, ipv4) {
            let bytes: [u8; 4] = bytes.try_into().ok()?;
            return Some(IpAddr::V4(Ipv4Addr::from(bytes)));
        }
        let bytes: [u8; 16] = attribute(addresses, ipv6)?.try_into().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(bytes)))
    };
    let source = SocketAddr::new(address(1, 3)?, port(2)?);
    Some((source, SocketAddr::new(address(2, 4)?, port(3)?)))
}

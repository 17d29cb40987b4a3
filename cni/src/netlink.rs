//! rtnetlink over one blocking socket: links, addresses, routes.
//!
//! A netlink socket belongs to the namespace it was opened in for good. So a call holds two of these, one for the
//! host and one opened on a thread that entered the container's namespace, and never has to switch again.

use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::addr::Cidr;
use crate::plan::{Link, LinkKind};

/// A route as the kernel has it: destination, next hop, outgoing link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelRoute {
    pub dst: Cidr,
    pub gateway: Option<IpAddr>,
    pub link: u32,
}

/// One end of a pair, for [`Netlink::create_pair`].
pub struct PairEnd<'a> {
    pub name: &'a str,
    pub mac: [u8; 6],
}

/// A connection to the kernel's routing subsystem in one namespace.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> io::Result<Netlink> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// The link of this name, with its addresses.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let replies = match self.request(RouteNetlinkMessage::GetLink(message), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
            replies => replies?,
        };
        let found = replies.into_iter().find_map(|reply| match reply {
            RouteNetlinkMessage::NewLink(message) => Some(read_link(&message)),
            _ => None,
        });
        let Some(mut link) = found else { return Ok(None) };
        link.addresses = self.addresses(link.index)?;
        Ok(Some(link))
    }

    /// The addresses of a link.
    pub fn addresses(&mut self, index: u32) -> io::Result<Vec<Cidr>> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let mut found = Vec::new();
        for reply in self.request(request, NLM_F_DUMP)? {
            let RouteNetlinkMessage::NewAddress(message) = reply else { continue };
            if message.header.index != index {
                continue;
            }
            let mut address = None;
            for attribute in &message.attributes {
                match attribute {
                    // On a point-to-point link Address is the other side; Local is ours where both are given.
                    AddressAttribute::Local(local) => address = Some(*local),
                    AddressAttribute::Address(other) => address = address.or(Some(*other)),
                    _ => {}
                }
            }
            found.extend(address.map(|address| Cidr::new(address, message.header.prefix_len)));
        }
        Ok(found)
    }

    /// The unicast routes of the main table, in both families.
    pub fn routes(&mut self) -> io::Result<Vec<KernelRoute>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            for reply in self.request(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)? {
                if let RouteNetlinkMessage::NewRoute(message) = reply
                    && message.header.table == RouteHeader::RT_TABLE_MAIN
                    && message.header.kind == RouteType::Unicast
                {
                    routes.extend(read_route(&message));
                }
            }
        }
        Ok(routes)
    }

    /// Makes a bridge; one that exists already is fine.
    pub fn create_bridge(&mut self, name: &str, mac: [u8; 6], mtu: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::Address(mac.to_vec()));
        if mtu != 0 {
            message.attributes.push(LinkAttribute::Mtu(mtu));
        }
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        exists_is_fine(
            self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL),
        )
    }

    /// Makes a veth pair whose second end appears in the namespace `netns` at once.
    pub fn create_pair(
        &mut self,
        host: PairEnd,
        other: PairEnd,
        netns: RawFd,
        mtu: u32,
    ) -> io::Result<()> {
        let mut peer = end_of_pair(&other, mtu);
        peer.attributes.push(LinkAttribute::NetNsFd(netns));
        let mut message = end_of_pair(&host, mtu);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Deletes a link; none of this name is fine. Says whether there was one.
    pub fn delete_link(&mut self, name: &str) -> io::Result<bool> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.change(RouteNetlinkMessage::DelLink(message), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// Makes a link a port of a bridge, says whose it is, and brings it up: one message.
    pub fn attach_port(&mut self, link: u32, alias: &str, bridge: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
        message.attributes.push(LinkAttribute::Controller(bridge));
        self.change(RouteNetlinkMessage::NewLink(message), 0)
    }

    /// Lets a bridge port send frames back out where they came in.
    pub fn set_hairpin(&mut self, link: u32, on: bool) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(on)])),
        ]));
        self.change(RouteNetlinkMessage::NewLink(message), 0)
    }

    pub fn set_up(&mut self, link: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::NewLink(message), 0)
    }

    /// Adds an address; one that is there already is fine.
    pub fn add_address(&mut self, link: u32, address: Cidr) -> io::Result<()> {
        let message = address_message(link, address);
        exists_is_fine(
            self.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL),
        )
    }

    /// Removes an address; none is fine.
    pub fn remove_address(&mut self, link: u32, address: Cidr) -> io::Result<()> {
        match self.change(RouteNetlinkMessage::DelAddress(address_message(link, address)), 0) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            done => done,
        }
    }

    /// Adds a route to the main table; the same one being there already is fine.
    pub fn add_route(&mut self, link: u32, dst: Cidr, gateway: Option<IpAddr>) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(dst);
        message.header.destination_prefix_length = dst.prefix;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Boot;
        message.header.scope =
            if gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
        message.header.kind = RouteType::Unicast;
        if dst.prefix > 0 {
            message.attributes.push(RouteAttribute::Destination(dst.network().into()));
        }
        message.attributes.extend(gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
        message.attributes.push(RouteAttribute::Oif(link));
        exists_is_fine(
            self.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL),
        )
    }

    fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.request(message, flags | NLM_F_ACK).map(|_| ())
    }

    /// Sends one request and gathers its replies until the acknowledgement, or the end of the dump.
    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut buffer = vec![0u8; packet.buffer_len()];
        packet.serialize(&mut buffer);
        self.socket.send(&buffer, 0)?;
        let mut replies = Vec::new();
        loop {
            let (received, _) = self.socket.recv_from_full()?;
            if self.gather(&received, flags, &mut replies)? {
                return Ok(replies);
            }
        }
    }

    /// Reads the messages of one datagram; true when the answer is complete.
    fn gather(
        &self,
        datagram: &[u8],
        flags: u16,
        replies: &mut Vec<RouteNetlinkMessage>,
    ) -> io::Result<bool> {
        let mut rest = datagram;
        while !rest.is_empty() {
            let packet = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            // Messages are padded to four bytes; the last one of a datagram need not be.
            let length = (packet.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(length..).unwrap_or(&[]);
            if packet.header.sequence_number != self.sequence {
                continue;
            }
            match packet.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::InnerMessage(reply) => {
                    replies.push(reply);
                    if flags & (NLM_F_DUMP | NLM_F_ACK) == 0 {
                        return Ok(true);
                    }
                }
                _ => {}
            }
        }
        Ok(false)
    }
}

fn exists_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        done => done,
    }
}

fn family(cidr: Cidr) -> AddressFamily {
    if cidr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn end_of_pair(end: &PairEnd, mtu: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(end.name.to_owned()));
    message.attributes.push(LinkAttribute::Address(end.mac.to_vec()));
    if mtu != 0 {
        message.attributes.push(LinkAttribute::Mtu(mtu));
    }
    message
}

fn address_message(link: u32, address: Cidr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = address.prefix;
    message.header.index = link;
    message.attributes.push(AddressAttribute::Local(address.addr));
    message.attributes.push(AddressAttribute::Address(address.addr));
    if let IpAddr::V4(broadcast) = address.highest()
        && address.prefix < 31
    {
        message.attributes.push(AddressAttribute::Broadcast(broadcast));
    }
    message
}

fn read_link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: LinkKind::Other,
        mac: Vec::new(),
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        alias: None,
        controller: None,
        hairpin: None,
        peer: None,
        addresses: Vec::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => link.mac.clone_from(mac),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::Link(index) => link.peer = Some(*index),
            LinkAttribute::LinkInfo(infos) => read_link_info(infos, &mut link),
            _ => {}
        }
    }
    link
}

fn read_link_info(infos: &[LinkInfo], link: &mut Link) {
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::Bridge) => link.kind = LinkKind::Bridge,
            LinkInfo::Kind(InfoKind::Veth) => link.kind = LinkKind::Veth,
            LinkInfo::PortData(InfoPortData::BridgePort(settings)) => {
                link.hairpin = settings.iter().find_map(|setting| match setting {
                    InfoBridgePort::HairpinMode(on) => Some(*on),
                    _ => None,
                });
            }
            _ => {}
        }
    }
}

fn read_route(message: &RouteMessage) -> Option<KernelRoute> {
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    };
    let any: IpAddr = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from([0u8; 4]),
        _ => IpAddr::from([0u8; 16]),
    };
    let (mut dst, mut gateway, mut link) = (any, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => dst = ip(address)?,
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Oif(index) => link = Some(*index),
            _ => {}
        }
    }
    Some(KernelRoute {
        dst: Cidr::new(dst, message.header.destination_prefix_length),
        gateway,
        link: link?,
    })
}

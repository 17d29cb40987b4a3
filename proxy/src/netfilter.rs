//! Framing of netfilter's netlink messages: connection tracking and nftables share it.
//!
//! Source: linux/netfilter/nfnetlink.h. A message is the netlink header (16 bytes, host order), the nfgenmsg (family,
//! version, resource id: 4 bytes), then attributes.

use std::io;

use netlink_packet_core::{
    NLA_F_NESTED, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NlaBuffer, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

const HEADER_BYTES: usize = 16;
const NFGEN_BYTES: usize = 4;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// One message, borrowed from a datagram.
pub struct Message<'a> {
    /// Subsystem in the high byte, message of it in the low one.
    pub kind: u16,
    pub sequence: u32,
    /// Netlink port of who caused it: as a rule the process id.
    pub port: u32,
    /// What follows the netlink header.
    body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes, as bytes.
    pub fn payload(&self) -> &'a [u8] {
        self.body.get(NFGEN_BYTES..).unwrap_or(&[])
    }
}

/// The messages of a datagram; what is cut short ends it.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let message = rest.get(..length).filter(|message| message.len() >= HEADER_BYTES)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        let word = |at: usize| message.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
        Some(Message {
            kind: u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?),
            sequence: word(8)?,
            port: word(12)?,
            body: &message[HEADER_BYTES..],
        })
    })
}

/// The attributes in some bytes: kind without its flags, and value.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        let attribute: NlaBuffer<&[u8]> = attribute.ok()?;
        let (kind, length) = (attribute.kind(), attribute.value_length());
        attribute.into_inner().get(4..4 + length).map(|value| (kind, value))
    })
}

/// The value of the first attribute of a kind.
pub fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// An attribute that holds others.
pub fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    plain(kind | NLA_F_NESTED, value)
}

/// An attribute, padded to four bytes.
pub fn plain(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A blocking connection to one of netfilter's subsystems, in the calling thread's network namespace.
pub struct Connection {
    socket: Socket,
    sequence: u32,
}

impl Connection {
    pub fn open() -> io::Result<Connection> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Connection { socket, sequence: 0 })
    }

    /// Asks for everything of a kind and hands each message's attributes to `each`.
    pub fn dump(&mut self, kind: u16, family: u8, each: impl FnMut(&[u8])) -> io::Result<()> {
        self.exchange(kind, NLM_F_DUMP, family, &[], each)
    }

    /// Sends one request and waits for its acknowledgement.
    pub fn command(&mut self, kind: u16, family: u8, attributes: &[u8]) -> io::Result<()> {
        self.exchange(kind, NLM_F_ACK, family, attributes, |_| ())
    }

    fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        attributes: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.sequence += 1;
        let length = (HEADER_BYTES + NFGEN_BYTES + attributes.len()) as u32;
        let mut request = length.to_ne_bytes().to_vec();
        request.extend(kind.to_ne_bytes());
        request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend([0, 0, 0, 0, family, 0, 0, 0]);
        request.extend(attributes);
        self.socket.send(&request, 0)?;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for message in messages(&datagram).filter(|message| message.sequence == self.sequence) {
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return result(message.body),
                    _ => each(message.payload()),
                }
            }
        }
    }
}

/// An error message starts with a negative errno; zero acknowledges.
fn result(body: &[u8]) -> io::Result<()> {
    let code = body.get(..4).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_nest_and_are_found() {
        let inner = [plain(1, &[10, 0, 0, 1]), plain(2, b"abc")].concat();
        let outer = nested(7, &inner);
        assert_eq!(outer.len(), 4 + 8 + 8);
        let value = attribute(&outer, 7).unwrap();
        assert_eq!(attribute(value, 2), Some(&b"abc"[..]));
        assert_eq!(attribute(value, 3), None);
    }

    #[test]
    fn a_cut_datagram_ends_the_walk() {
        let mut datagram = 24u32.to_ne_bytes().to_vec();
        datagram.extend(0x0a08u16.to_ne_bytes());
        datagram.resize(24, 0);
        assert_eq!(messages(&datagram).count(), 1);
        assert_eq!(messages(&datagram[..20]).count(), 0);
        assert_eq!(messages(&[0; 16]).count(), 0);
    }
}

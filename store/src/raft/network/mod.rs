//! Members talking to each other.
//!
//! ```text
//! peer        the Raft library's network: encodes, calls, decodes
//! envelope    cluster, sender and addressee around every body, and refusals
//! messages    Raft's bodies           forward  those of what a follower passes on
//! transport   the port: a member, a method and bytes
//! grpc        the real transport      link     its stream of calls to one member
//! server      its answering side
//! receiver    bytes in, bytes out, for any transport
//! ```

pub mod envelope;
pub mod forward;
pub mod grpc;
mod link;
pub mod messages;
pub mod peer;
pub mod receiver;
pub mod server;
pub mod transport;

/// Mutual TLS between members: PEM texts.
#[derive(Clone)]
pub struct PeerTls {
    pub ca_pem: String,
    pub cert_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeerTls(..)")
    }
}

/// Largest message: several of the largest requests in one append.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// What may be under way in one direction before the receiver has read it.
const WINDOW_BYTES: u32 = 4 << 20;

//! Members talking to each other: gRPC, as `skiff.raft.v1` says.

pub mod client;
pub mod messages;
pub mod server;

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

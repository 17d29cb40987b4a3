//! The etcd v3 gRPC API over a [`Store`], so that etcd's own clients can use it.
//!
//! ```text
//! server   connections, TLS (authority mends requests); calls run in the connection's task
//! services which service a request is for; unary is the short way of the most frequent ones
//! kv, watch, lease, cluster, maintenance     one service each: thin
//! convert, fragment    wire shapes to the store's and back, pure
//! metrics  what Prometheus scrapes
//! error    the store's failures in etcd's codes and texts
//! ```
//!
//! What is left out: the Auth service. A client is known by its certificate, and `Auth`
//! answers like an etcd whose authentication is off.

mod authority;
mod backup;
mod calls;
mod cluster;
mod convert;
mod error;
mod fragment;
mod kv;
mod leader;
mod lease;
mod maintenance;
mod metrics;
mod server;
mod services;
mod unary;
mod watch;

/// A failure as etcd says it.
#[cfg(test)]
pub(crate) use self::error::kv as status;

use std::sync::Arc;

use skiff_proto::grpc::etcdserverpb as pb;
use tokio_util::sync::CancellationToken;

pub use self::server::{ServeError, serve};
use crate::kv::Revision;
use crate::store::Store;

/// The version of etcd whose API this is, as clients read it to know what they may use,
/// then the program's own.
const VERSION: &str = concat!("3.4.25+skiff.", env!("CARGO_PKG_VERSION"));

/// What every service has.
#[derive(Clone)]
struct Face {
    store: Arc<Store>,
    shutdown: CancellationToken,
}

impl Face {
    fn header(&self, revision: Revision) -> Option<pb::ResponseHeader> {
        let identity = self.store.identity();
        Some(pb::ResponseHeader {
            cluster_id: identity.cluster_id,
            member_id: identity.member_id,
            revision,
            raft_term: self.store.raft_term(),
        })
    }

    /// With the newest revision.
    fn header_now(&self) -> Option<pb::ResponseHeader> {
        self.header(self.store.revision())
    }
}

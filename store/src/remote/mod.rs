//! [`Kv`] over an etcd cluster that runs elsewhere: `--datastore-endpoint`.
//!
//! ```text
//! Kv --> call: deadline, retries --> endpoints: one connection, failover --> etcd
//!  \---> watch: one stream each, taken up again at the next revision where it broke
//! ```
//!
//! A read that met a broken connection is asked again, of the next endpoint. A write is
//! asked again only when it certainly was not sent: otherwise nobody could know whether it
//! happened once or twice, and the caller is told [`KvError::Timeout`]. Nothing here runs
//! while nobody asks, except for HTTP/2's keep-alive, which tells of a peer that vanished.

mod call;
mod convert;
mod endpoints;
mod error;
mod save;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use skiff_proto::grpc::etcdserverpb as pb;

use self::call::{Call, Failure};
pub use self::endpoints::{ConnectError, Flags, Tls};
use self::endpoints::{Connection, Endpoints};
pub use self::save::{SaveError, save};
use crate::kv::*;
use crate::mvcc::check::{check_txn, is_read_only};
use crate::mvcc::lease::MAX_TTL_SECONDS;

/// Answers may be as large as etcd makes them; it bounds requests, not ranges.
const MAX_ANSWER_BYTES: usize = i32::MAX as usize;
/// Messages of a watch that wait for its reader.
const WATCH_QUEUE_MESSAGES: usize = 256;
/// How long a first connection may take before the start is given up.
pub const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the cluster is, and how it is known.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `https://HOST:PORT` or `http://HOST:PORT`, at least one.
    pub endpoints: Vec<String>,
    /// Needed for `https`.
    pub tls: Option<Tls>,
    /// 0: as many as the default.
    pub watch_queue_messages: usize,
    /// What errors call the settings.
    pub flags: Flags,
}

/// A client of an etcd cluster. Implements [`Kv`].
pub struct Remote {
    call: Call,
    watch_queue_messages: usize,
}

impl Remote {
    /// Connects, and asks for an answer, so that a wrong endpoint or certificate is told at
    /// the start. A cluster that does not listen yet is waited for.
    /// Boxed: see "Build time" in ARCHITECTURE.md.
    pub fn connect(options: Options) -> BoxFuture<'static, Result<Arc<Self>, ConnectError>> {
        Box::pin(async move {
            let endpoints = Arc::new(Endpoints::new(&options)?);
            endpoints.wait(START_TIMEOUT).await?;
            let watch_queue_messages = match options.watch_queue_messages {
                0 => WATCH_QUEUE_MESSAGES,
                given => given,
            };
            Ok(Arc::new(Self { call: Call { endpoints }, watch_queue_messages }))
        })
    }

    /// One transaction, sent as it is.
    async fn send(&self, request: &TxnRequest) -> Result<TxnResponse, Failure> {
        let wire = convert::txn(request);
        let send = |connection: Connection| {
            let wire = wire.clone();
            async move { connection.kv().txn(wire).await }
        };
        let response = match is_read_only(request) {
            true => self.call.read(send).await?,
            false => self.call.write(send).await?,
        };
        convert::txn_response(response).map_err(Failure::Odd)
    }

    /// etcd's refusals do not say at which revision it is; the store's do.
    async fn explain(&self, failure: Failure, revisions: &[Revision]) -> KvError {
        let refused = error::kv(failure);
        let (first, last) = (revisions.iter().min(), revisions.iter().max());
        match refused {
            KvError::Compacted { .. } => {
                let requested = first.copied().unwrap_or_default();
                let compacted = self.compacted().await.unwrap_or(requested + 1);
                KvError::Compacted { requested, compacted }
            }
            KvError::FutureRevision { .. } => {
                let requested = last.copied().unwrap_or_default();
                let current = self.current().await.unwrap_or_default();
                KvError::FutureRevision { requested, current }
            }
            other => other,
        }
    }

    async fn current(&self) -> Option<Revision> {
        let wire = pb::RangeRequest { key: "\0".into(), count_only: true, ..Default::default() };
        let answer = self.call.read(|connection| {
            let wire = wire.clone();
            async move { connection.kv().range(wire).await }
        });
        Some(convert::revision(&answer.await.ok()?.header))
    }

    /// Where history begins: a watch from before it is told.
    async fn compacted(&self) -> Option<Revision> {
        let range = KeyRange::One("\0".into());
        let request = WatchRequest { range, start_revision: 1, prev_kv: false };
        let mut watch = self.watch(request).await.ok()?;
        match tokio::time::timeout(call::LIMIT, watch.messages.recv()).await.ok()?? {
            WatchMessage::Compacted { compacted } => Some(compacted),
            _ => None,
        }
    }
}

#[async_trait]
impl Kv for Remote {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        request.range.check()?;
        let wire = convert::range(&request);
        let answer = self.call.read(|connection| {
            let wire = wire.clone();
            async move { connection.kv().range(wire).await }
        });
        match answer.await {
            Ok(response) => Ok(convert::range_response(response)),
            Err(failure) => Err(self.explain(failure, &[request.revision]).await),
        }
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, KvError> {
        // How many operations are too many is the cluster's to say; what else is wrong with
        // a request by itself is said here, with the key.
        check_txn(&request, usize::MAX)?;
        match self.send(&request).await {
            Ok(response) => Ok(response),
            Err(failure) => Err(self.explain(failure, &convert::revisions(&request)).await),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watch, KvError> {
        request.range.check()?;
        watch::open(self.call.endpoints.clone(), request, self.watch_queue_messages).await
    }

    async fn compact(&self, revision: Revision, physical: bool) -> Result<Revision, KvError> {
        let wire = pb::CompactionRequest { revision, physical };
        let answer =
            self.call.write(|connection| async move { connection.kv().compact(wire).await });
        match answer.await {
            Ok(response) => Ok(convert::revision(&response.header)),
            Err(failure) => Err(self.explain(failure, &[revision]).await),
        }
    }

    async fn lease_grant(&self, id: LeaseId, ttl_seconds: i64) -> Result<(LeaseId, i64), KvError> {
        if ttl_seconds > MAX_TTL_SECONDS {
            return Err(KvError::LeaseTtlTooLarge(ttl_seconds));
        }
        let wire = pb::LeaseGrantRequest { id, ttl: ttl_seconds };
        let answer =
            self.call.write(|connection| async move { connection.lease().lease_grant(wire).await });
        let response = answer.await.map_err(|failure| error::lease(failure, id))?;
        Ok((response.id, response.ttl))
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, KvError> {
        let wire = pb::LeaseRevokeRequest { id };
        let answer = self
            .call
            .write(|connection| async move { connection.lease().lease_revoke(wire).await });
        let response = answer.await.map_err(|failure| error::lease(failure, id))?;
        Ok(convert::revision(&response.header))
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<i64, KvError> {
        // Renewing twice is as good as once.
        let answer = self.call.read(|connection| async move {
            let requests = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
            let mut answers = connection.lease().lease_keep_alive(requests).await?.into_inner();
            let answer = answers.message().await?;
            let none = || tonic::Status::unavailable("etcdserver: the keep-alive was not answered");
            Ok(tonic::Response::new(answer.ok_or_else(none)?))
        });
        let response = answer.await.map_err(|failure| error::lease(failure, id))?;
        if response.ttl <= 0 { Err(KvError::LeaseNotFound(id)) } else { Ok(response.ttl) }
    }

    async fn lease_time_to_live(&self, id: LeaseId, keys: bool) -> Result<LeaseInfo, KvError> {
        let wire = pb::LeaseTimeToLiveRequest { id, keys };
        let answer = self
            .call
            .read(|connection| async move { connection.lease().lease_time_to_live(wire).await });
        let mut response = answer.await.map_err(|failure| error::lease(failure, id))?;
        response.keys.sort();
        Ok(LeaseInfo {
            id,
            granted_ttl_seconds: response.granted_ttl,
            ttl_seconds: response.ttl.max(-1),
            keys: response.keys,
        })
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, KvError> {
        let answer = self.call.read(|connection| async move {
            connection.lease().lease_leases(pb::LeaseLeasesRequest {}).await
        });
        let response = answer.await.map_err(error::kv)?;
        let mut ids: Vec<_> = response.leases.into_iter().map(|lease| lease.id).collect();
        ids.sort_unstable();
        Ok(ids)
    }
}

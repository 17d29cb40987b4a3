//! [`Kv`] for the embedded store.

use async_trait::async_trait;

use super::batch::Proposer;
use super::{Inner, Store};
use crate::command::{Answer, Command, Outcome};
use crate::kv::*;
use crate::mvcc::check::{check_txn, is_read_only};
use crate::mvcc::lease::MAX_TTL_SECONDS;
use crate::mvcc::{ReadFault, fetch_checked};
use crate::raft::network::forward::LeaseCall;

impl Store {
    pub(super) fn check_open(&self) -> Result<(), KvError> {
        self.proposer().map(|_| ())
    }

    fn proposer(&self) -> Result<Proposer, KvError> {
        if self.inner.removed.is_cancelled() {
            return Err(KvError::Stopped);
        }
        self.inner.proposer().ok_or(KvError::Stopped)
    }

    async fn propose(&self, command: Command) -> Answer {
        self.proposer()?.propose(&command, self.inner.config.max_request_bytes).await
    }
}

impl Inner {
    /// A range of the applied state. Values that are not in memory are fetched without the
    /// lock; if a compaction takes one meanwhile, the range is made anew.
    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        let core = &self.core;
        loop {
            let plan = core.mvcc().plan(request)?;
            let at = if request.revision > 0 { request.revision } else { plan.revision };
            let result = plan.finish(&mut |version| fetch_checked(version, &*core.engine));
            match result {
                Ok(response) => return Ok(response),
                Err(_) if core.mvcc().compacted() > at && request.revision == 0 => continue,
                Err(fault) => {
                    core.mvcc().check_revision(request.revision)?;
                    return Err(self.suspect(fault));
                }
            }
        }
    }

    /// A record that was there once cannot be read: the next start rebuilds the engine.
    fn suspect(&self, fault: ReadFault) -> KvError {
        if self.core.queue.is_closed() {
            // Closed under a read that was on its way.
            return KvError::Stopped;
        }
        let marker = self.config.data_dir.join("engine.suspect");
        tracing::error!(%fault, "the engine is damaged; it is rebuilt at the next start");
        if !self.disk.exists(&marker)
            && let Err(error) = self.disk.create(&marker, 0)
        {
            tracing::error!(path = %marker.display(), %error, "cannot mark the engine as damaged");
        }
        fault.into()
    }
}

fn unexpected<T>(outcome: Outcome) -> Result<T, KvError> {
    Err(KvError::Internal(format!("a command was answered with {outcome:?}")))
}

#[async_trait]
impl Kv for Store {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        request.range.check()?;
        self.check_open()?;
        if !request.serializable {
            self.inner.linearize().await?;
        }
        self.inner.range(&request)
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, KvError> {
        check_txn(&request, self.inner.config.max_txn_ops)?;
        if is_read_only(&request) {
            self.check_open()?;
            self.inner.linearize().await?;
            let core = &self.inner.core;
            return core.mvcc().read_txn(&request, &*core.engine);
        }
        match self.propose(Command::Txn(request)).await? {
            Outcome::Txn(response) => Ok(response),
            other => unexpected(other),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watch, KvError> {
        Ok(self.watch_with_handle(request).await?.0)
    }

    async fn compact(&self, revision: Revision, physical: bool) -> Result<Revision, KvError> {
        let revision = match self.propose(Command::Compact { revision }).await? {
            Outcome::Compacted { revision } => revision,
            other => return unexpected(other),
        };
        if physical {
            // The engine takes removals in order with everything else.
            self.inner.core.queue.barrier().await.map_err(|_| KvError::Stopped)?;
        }
        Ok(revision)
    }

    async fn lease_grant(&self, id: LeaseId, ttl_seconds: i64) -> Result<(LeaseId, i64), KvError> {
        if ttl_seconds > MAX_TTL_SECONDS {
            return Err(KvError::LeaseTtlTooLarge(ttl_seconds));
        }
        loop {
            let chosen = if id == 0 { random_id() } else { id };
            match self.propose(Command::LeaseGrant { id: chosen, ttl_seconds }).await {
                Ok(Outcome::LeaseGranted { id, ttl_seconds }) => return Ok((id, ttl_seconds)),
                Ok(other) => return unexpected(other),
                // One in 2^63 that a chosen id is taken.
                Err(KvError::LeaseExists(_)) if id == 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, KvError> {
        match self.propose(Command::LeaseRevoke { id }).await? {
            Outcome::LeaseRevoked { revision } => Ok(revision),
            other => unexpected(other),
        }
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<i64, KvError> {
        self.check_open()?;
        Ok(self.inner.lease_call(LeaseCall::KeepAlive(id)).await?.ttl_seconds)
    }

    async fn lease_time_to_live(&self, id: LeaseId, keys: bool) -> Result<LeaseInfo, KvError> {
        self.check_open()?;
        self.inner.lease_call(LeaseCall::TimeToLive { id, keys }).await
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, KvError> {
        self.check_open()?;
        self.inner.linearize().await?;
        Ok(self.inner.core.mvcc().leases().iter().map(|(id, _)| id).collect())
    }
}

/// Positive, as etcd's are.
fn random_id() -> LeaseId {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(std::time::Instant::now());
    ((random >> 1) as i64).max(1)
}

//! Events go away by themselves. They share leases: one for all Events of a few minutes,
//! since a lease per Event would cost the store as much as the Event.

use std::time::{Duration, Instant};

use skiff_proto::Status;
use skiff_store::kv::{Kv, LeaseId};
use tokio::sync::Mutex;

use crate::storage::error;

/// How long new Events join a lease. Each lives up to that much longer than asked.
const JOIN: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub struct EventLease {
    current: Mutex<Option<(LeaseId, Instant)>>,
}

impl EventLease {
    pub async fn current(&self, kv: &dyn Kv, ttl: Duration) -> Result<LeaseId, Status> {
        let mut current = self.current.lock().await;
        if let Some((lease, since)) = *current
            && since.elapsed() < JOIN.min(ttl)
        {
            return Ok(lease);
        }
        let seconds = (ttl + JOIN.min(ttl)).as_secs() as i64;
        let (lease, _) = kv.lease_grant(0, seconds).await.map_err(error::status)?;
        *current = Some((lease, Instant::now()));
        Ok(lease)
    }
}

//! Leases: which exist, and which keys hang on them.
//!
//! This part is replicated and knows no clock. When a lease is due is the leader's own
//! affair ([`LeaseClock`]); it then proposes to revoke it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;

use crate::kv::{KvError, LeaseId};

/// etcd refuses more.
pub const MAX_TTL_SECONDS: i64 = 9_000_000_000;
/// Shorter ones could run out during an election; etcd raises them likewise.
pub const MIN_TTL_SECONDS: i64 = 2;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Lease {
    pub ttl_seconds: i64,
    pub keys: BTreeSet<Bytes>,
}

#[derive(Debug, Default)]
pub struct Leases {
    leases: BTreeMap<LeaseId, Lease>,
    by_key: HashMap<Bytes, LeaseId>,
}

impl Leases {
    /// Returns the TTL that was granted.
    pub fn grant(&mut self, id: LeaseId, ttl_seconds: i64) -> Result<i64, KvError> {
        if id == 0 {
            return Err(KvError::LeaseNotFound(id));
        }
        if ttl_seconds > MAX_TTL_SECONDS {
            return Err(KvError::LeaseTtlTooLarge(ttl_seconds));
        }
        if self.leases.contains_key(&id) {
            return Err(KvError::LeaseExists(id));
        }
        let ttl_seconds = ttl_seconds.max(MIN_TTL_SECONDS);
        let keys = BTreeSet::new();
        self.leases.insert(id, Lease { ttl_seconds, keys });
        Ok(ttl_seconds)
    }

    /// Takes the lease away and returns its keys, in order.
    pub fn revoke(&mut self, id: LeaseId) -> Result<BTreeSet<Bytes>, KvError> {
        let lease = self.leases.remove(&id).ok_or(KvError::LeaseNotFound(id))?;
        for key in &lease.keys {
            self.by_key.remove(key);
        }
        Ok(lease.keys)
    }

    /// The key hangs on `id` from now on; on none with 0.
    pub fn attach(&mut self, key: &Bytes, id: LeaseId) {
        if let Some(old) = self.by_key.get(key).copied() {
            if old == id {
                return;
            }
            self.detach(key);
        }
        if id != 0
            && let Some(lease) = self.leases.get_mut(&id)
        {
            let key = Bytes::copy_from_slice(key);
            lease.keys.insert(key.clone());
            self.by_key.insert(key, id);
        }
    }

    pub fn detach(&mut self, key: &[u8]) {
        if let Some(id) = self.by_key.remove(key)
            && let Some(lease) = self.leases.get_mut(&id)
        {
            lease.keys.remove(key);
        }
    }

    /// The lease a key hangs on; 0: none.
    pub fn of(&self, key: &[u8]) -> LeaseId {
        self.by_key.get(key).copied().unwrap_or(0)
    }

    pub fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    pub fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.leases.iter().map(|(id, lease)| (*id, lease))
    }
}

/// When each lease is due, by a clock that the caller reads.
#[derive(Debug, Default)]
pub struct LeaseClock {
    due: BTreeSet<(Duration, LeaseId)>,
    at: HashMap<LeaseId, Duration>,
}

impl LeaseClock {
    /// Starts the lease's time, or starts it again.
    pub fn renew(&mut self, id: LeaseId, ttl_seconds: i64, now: Duration) {
        self.remove(id);
        let at = now.saturating_add(Duration::from_secs(ttl_seconds.max(0) as u64));
        self.due.insert((at, id));
        self.at.insert(id, at);
    }

    pub fn remove(&mut self, id: LeaseId) {
        if let Some(at) = self.at.remove(&id) {
            self.due.remove(&(at, id));
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub fn remaining(&self, id: LeaseId, now: Duration) -> Option<Duration> {
        Some(self.at.get(&id)?.saturating_sub(now))
    }

    /// Leases whose time has run out, the longest overdue first.
    pub fn expired(&self, now: Duration) -> Vec<LeaseId> {
        self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect()
    }

    /// When the next lease is due.
    pub fn next(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_key_hangs_on_its_last_lease_only() {
        let mut leases = Leases::default();
        assert_eq!(leases.grant(7, 10), Ok(10));
        assert_eq!(leases.grant(8, 1), Ok(MIN_TTL_SECONDS));
        assert_eq!(leases.grant(7, 10), Err(KvError::LeaseExists(7)));
        let key = Bytes::from("k");
        leases.attach(&key, 7);
        leases.attach(&key, 8);
        assert_eq!(leases.of(b"k"), 8);
        assert!(leases.get(7).unwrap().keys.is_empty());
        assert_eq!(leases.revoke(8).unwrap().into_iter().collect::<Vec<_>>(), ["k"]);
        assert_eq!(leases.of(b"k"), 0);
        assert_eq!(leases.revoke(8), Err(KvError::LeaseNotFound(8)));
    }

    #[test]
    fn limits_of_the_ttl() {
        let mut leases = Leases::default();
        assert_eq!(leases.grant(1, MAX_TTL_SECONDS), Ok(MAX_TTL_SECONDS));
        let too_large = MAX_TTL_SECONDS + 1;
        assert_eq!(leases.grant(2, too_large), Err(KvError::LeaseTtlTooLarge(too_large)));
    }

    #[test]
    fn a_renewed_lease_is_due_later() {
        let mut clock = LeaseClock::default();
        clock.renew(1, 5, S(0));
        clock.renew(2, 3, S(0));
        assert_eq!(clock.next(), Some(S(3)));
        assert_eq!(clock.expired(S(2)), [] as [LeaseId; 0]);
        assert_eq!(clock.expired(S(5)), [2, 1]);
        clock.renew(2, 3, S(4));
        assert_eq!(clock.remaining(2, S(5)), Some(S(2)));
        assert_eq!(clock.expired(S(5)), [1]);
        clock.remove(1);
        assert_eq!(clock.next(), Some(S(7)));
    }
}

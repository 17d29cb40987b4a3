//! What a controller has done and its cache does not show yet. Until it does, the set is
//! unsettled: counting pods then would make the same ones again.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

/// A watch that lost an event must not hold a set forever. Upstream's ExpectationsTimeout.
const EXPIRY: Duration = Duration::from_secs(300);

/// By the uid of the owning set.
#[derive(Debug, Default)]
pub struct Expectations {
    by_owner: HashMap<String, Pending>,
}

#[derive(Debug)]
struct Pending {
    creations: i64,
    deletions: HashSet<String>,
    since: Instant,
}

impl Expectations {
    pub fn settled(&self, owner: &str, now: Instant) -> bool {
        self.by_owner.get(owner).is_none_or(|pending| {
            pending.is_fulfilled() || now.duration_since(pending.since) > EXPIRY
        })
    }

    /// Called before pods are made: their events may come before the answers.
    pub fn expect_creations(&mut self, owner: &str, count: usize, now: Instant) {
        let creations = i64::try_from(count).unwrap_or(i64::MAX);
        let pending = Pending { creations, deletions: HashSet::new(), since: now };
        self.by_owner.insert(owner.to_owned(), pending);
    }

    /// Called before pods are removed.
    pub fn expect_deletions(
        &mut self,
        owner: &str,
        uids: impl IntoIterator<Item = String>,
        now: Instant,
    ) {
        let pending = Pending { creations: 0, deletions: uids.into_iter().collect(), since: now };
        self.by_owner.insert(owner.to_owned(), pending);
    }

    /// A pod has appeared, or will never be.
    pub fn created(&mut self, owner: &str, count: usize) {
        if let Some(pending) = self.by_owner.get_mut(owner) {
            pending.creations -= i64::try_from(count).unwrap_or(i64::MAX);
        }
    }

    /// A pod is seen going or gone, or its removal failed.
    pub fn deleted(&mut self, owner: &str, uid: &str) {
        if let Some(pending) = self.by_owner.get_mut(owner) {
            pending.deletions.remove(uid);
        }
    }

    pub fn forget(&mut self, owner: &str) {
        self.by_owner.remove(owner);
    }
}

impl Pending {
    fn is_fulfilled(&self) -> bool {
        self.creations <= 0 && self.deletions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settles_when_everything_was_seen() {
        let now = Instant::now();
        let mut expectations = Expectations::default();
        assert!(expectations.settled("rs", now));
        expectations.expect_creations("rs", 2, now);
        expectations.created("rs", 1);
        assert!(!expectations.settled("rs", now));
        expectations.created("rs", 1);
        assert!(expectations.settled("rs", now));
        expectations.expect_deletions("rs", ["a".to_owned(), "b".to_owned()], now);
        expectations.deleted("rs", "a");
        expectations.deleted("rs", "a");
        assert!(!expectations.settled("rs", now), "b is still expected to go");
        expectations.deleted("rs", "b");
        assert!(expectations.settled("rs", now));
    }

    #[test]
    fn a_lost_event_holds_nothing_forever() {
        let now = Instant::now();
        let mut expectations = Expectations::default();
        expectations.expect_creations("rs", 1, now);
        assert!(!expectations.settled("rs", now + EXPIRY));
        assert!(expectations.settled("rs", now + EXPIRY + Duration::from_secs(1)));
        expectations.forget("rs");
        assert!(expectations.settled("rs", now));
    }
}

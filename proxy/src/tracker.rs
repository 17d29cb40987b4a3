//! What changed since the rules were last written: previous and current per name.
//!
//! Between two transactions an object may change many times. Only its first old and its last new state count; an
//! object that came back to where it was has not changed at all, and costs no transaction.

use std::collections::HashMap;
use std::sync::Arc;

use skiff_proto::ObjectKey;

use crate::model::{ServiceInfo, SliceInfo};

struct Pending<T> {
    previous: Option<Arc<T>>,
    current: Option<Arc<T>>,
}

/// The current state of every object that differs from what was last taken; none: it is gone.
pub type Changed<T> = Vec<(ObjectKey, Option<Arc<T>>)>;

/// Everything that differs from the last transaction.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub services: Changed<ServiceInfo>,
    pub slices: Changed<SliceInfo>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.slices.is_empty()
    }
}

/// Collects changes until they are taken. Bounded by the number of objects.
#[derive(Default)]
pub struct Tracker {
    services: Pendings<ServiceInfo>,
    slices: Pendings<SliceInfo>,
}

type Pendings<T> = HashMap<ObjectKey, Pending<T>>;

impl Tracker {
    /// Notes a change of a Service; false when nothing is left to do about it.
    pub fn service(
        &mut self,
        key: &ObjectKey,
        old: Option<Arc<ServiceInfo>>,
        new: Option<Arc<ServiceInfo>>,
    ) -> bool {
        note(&mut self.services, key, old, new)
    }

    /// Notes a change of an EndpointSlice; false when nothing is left to do about it.
    pub fn slice(
        &mut self,
        key: &ObjectKey,
        old: Option<Arc<SliceInfo>>,
        new: Option<Arc<SliceInfo>>,
    ) -> bool {
        note(&mut self.slices, key, old, new)
    }

    pub fn take(&mut self) -> Changes {
        Changes { services: take(&mut self.services), slices: take(&mut self.slices) }
    }
}

fn note<T: PartialEq>(
    pendings: &mut Pendings<T>,
    key: &ObjectKey,
    old: Option<Arc<T>>,
    new: Option<Arc<T>>,
) -> bool {
    match pendings.get_mut(key) {
        Some(pending) => pending.current = new,
        None => {
            pendings.insert(key.clone(), Pending { previous: old, current: new });
        }
    }
    let reverted = pendings.get(key).is_some_and(|pending| pending.previous == pending.current);
    if reverted {
        pendings.remove(key);
    }
    !reverted
}

fn take<T>(pendings: &mut Pendings<T>) -> Changed<T> {
    let mut changed: Changed<T> =
        pendings.drain().map(|(key, pending)| (key, pending.current)).collect();
    changed.sort_by(|one, other| one.0.cmp(&other.0));
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(affinity: u32) -> Option<Arc<ServiceInfo>> {
        Some(Arc::new(ServiceInfo { affinity_seconds: Some(affinity), ..ServiceInfo::default() }))
    }

    #[test]
    fn only_the_last_state_is_taken() {
        let (mut tracker, key) = (Tracker::default(), ObjectKey::new("shop", "web"));
        assert!(tracker.service(&key, None, info(1)));
        assert!(tracker.service(&key, info(1), info(2)));
        assert_eq!(tracker.take().services, [(key, info(2))]);
        assert!(tracker.take().is_empty());
    }

    #[test]
    fn a_reverted_change_cancels_itself() {
        let (mut tracker, key) = (Tracker::default(), ObjectKey::new("shop", "web"));
        assert!(tracker.service(&key, info(1), info(2)));
        assert!(!tracker.service(&key, info(2), info(1)));
        assert!(tracker.take().is_empty());
        assert!(tracker.service(&key, None, info(1)));
        assert!(!tracker.service(&key, info(1), None));
        assert!(tracker.take().is_empty());
    }

    #[test]
    fn an_update_that_the_rules_do_not_see_is_no_change() {
        let (mut tracker, key) = (Tracker::default(), ObjectKey::new("shop", "web"));
        assert!(!tracker.service(&key, info(1), info(1)));
    }
}

//! Pods that wait for a node. Pure: time is given, as the duration since the start.
//!
//! ```text
//!            add          pop            (assumed, bound: gone from here)
//!   new ────────▶ active ─────▶ attempt ─────▶
//!                   ▲              │ no node fits
//!   back-off is over│              ▼
//!               backoff ◀──── unschedulable
//!                   event that may help, or five minutes
//!   with scheduling gates: gated, until an update takes the last gate away
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::pod::{PodInfo, PodUid};

/// Time since the scheduler's start.
pub type Moment = Duration;

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LAST_BACKOFF: Duration = Duration::from_secs(10);
/// A pod that no event woke for this long is tried once more: a hint may have been wrong.
const UNSCHEDULABLE_FOR: Duration = Duration::from_secs(300);

/// Bounded by the number of pending pods, which the API server holds anyway.
#[derive(Debug, Default)]
pub struct SchedulingQueue {
    waiting: HashMap<PodUid, Waiting>,
    /// Highest priority first, then first come first served.
    active: BTreeSet<(Reverse<i32>, u64, PodUid)>,
    backoff: BTreeSet<(Moment, PodUid)>,
    unschedulable: BTreeSet<(Moment, PodUid)>,
    arrivals: u64,
    /// Attempts of pods that are being tried or bound, so that a failure does not start over.
    attempts: HashMap<PodUid, u32>,
}

#[derive(Debug)]
struct Waiting {
    pod: Arc<PodInfo>,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Active { arrival: u64 },
    Backoff { until: Moment },
    Unschedulable { since: Moment, retry_from: Moment, refused_by: u32 },
    Gated,
}

/// How many pods wait where, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depths {
    pub active: usize,
    pub backoff: usize,
    pub unschedulable: usize,
    pub gated: usize,
}

impl SchedulingQueue {
    /// A pod that is new, or whose waiting starts again.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.take_out(&pod.uid);
        let place = if pod.gated { Place::Gated } else { self.arrive() };
        self.put(pod, place);
    }

    /// The object changed while it waits. A change of what it asks for is a reason to try again.
    pub fn update(&mut self, pod: Arc<PodInfo>, now: Moment) {
        let Some(waiting) = self.take_out(&pod.uid) else {
            return self.add(pod);
        };
        let place = match waiting.place {
            _ if pod.gated => Place::Gated,
            Place::Gated => self.arrive(),
            Place::Unschedulable { retry_from, .. } if !pod.asks_the_same(&waiting.pod) => {
                self.wake_to(retry_from, now)
            }
            other => other,
        };
        self.put(pod, place);
    }

    /// The pod is gone, or has a node.
    pub fn remove(&mut self, uid: &PodUid) {
        self.take_out(uid);
        self.attempts.remove(uid);
    }

    pub fn contains(&self, uid: &PodUid) -> bool {
        self.waiting.contains_key(uid)
    }

    /// The next pod to try, which leaves the queue.
    pub fn pop(&mut self, now: Moment) -> Option<Arc<PodInfo>> {
        self.advance(now);
        let (_, _, uid) = self.active.pop_first()?;
        let waiting = self.waiting.remove(&uid)?;
        *self.attempts.entry(uid).or_default() += 1;
        Some(waiting.pod)
    }

    /// No node would do; `refused_by` are the filters whose events may wake it.
    pub fn add_unschedulable(&mut self, pod: Arc<PodInfo>, refused_by: u32, now: Moment) {
        let retry_from = now + self.backoff_of(&pod.uid);
        self.put(pod, Place::Unschedulable { since: now, retry_from, refused_by });
    }

    /// A node was found but binding failed: tried again after a back-off, whatever happens.
    pub fn add_backoff(&mut self, pod: Arc<PodInfo>, now: Moment) {
        let until = now + self.backoff_of(&pod.uid);
        self.take_out(&pod.uid);
        self.put(pod, Place::Backoff { until });
    }

    /// Wakes those for which `helps` holds, given the filters that refused them.
    pub fn wake(&mut self, now: Moment, helps: impl Fn(&PodInfo, u32) -> bool) {
        let woken: Vec<(PodUid, Moment)> = self
            .unschedulable
            .iter()
            .filter_map(|(_, uid)| {
                let waiting = self.waiting.get(uid)?;
                match waiting.place {
                    Place::Unschedulable { retry_from, refused_by, .. }
                        if helps(&waiting.pod, refused_by) =>
                    {
                        Some((uid.clone(), retry_from))
                    }
                    _ => None,
                }
            })
            .collect();
        for (uid, retry_from) in woken {
            if let Some(waiting) = self.take_out(&uid) {
                let place = self.wake_to(retry_from, now);
                self.put(waiting.pod, place);
            }
        }
    }

    /// When `pop` may give something that it does not give now.
    pub fn next_moment(&self) -> Option<Moment> {
        let backoff = self.backoff.first().map(|(until, _)| *until);
        let flush = self.unschedulable.first().map(|(since, _)| *since + UNSCHEDULABLE_FOR);
        backoff.into_iter().chain(flush).min()
    }

    pub fn depths(&self) -> Depths {
        let (active, backoff) = (self.active.len(), self.backoff.len());
        let unschedulable = self.unschedulable.len();
        let gated = self.waiting.len() - active - backoff - unschedulable;
        Depths { active, backoff, unschedulable, gated }
    }

    fn backoff_of(&self, uid: &PodUid) -> Duration {
        let attempts = self.attempts.get(uid).copied().unwrap_or(1).max(1);
        FIRST_BACKOFF.saturating_mul(1 << (attempts - 1).min(10)).min(LAST_BACKOFF)
    }

    fn arrive(&mut self) -> Place {
        self.arrivals += 1;
        Place::Active { arrival: self.arrivals }
    }

    fn wake_to(&mut self, retry_from: Moment, now: Moment) -> Place {
        if retry_from <= now { self.arrive() } else { Place::Backoff { until: retry_from } }
    }

    /// Moves those whose time has come.
    fn advance(&mut self, now: Moment) {
        while let Some((_, uid)) = self.backoff.first().filter(|(until, _)| *until <= now) {
            let uid = uid.clone();
            self.activate(&uid);
        }
        let old = |since: &Moment| *since + UNSCHEDULABLE_FOR <= now;
        while let Some((_, uid)) = self.unschedulable.first().filter(|(since, _)| old(since)) {
            let uid = uid.clone();
            self.activate(&uid);
        }
    }

    fn activate(&mut self, uid: &PodUid) {
        if let Some(waiting) = self.take_out(uid) {
            let place = self.arrive();
            self.put(waiting.pod, place);
        }
    }

    fn put(&mut self, pod: Arc<PodInfo>, place: Place) {
        let uid = pod.uid.clone();
        match place {
            Place::Active { arrival } => {
                self.active.insert((Reverse(pod.priority), arrival, uid.clone()));
            }
            Place::Backoff { until } => {
                self.backoff.insert((until, uid.clone()));
            }
            Place::Unschedulable { since, .. } => {
                self.unschedulable.insert((since, uid.clone()));
            }
            Place::Gated => {}
        }
        self.waiting.insert(uid, Waiting { pod, place });
    }

    fn take_out(&mut self, uid: &PodUid) -> Option<Waiting> {
        let waiting = self.waiting.remove(uid)?;
        match waiting.place {
            Place::Active { arrival } => {
                let entry = (Reverse(waiting.pod.priority), arrival, uid.clone());
                self.active.remove(&entry);
            }
            Place::Backoff { until } => {
                self.backoff.remove(&(until, uid.clone()));
            }
            Place::Unschedulable { since, .. } => {
                self.unschedulable.remove(&(since, uid.clone()));
            }
            Place::Gated => {}
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    fn pod(name: &str, priority: i32) -> PodInfo {
        let mut pod = PodInfo::from_pod(&skiff_proto::model::Pod::default());
        pod.uid = name.into();
        pod.priority = priority;
        pod
    }

    fn pop(queue: &mut SchedulingQueue, now: Moment) -> Option<String> {
        queue.pop(now).map(|pod| pod.uid.to_string())
    }

    #[test]
    fn gives_the_highest_priority_then_the_first_come() {
        let mut queue = SchedulingQueue::default();
        for (name, priority) in [("a", 0), ("b", 0), ("vip", 100), ("low", -1)] {
            queue.add(pod(name, priority).into());
        }
        let order: Vec<_> = std::iter::from_fn(|| pop(&mut queue, at(0))).collect();
        assert_eq!(order, ["vip", "a", "b", "low"]);
    }

    #[test]
    fn backs_off_one_to_ten_seconds() {
        let mut queue = SchedulingQueue::default();
        queue.add(pod("a", 0).into());
        let (mut now, mut waits) = (at(0), Vec::new());
        for _ in 0..6 {
            let popped = queue.pop(now).expect("its time has come");
            queue.add_backoff(popped, now);
            let next = queue.next_moment().expect("it waits");
            assert_eq!(pop(&mut queue, next - Duration::from_millis(1)), None);
            waits.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn only_an_event_that_helps_wakes() {
        let mut queue = SchedulingQueue::default();
        queue.add(pod("a", 0).into());
        queue.add(pod("b", 0).into());
        for refused_by in [0b01, 0b10] {
            let popped = queue.pop(at(0)).expect("waits");
            queue.add_unschedulable(popped, refused_by, at(0));
        }
        queue.wake(at(2), |_, refused_by| refused_by == 0b10);
        assert_eq!(pop(&mut queue, at(2)).as_deref(), Some("b"));
        assert_eq!(pop(&mut queue, at(2)), None);
        assert_eq!(queue.depths(), Depths { unschedulable: 1, ..Depths::default() });
    }

    #[test]
    fn an_event_during_the_back_off_waits_for_its_end() {
        let mut queue = SchedulingQueue::default();
        queue.add(pod("a", 0).into());
        let popped = queue.pop(at(0)).expect("waits");
        queue.add_unschedulable(popped, 1, at(0));
        queue.wake(Duration::from_millis(10), |_, _| true);
        assert_eq!(pop(&mut queue, Duration::from_millis(10)), None);
        assert_eq!(queue.next_moment(), Some(at(1)));
        assert_eq!(pop(&mut queue, at(1)).as_deref(), Some("a"));
    }

    #[test]
    fn tries_again_after_five_minutes() {
        let mut queue = SchedulingQueue::default();
        queue.add(pod("a", 0).into());
        let popped = queue.pop(at(10)).expect("waits");
        queue.add_unschedulable(popped, 1, at(10));
        assert_eq!(queue.next_moment(), Some(at(310)));
        assert_eq!(pop(&mut queue, at(309)), None);
        assert_eq!(pop(&mut queue, at(310)).as_deref(), Some("a"));
    }

    #[test]
    fn a_gate_holds_until_it_is_taken_away() {
        let mut queue = SchedulingQueue::default();
        queue.add(PodInfo { gated: true, ..pod("a", 0) }.into());
        assert_eq!(pop(&mut queue, at(1000)), None);
        assert_eq!(queue.depths().gated, 1);
        queue.update(pod("a", 0).into(), at(1000));
        assert_eq!(pop(&mut queue, at(1000)).as_deref(), Some("a"));
    }

    #[test]
    fn a_status_update_does_not_wake_but_a_new_request_does() {
        let mut queue = SchedulingQueue::default();
        queue.add(pod("a", 0).into());
        let popped = queue.pop(at(0)).expect("waits");
        queue.add_unschedulable(popped, 1, at(0));
        let condition = Some(("False".into(), "Unschedulable".into(), String::new()));
        queue.update(PodInfo { scheduled_condition: condition, ..pod("a", 0) }.into(), at(5));
        assert_eq!(pop(&mut queue, at(5)), None);
        let mut changed = pod("a", 0);
        changed.requests.milli_cpu = 1;
        queue.update(changed.into(), at(5));
        assert_eq!(pop(&mut queue, at(5)).as_deref(), Some("a"));
    }

    #[test]
    fn a_removed_pod_is_forgotten() {
        let mut queue = SchedulingQueue::default();
        queue.add(pod("a", 0).into());
        queue.remove(&"a".into());
        assert_eq!(pop(&mut queue, at(0)), None);
        assert_eq!(queue.depths(), Depths::default());
    }
}

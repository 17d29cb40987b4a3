//! The scheduler's whole state and every decision, without I/O: what the cluster tells goes
//! in, decisions come out, time and randomness are given.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use skiff_proto::Labels;

use crate::framework::{Attempt, ClusterEvent, Framework, NO_NODES, Rejected};
use crate::nodes::{NodeId, NodeInfo, Nodes};
use crate::pod::{PodInfo, PodUid};
use crate::preemption::{self, Preemption};
use crate::queue::{Depths, Moment, SchedulingQueue};
use crate::random::Random;

/// How long after a successful binding the watch may take to show it.
const ASSUMED_FOR: Duration = Duration::from_secs(30);

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Bind, then report by `bound` or `bind_failed`. The room is taken already.
    Bind { pod: Arc<PodInfo>, node: Arc<str> },
    /// Tell why the pod waits, and carry out the preemption if there is one.
    Wait { pod: Arc<PodInfo>, message: String, preemption: Option<Preemption> },
}

/// A pod whose room is taken though the API does not show it yet.
#[derive(Debug)]
struct Assumed {
    pod: Arc<PodInfo>,
    /// Set once the binding was accepted.
    expires: Option<Moment>,
}

pub struct Scheduler {
    name: String,
    framework: Framework,
    nodes: Nodes,
    queue: SchedulingQueue,
    assumed: HashMap<PodUid, Assumed>,
    expiries: BTreeSet<(Moment, PodUid)>,
    start: NodeId,
    random: Random,
}

impl Scheduler {
    /// `name` is the `schedulerName` of the pods it places.
    pub fn new(name: &str, framework: Framework, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            framework,
            nodes: Nodes::default(),
            queue: SchedulingQueue::default(),
            assumed: HashMap::new(),
            expiries: BTreeSet::new(),
            start: 0,
            random: Random::new(seed),
        }
    }

    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    pub fn depths(&self) -> Depths {
        self.queue.depths()
    }

    pub fn set_node(&mut self, node: NodeInfo, now: Moment) {
        let Some(old) = self.nodes.set_node(node.clone()) else {
            return self.wake(&ClusterEvent::NodeAdded(&node), now);
        };
        // Heartbeats change nothing that matters here.
        if old != node {
            self.wake(&ClusterEvent::NodeUpdated { old: &old, new: &node }, now);
        }
    }

    pub fn remove_node(&mut self, name: &str, now: Moment) {
        if let Some(old) = self.nodes.remove_node(name) {
            self.wake(&ClusterEvent::NodeRemoved(&old), now);
        }
    }

    /// The labels of a namespace, or `None` once it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        match labels {
            Some(labels) => self.nodes.namespaces.insert(name.to_owned(), labels),
            None => self.nodes.namespaces.remove(name),
        };
    }

    /// A pod as the API shows it now.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>, now: Moment) {
        if pod.finished {
            self.remove_pod(&pod.uid, now);
        } else if !pod.node_name.is_empty() {
            self.set_assigned(pod, now);
        } else if let Some(assumed) = self.assumed.get_mut(&pod.uid) {
            // Its binding is under way; this is what to come back to if that fails.
            assumed.pod = pod;
        } else if pod.terminating || pod.scheduler_name != self.name {
            self.queue.remove(&pod.uid);
            self.nodes.withdraw(&pod.uid);
        } else {
            if !pod.nominated_node.is_empty() {
                self.nodes.nominate(&pod, &pod.nominated_node);
            }
            self.queue.update(pod, now);
        }
    }

    fn set_assigned(&mut self, pod: Arc<PodInfo>, now: Moment) {
        self.forget_assumed(&pod.uid);
        self.queue.remove(&pod.uid);
        self.nodes.withdraw(&pod.uid);
        let home = self.nodes.home(&pod.uid);
        let moved = home.is_none_or(|(node, _)| *node.info.name != *pod.node_name);
        let relabelled = home.is_some_and(|(_, known)| known.labels != pod.labels);
        let was_elsewhere = home.filter(|_| moved).map(|(_, known)| known.clone());
        self.nodes.place(&pod, &pod.node_name);
        if let Some(known) = was_elsewhere {
            self.wake(&ClusterEvent::PodRemoved(&known), now);
        }
        if moved || relabelled {
            self.wake(&ClusterEvent::PodPlaced(&pod), now);
        }
    }

    /// The pod is gone or has finished.
    pub fn remove_pod(&mut self, uid: &PodUid, now: Moment) {
        self.forget_assumed(uid);
        self.queue.remove(uid);
        self.nodes.withdraw(uid);
        if let Some(pod) = self.nodes.take_away(uid) {
            self.wake(&ClusterEvent::PodRemoved(&pod), now);
        }
    }

    /// Tries the next pod. `None`: nothing to do until something changes or `next_moment`.
    pub fn decide(&mut self, now: Moment) -> Option<Decision> {
        self.expire(now);
        let pod = self.queue.pop(now)?;
        let (start, random) = (&mut self.start, &mut self.random);
        match self.framework.schedule(&pod, &self.nodes, start, random) {
            Attempt::Fits { node } => Some(self.assume(pod, node, now)),
            Attempt::Rejected(rejected) => Some(self.refuse(pod, rejected, now)),
        }
    }

    /// When `decide` may have something to do without any change.
    pub fn next_moment(&self) -> Option<Moment> {
        let expiry = self.expiries.first().map(|(at, _)| *at);
        self.queue.next_moment().into_iter().chain(expiry).min()
    }

    /// The API accepted the binding; the watch will show it.
    pub fn bound(&mut self, uid: &PodUid, now: Moment) {
        if let Some(assumed) = self.assumed.get_mut(uid) {
            let expires = now + ASSUMED_FOR;
            assumed.expires = Some(expires);
            self.expiries.insert((expires, uid.clone()));
        }
    }

    /// The API refused the binding: the room is free again, the pod waits and is tried anew.
    pub fn bind_failed(&mut self, uid: &PodUid, now: Moment) {
        // Meanwhile the watch may have shown it assigned or deleted.
        if let Some(pod) = self.forget_assumed(uid) {
            self.give_back(uid, now);
            if pod.terminating {
                self.queue.remove(uid);
            } else {
                self.queue.add_backoff(pod, now);
            }
        }
    }

    fn assume(&mut self, pod: Arc<PodInfo>, node: NodeId, now: Moment) -> Decision {
        let node = self.nodes.at(node).map(|n| n.info.name.clone()).unwrap_or_default();
        self.nodes.withdraw(&pod.uid);
        self.nodes.place(&pod, &node);
        let assumed = Assumed { pod: pod.clone(), expires: None };
        self.assumed.insert(pod.uid.clone(), assumed);
        self.wake(&ClusterEvent::PodPlaced(&pod), now);
        Decision::Bind { pod, node }
    }

    fn refuse(&mut self, pod: Arc<PodInfo>, rejected: Rejected, now: Moment) -> Decision {
        let mut message = rejected.diagnosis.message();
        let outcome = if self.nodes.is_empty() {
            debug_assert_eq!(message, NO_NODES);
            Ok(None)
        } else {
            let nodes = &mut self.nodes;
            preemption::preempt(&self.framework, nodes, &pod, &rejected.resolvable).map(Some)
        };
        let preemption = outcome.unwrap_or_else(|why| {
            message.push_str(&format!(" preemption: {why}"));
            None
        });
        let waiting = match &preemption {
            Some(made) => {
                self.nodes.nominate(&pod, &made.node);
                Arc::new(PodInfo { nominated_node: made.node.to_string(), ..(*pod).clone() })
            }
            None => pod.clone(),
        };
        self.queue.add_unschedulable(waiting, rejected.by, now);
        Decision::Wait { pod, message, preemption }
    }

    fn forget_assumed(&mut self, uid: &PodUid) -> Option<Arc<PodInfo>> {
        let assumed = self.assumed.remove(uid)?;
        if let Some(expires) = assumed.expires {
            self.expiries.remove(&(expires, uid.clone()));
        }
        Some(assumed.pod)
    }

    fn give_back(&mut self, uid: &PodUid, now: Moment) {
        if let Some(placed) = self.nodes.take_away(uid) {
            self.wake(&ClusterEvent::PodRemoved(&placed), now);
        }
    }

    /// A binding that was accepted but never shown was lost: the pod is tried again.
    fn expire(&mut self, now: Moment) {
        while let Some((_, uid)) = self.expiries.first().filter(|(at, _)| *at <= now).cloned() {
            if let Some(pod) = self.forget_assumed(&uid) {
                self.give_back(&uid, now);
                self.queue.add(pod);
            }
        }
    }

    fn wake(&mut self, event: &ClusterEvent<'_>, now: Moment) {
        let framework = &self.framework;
        self.queue.wake(now, |pod, by| framework.may_help(event, pod, by));
    }
}

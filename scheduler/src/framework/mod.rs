//! The frame that plugins fill. For each pod a plugin *prepares* once: it looks at the
//! cluster and returns a closure over what it found, which is then asked node by node. The
//! closure is the state of the cycle; a plugin that has nothing to say returns none and
//! costs nothing. That a pod does not fit is a verdict, never an error.

mod cycle;
mod diagnosis;
mod event;
mod score;
mod verdict;

pub use cycle::{Attempt, Framework, Rejected};
pub use diagnosis::{Diagnosis, NO_NODES};
pub use event::ClusterEvent;
pub use score::{MAX_SCORE, NodeScore, Normalize};
pub use verdict::{Reason, Verdict};

use crate::nodes::{NodeState, Nodes};
use crate::pod::PodInfo;

/// Judges one node for the pod it was prepared for.
pub type NodeFilter<'a> = Box<dyn Fn(&NodeState) -> Verdict + 'a>;

/// Says which nodes can take a pod.
pub trait Filter: Send + Sync {
    /// Upstream's name of the plugin.
    fn name(&self) -> &'static str;

    /// `None`: every node passes.
    fn prepare<'a>(&'a self, pod: &'a PodInfo, nodes: &'a Nodes) -> Option<NodeFilter<'a>>;

    /// Whether a pod that this plugin kept from a node may fit after `event`. A wrong
    /// "yes" costs an attempt, a wrong "no" leaves the pod waiting for minutes.
    fn may_help(&self, event: &ClusterEvent<'_>, pod: &PodInfo) -> bool;
}

/// Says which of the nodes that can take a pod should.
pub trait Score: Send + Sync {
    fn name(&self) -> &'static str;

    fn weight(&self) -> i64;

    /// `None`: all nodes are alike. `feasible` are the nodes that passed the filters.
    fn prepare<'a>(
        &'a self,
        pod: &'a PodInfo,
        nodes: &'a Nodes,
        feasible: &[&NodeState],
    ) -> Option<NodeScore<'a>>;
}

//! NodePorts: two pods on a node cannot take the same `hostPort`.

use crate::framework::{ClusterEvent, Filter, NodeFilter, Verdict};
use crate::nodes::{NodeState, Nodes};
use crate::pod::PodInfo;

pub struct NodePorts;

const REASON: &str = "node(s) didn't have free ports for the requested pod ports";

fn conflict(pod: &PodInfo, other: &PodInfo) -> bool {
    pod.host_ports.iter().any(|mine| other.host_ports.iter().any(|theirs| mine.conflicts(theirs)))
}

impl Filter for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, _: &'a Nodes) -> Option<NodeFilter<'a>> {
        if pod.host_ports.is_empty() {
            return None;
        }
        Some(Box::new(|node: &NodeState| {
            if node.pods.values().any(|other| conflict(pod, other)) {
                Verdict::unschedulable(REASON)
            } else {
                Verdict::Fits
            }
        }))
    }

    fn may_help(&self, event: &ClusterEvent<'_>, pod: &PodInfo) -> bool {
        match event {
            ClusterEvent::NodeAdded(_) => true,
            ClusterEvent::PodRemoved(other) => conflict(pod, other),
            _ => false,
        }
    }
}

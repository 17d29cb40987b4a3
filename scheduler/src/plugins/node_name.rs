//! NodeName: a pod that asks for a node by `spec.nodeName` goes nowhere else.

use crate::framework::{ClusterEvent, Filter, NodeFilter, Verdict};
use crate::nodes::Nodes;
use crate::pod::PodInfo;

pub struct NodeName;

const REASON: &str = "node(s) didn't match the requested node name";

impl Filter for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, _: &'a Nodes) -> Option<NodeFilter<'a>> {
        if pod.node_name.is_empty() {
            return None;
        }
        Some(Box::new(|node| Verdict::required(*node.info.name == *pod.node_name, REASON)))
    }

    fn may_help(&self, event: &ClusterEvent<'_>, pod: &PodInfo) -> bool {
        event.now_satisfies(|node| *node.name == *pod.node_name)
    }
}

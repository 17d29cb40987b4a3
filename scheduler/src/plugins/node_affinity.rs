//! NodeAffinity: `nodeSelector` and node affinity, required and preferred.

use crate::framework::{ClusterEvent, Filter, NodeFilter, NodeScore, Normalize, Score, Verdict};
use crate::nodes::{NodeInfo, NodeState, Nodes};
use crate::pod::PodInfo;

pub struct NodeAffinity;

const REASON: &str = "node(s) didn't match Pod's node affinity/selector";

/// All of the selector, and one of the required terms.
pub(super) fn matches(node: &NodeInfo, pod: &PodInfo) -> bool {
    let rules = &pod.rules;
    rules.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
        && rules.required_nodes.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(node)))
}

impl Filter for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, _: &'a Nodes) -> Option<NodeFilter<'a>> {
        if pod.rules.node_selector.is_empty() && pod.rules.required_nodes.is_none() {
            return None;
        }
        Some(Box::new(|node| Verdict::required(matches(&node.info, pod), REASON)))
    }

    fn may_help(&self, event: &ClusterEvent<'_>, pod: &PodInfo) -> bool {
        event.now_satisfies(|node| matches(node, pod))
    }
}

impl Score for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn prepare<'a>(
        &'a self,
        pod: &'a PodInfo,
        _: &'a Nodes,
        _: &[&NodeState],
    ) -> Option<NodeScore<'a>> {
        let preferred = &pod.rules.preferred_nodes;
        if preferred.is_empty() {
            return None;
        }
        let score = |node: &NodeState| {
            let liked = preferred.iter().filter(|(_, term)| term.matches(&node.info));
            Some(liked.map(|(weight, _)| weight).sum())
        };
        Some(NodeScore { score: Box::new(score), normalize: Normalize::Highest })
    }
}

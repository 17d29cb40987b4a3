//! TaintToleration: NoSchedule and NoExecute taints keep pods away unless tolerated;
//! PreferNoSchedule ones only lower a node's score.

use skiff_proto::model::Taint;

use crate::framework::{ClusterEvent, Filter, NodeFilter, NodeScore, Normalize, Score, Verdict};
use crate::nodes::{NodeInfo, NodeState, Nodes};
use crate::pod::PodInfo;
use crate::terms::tolerates;

pub struct TaintToleration;

/// The first taint that keeps the pod away.
pub(super) fn untolerated<'n>(node: &'n NodeInfo, pod: &PodInfo) -> Option<&'n Taint> {
    let forbids = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    node.taints.iter().filter(forbids).find(|taint| !tolerates(&pod.rules.tolerations, taint))
}

impl Filter for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, _: &'a Nodes) -> Option<NodeFilter<'a>> {
        Some(Box::new(|node| match untolerated(&node.info, pod) {
            None => Verdict::Fits,
            Some(taint) => Verdict::unresolvable(format!(
                "node(s) had untolerated taint {{{}: {}}}",
                taint.key, taint.value
            )),
        }))
    }

    fn may_help(&self, event: &ClusterEvent<'_>, pod: &PodInfo) -> bool {
        event.now_satisfies(|node| untolerated(node, pod).is_none())
    }
}

impl Score for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn weight(&self) -> i64 {
        3
    }

    fn prepare<'a>(
        &'a self,
        pod: &'a PodInfo,
        _: &'a Nodes,
        feasible: &[&NodeState],
    ) -> Option<NodeScore<'a>> {
        let soft = |taint: &&Taint| taint.effect == "PreferNoSchedule";
        if !feasible.iter().any(|node| node.info.taints.iter().any(|taint| soft(&taint))) {
            return None;
        }
        let score = move |node: &NodeState| {
            let disliked = node.info.taints.iter().filter(soft);
            let disliked = disliked.filter(|taint| !tolerates(&pod.rules.tolerations, taint));
            Some(disliked.count() as i64)
        };
        Some(NodeScore { score: Box::new(score), normalize: Normalize::HighestReversed })
    }
}

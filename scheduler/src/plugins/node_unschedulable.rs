//! NodeUnschedulable: a cordoned node takes only pods that tolerate it.

use skiff_proto::model::Taint;

use crate::framework::{ClusterEvent, Filter, NodeFilter, Verdict};
use crate::nodes::{NodeInfo, Nodes};
use crate::pod::PodInfo;
use crate::terms::tolerates;

pub struct NodeUnschedulable;

const REASON: &str = "node(s) were unschedulable";

fn takes(node: &NodeInfo, pod: &PodInfo) -> bool {
    if !node.unschedulable {
        return true;
    }
    let cordon = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        ..Taint::default()
    };
    tolerates(&pod.rules.tolerations, &cordon)
}

impl Filter for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, _: &'a Nodes) -> Option<NodeFilter<'a>> {
        Some(Box::new(|node| Verdict::required(takes(&node.info, pod), REASON)))
    }

    fn may_help(&self, event: &ClusterEvent<'_>, pod: &PodInfo) -> bool {
        event.now_satisfies(|node| takes(node, pod))
    }
}

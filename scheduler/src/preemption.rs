//! Preemption: which pods of lower priority to remove so that a pod fits. The pod is then
//! nominated to the node and waits until they are gone.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::framework::{Diagnosis, Framework, Verdict};
use crate::nodes::{NodeId, Nodes};
use crate::pod::PodInfo;

/// At least this many nodes are tried, and a tenth of a large cluster, as upstream.
const MIN_CANDIDATES: usize = 100;

const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";

/// Room to be made on a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Preemption {
    pub node: Arc<str>,
    /// Highest priority first.
    pub victims: Vec<Arc<PodInfo>>,
}

/// `resolvable` are the nodes where fewer pods may help. The failure says why none will do.
/// `nodes` is left as it was found.
pub fn preempt(
    framework: &Framework,
    nodes: &mut Nodes,
    pod: &PodInfo,
    resolvable: &[NodeId],
) -> Result<Preemption, String> {
    eligible(nodes, pod)?;
    let mut diagnosis = Diagnosis::new(nodes.len());
    diagnosis.count(NOT_HELPFUL, nodes.len() - resolvable.len());
    let wanted = (nodes.len() / 10).max(MIN_CANDIDATES);
    let mut candidates = Vec::new();
    for id in resolvable {
        match victims_on(framework, nodes, pod, *id) {
            Ok(candidate) => candidates.push(candidate),
            Err(Verdict::Unschedulable(reasons) | Verdict::Unresolvable(reasons)) => {
                reasons.into_iter().for_each(|reason| diagnosis.count(reason, 1));
            }
            Err(Verdict::Fits) => {}
        }
        if candidates.len() >= wanted {
            break;
        }
    }
    candidates.into_iter().min_by_key(cost).ok_or_else(|| diagnosis.message())
}

fn eligible(nodes: &Nodes, pod: &PodInfo) -> Result<(), String> {
    if pod.never_preempts {
        return Err("not eligible due to preemptionPolicy=Never.".to_owned());
    }
    let leaving = |other: &Arc<PodInfo>| other.terminating && other.priority < pod.priority;
    if nodes.get(&pod.nominated_node).is_some_and(|node| node.pods.values().any(leaving)) {
        return Err("not eligible due to a terminating pod on the nominated node.".to_owned());
    }
    Ok(())
}

/// Upstream's order: the mildest highest victim, then the smallest sum of priorities, then
/// the fewest victims, then those that began last.
fn cost(candidate: &Preemption) -> (i32, i64, usize, Reverse<Option<skiff_proto::Timestamp>>) {
    let victims = &candidate.victims;
    let highest = victims.iter().map(|v| v.priority).max().unwrap_or(i32::MIN);
    // Moved up so that a few very low priorities do not outweigh their number.
    let sum = victims.iter().map(|v| i64::from(v.priority) + i64::from(i32::MAX) + 1).sum();
    let began = victims.iter().filter(|v| v.priority == highest).filter_map(|v| v.started);
    (highest, sum, victims.len(), Reverse(began.min()))
}

/// Takes all lower pods away in thought, sees whether the pod fits, and gives back as many
/// as will fit beside it, the most important first.
fn victims_on(
    framework: &Framework,
    nodes: &mut Nodes,
    pod: &PodInfo,
    id: NodeId,
) -> Result<Preemption, Verdict> {
    let Some(state) = nodes.at(id) else {
        return Err(Verdict::unresolvable(NOT_HELPFUL));
    };
    let node = state.info.name.clone();
    let lower = state.pods.values().filter(|other| other.priority < pod.priority);
    let mut lower: Vec<Arc<PodInfo>> = lower.cloned().collect();
    if lower.is_empty() {
        return Err(Verdict::unresolvable(NO_VICTIMS));
    }
    lower.sort_by(|a, b| {
        b.priority.cmp(&a.priority).then(a.started.cmp(&b.started)).then(a.uid.cmp(&b.uid))
    });
    for other in &lower {
        nodes.take_away(&other.uid);
    }
    let verdict = judge(framework, nodes, pod, id);
    let mut victims = Vec::new();
    if verdict == Verdict::Fits {
        for other in &lower {
            nodes.place(other, &node);
            if judge(framework, nodes, pod, id) != Verdict::Fits {
                nodes.take_away(&other.uid);
                victims.push(other.clone());
            }
        }
    }
    for other in &lower {
        nodes.place(other, &node);
    }
    match verdict {
        Verdict::Fits => Ok(Preemption { node, victims }),
        refused => Err(refused),
    }
}

fn judge(framework: &Framework, nodes: &Nodes, pod: &PodInfo, id: NodeId) -> Verdict {
    nodes.at(id).map_or(Verdict::Unresolvable(Vec::new()), |node| framework.judge(pod, nodes, node))
}

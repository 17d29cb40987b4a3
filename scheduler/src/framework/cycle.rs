//! One attempt at one pod: filter until enough nodes fit, score those, take the best.

use super::diagnosis::Diagnosis;
use super::event::ClusterEvent;
use super::verdict::Verdict;
use super::{Filter, Score};
use crate::nodes::{NodeId, NodeState, Nodes};
use crate::pod::PodInfo;
use crate::random::Random;

/// Up to this many nodes are all looked at, and at least this many found to fit.
const MIN_FEASIBLE_NODES: usize = 100;
/// Of very large clusters at least this share must be found to fit.
const MIN_FEASIBLE_PERCENT: usize = 5;

/// The plugins, in the order in which they judge.
pub struct Framework {
    pub filters: Vec<Box<dyn Filter>>,
    pub scores: Vec<Box<dyn Score>>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Attempt {
    Fits { node: NodeId },
    Rejected(Rejected),
}

/// No node would do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rejected {
    pub diagnosis: Diagnosis,
    /// Bit n: filter n refused some node. None set: there was no node to ask.
    pub by: u32,
    /// Nodes that might do if pods were removed from them.
    pub resolvable: Vec<NodeId>,
}

/// A filter's number in the framework beside its prepared state.
type Prepared<'a> = (usize, super::NodeFilter<'a>);

impl Framework {
    /// `start` is the slot to begin with and is moved on, so that in a large cluster, where
    /// an attempt looks at a part of the nodes only, all get their turn.
    pub fn schedule(
        &self,
        pod: &PodInfo,
        nodes: &Nodes,
        start: &mut usize,
        random: &mut Random,
    ) -> Attempt {
        let filters = self.prepare(pod, nodes);
        let mut rejected =
            Rejected { diagnosis: Diagnosis::new(nodes.len()), ..Rejected::default() };
        let feasible = match pod.only_nodes() {
            Some(names) => self.filter_named(&names, nodes, &filters, &mut rejected),
            None => filter_all(pod, nodes, &filters, start, &mut rejected),
        };
        drop(filters);
        match feasible.as_slice() {
            [] => Attempt::Rejected(rejected),
            [only] => Attempt::Fits { node: only.id },
            several => Attempt::Fits { node: self.best(pod, nodes, several, random) },
        }
    }

    /// What the filters say of one node as the cluster stands now.
    pub fn judge(&self, pod: &PodInfo, nodes: &Nodes, node: &NodeState) -> Verdict {
        let filters = self.prepare(pod, nodes);
        let mut verdicts = filters.iter().map(|(_, filter)| filter(node));
        verdicts.find(|verdict| *verdict != Verdict::Fits).unwrap_or(Verdict::Fits)
    }

    /// Whether `event` may help a pod that was refused by these filters.
    pub fn may_help(&self, event: &ClusterEvent<'_>, pod: &PodInfo, by: u32) -> bool {
        let mut refusing = self.filters.iter().enumerate().filter(|(n, _)| by & (1 << n) != 0);
        by == 0 || refusing.any(|(_, filter)| filter.may_help(event, pod))
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, nodes: &'a Nodes) -> Vec<Prepared<'a>> {
        let prepared = self.filters.iter().enumerate();
        prepared.filter_map(|(n, f)| f.prepare(pod, nodes).map(|run| (n, run))).collect()
    }

    fn filter_named<'a>(
        &self,
        names: &[&str],
        nodes: &'a Nodes,
        filters: &[Prepared<'_>],
        rejected: &mut Rejected,
    ) -> Vec<&'a NodeState> {
        let named: Vec<&NodeState> = names.iter().filter_map(|name| nodes.get(name)).collect();
        let absent = nodes.len().saturating_sub(named.len());
        let affinity = self.filters.iter().position(|f| f.name() == "NodeAffinity");
        if absent > 0 {
            rejected.by |= affinity.map_or(0, |n| 1 << n);
            let reason = "node(s) didn't satisfy plugin(s) [NodeAffinity]";
            rejected.diagnosis.count(reason, absent);
        }
        named.into_iter().filter(|node| judge(node, filters, rejected)).collect()
    }

    fn best(
        &self,
        pod: &PodInfo,
        nodes: &Nodes,
        feasible: &[&NodeState],
        random: &mut Random,
    ) -> NodeId {
        let mut totals = vec![0i64; feasible.len()];
        for plugin in &self.scores {
            let Some(prepared) = plugin.prepare(pod, nodes, feasible) else { continue };
            let raw: Vec<Option<i64>> =
                feasible.iter().map(|node| (prepared.score)(node)).collect();
            for (total, score) in totals.iter_mut().zip(prepared.normalize.apply(&raw)) {
                *total += score * plugin.weight();
            }
        }
        let highest = totals.iter().copied().max().unwrap_or(0);
        let ties = totals.iter().zip(feasible).filter(|(total, _)| **total == highest);
        let ties: Vec<NodeId> = ties.map(|(_, node)| node.id).collect();
        ties[random.below(ties.len())]
    }
}

/// Asks each node in turn until enough fit.
fn filter_all<'a>(
    pod: &PodInfo,
    nodes: &'a Nodes,
    filters: &[Prepared<'_>],
    start: &mut usize,
    rejected: &mut Rejected,
) -> Vec<&'a NodeState> {
    // Room made by a preemption is taken up where it was made.
    if !pod.nominated_node.is_empty()
        && let Some(node) = nodes.get(&pod.nominated_node)
        && judge(node, filters, &mut Rejected::default())
    {
        return vec![node];
    }
    let (slots, wanted) = (nodes.slot_count(), feasible_wanted(nodes.len()));
    let mut feasible = Vec::with_capacity(wanted.min(nodes.len()));
    let mut seen = 0;
    while seen < slots && feasible.len() < wanted {
        let id = (*start + seen) % slots;
        seen += 1;
        if let Some(node) = nodes.at(id)
            && judge(node, filters, rejected)
        {
            feasible.push(node);
        }
    }
    if slots > 0 {
        *start = (*start + seen) % slots;
    }
    feasible
}

/// Upstream's adaptive share: all up to 100 nodes, then 50 % falling to 5 %.
fn feasible_wanted(nodes: usize) -> usize {
    if nodes <= MIN_FEASIBLE_NODES {
        return MIN_FEASIBLE_NODES;
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(MIN_FEASIBLE_PERCENT);
    (nodes * percent / 100).max(MIN_FEASIBLE_NODES)
}

/// The first filter that refuses a node gives the reason.
fn judge(node: &NodeState, filters: &[Prepared<'_>], rejected: &mut Rejected) -> bool {
    for (number, filter) in filters {
        let (reasons, resolvable) = match filter(node) {
            Verdict::Fits => continue,
            Verdict::Unschedulable(reasons) => (reasons, true),
            Verdict::Unresolvable(reasons) => (reasons, false),
        };
        rejected.by |= 1 << number;
        if resolvable {
            rejected.resolvable.push(node.id);
        }
        for reason in reasons {
            rejected.diagnosis.count(reason, 1);
        }
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::feasible_wanted;

    #[test]
    fn looks_at_a_smaller_share_of_larger_clusters() {
        for (nodes, wanted) in [(3, 100), (100, 100), (150, 100), (1000, 420), (5000, 500)] {
            assert_eq!(feasible_wanted(nodes), wanted, "{nodes} nodes");
        }
        assert_eq!(feasible_wanted(10_000), 500);
    }
}

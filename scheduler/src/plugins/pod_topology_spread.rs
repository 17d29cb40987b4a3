//! PodTopologySpread: pods that a selector names are kept even over the domains of a
//! topology (zones, hosts). Hard constraints filter, soft ones score; a pod without any is
//! spread by default beside the other pods of its controller.

use std::collections::HashMap;

use crate::framework::{ClusterEvent, Filter, NodeFilter, NodeScore, Normalize, Score, Verdict};
use crate::nodes::{NodeId, NodeInfo, NodeState, Nodes};
use crate::pod::PodInfo;
use crate::terms::Spread;

use super::{node_affinity, taint_toleration};

pub struct PodTopologySpread;

const REASON: &str = "node(s) didn't match pod topology spread constraints";
const REASON_LABEL: &str =
    "node(s) didn't match pod topology spread constraints (missing required label)";
const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Whether a node's pods and its domain count, by the constraint's inclusion policies.
fn included(constraint: &Spread, node: &NodeInfo, pod: &PodInfo) -> bool {
    (!constraint.honor_affinity || node_affinity::matches(node, pod))
        && (!constraint.honor_taints || taint_toleration::untolerated(node, pod).is_none())
}

fn has_all<'c>(node: &NodeInfo, mut constraints: impl Iterator<Item = &'c Spread>) -> bool {
    constraints.all(|c| node.labels.contains_key(&c.topology_key))
}

/// Matching pods per node. Terminating ones are as good as gone.
fn counts(constraint: &Spread, pod: &PodInfo, nodes: &Nodes) -> HashMap<NodeId, i64> {
    let mut counts = HashMap::new();
    for (node, other) in nodes.in_namespace(&pod.key.namespace) {
        if node.present && !other.terminating && constraint.counts(&other.labels) {
            *counts.entry(node.id).or_default() += 1;
        }
    }
    counts
}

/// A hard constraint with the number of matching pods in each domain.
struct Domains<'a> {
    constraint: &'a Spread,
    counts: HashMap<&'a str, i64>,
    /// Of the emptiest domain; 0 as long as there are fewer domains than wanted.
    lowest: i64,
    /// The pod itself, where the constraint counts it.
    own: i64,
}

impl<'a> Domains<'a> {
    fn new(constraint: &'a Spread, pod: &PodInfo, nodes: &'a Nodes) -> Self {
        let per_node = counts(constraint, pod, nodes);
        let hard = || pod.rules.spread.iter().filter(|c| c.hard);
        let mut domains: HashMap<&str, i64> = HashMap::new();
        for node in nodes.iter() {
            if has_all(&node.info, hard())
                && included(constraint, &node.info, pod)
                && let Some(domain) = node.topology(&constraint.topology_key)
            {
                let count = per_node.get(&node.id).copied().unwrap_or(0);
                *domains.entry(domain).or_default() += count;
            }
        }
        let enough = domains.len() as i64 >= constraint.min_domains;
        let lowest = if enough { domains.values().copied().min().unwrap_or(0) } else { 0 };
        let own = i64::from(constraint.counts(&pod.labels));
        Self { constraint, counts: domains, lowest, own }
    }

    fn judge(&self, node: &NodeState) -> Verdict {
        let Some(domain) = node.topology(&self.constraint.topology_key) else {
            return Verdict::unresolvable(REASON_LABEL);
        };
        let there = self.counts.get(domain).copied().unwrap_or(0);
        if there + self.own - self.lowest > self.constraint.max_skew {
            return Verdict::unschedulable(REASON);
        }
        Verdict::Fits
    }
}

impl Filter for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, nodes: &'a Nodes) -> Option<NodeFilter<'a>> {
        let hard = pod.rules.spread.iter().filter(|c| c.hard);
        let domains: Vec<Domains<'a>> = hard.map(|c| Domains::new(c, pod, nodes)).collect();
        if domains.is_empty() {
            return None;
        }
        Some(Box::new(move |node| {
            let verdicts = domains.iter().map(|d| d.judge(node));
            verdicts.into_iter().find(|v| *v != Verdict::Fits).unwrap_or(Verdict::Fits)
        }))
    }

    fn may_help(&self, event: &ClusterEvent<'_>, pod: &PodInfo) -> bool {
        match event {
            ClusterEvent::PodPlaced(other) | ClusterEvent::PodRemoved(other) => {
                let counted = |c: &Spread| c.hard && c.counts(&other.labels);
                other.key.namespace == pod.key.namespace && pod.rules.spread.iter().any(counted)
            }
            _ => event.changes_topology(),
        }
    }
}

/// A soft constraint with what scoring needs of it.
struct Soft<'a> {
    topology_key: &'a str,
    max_skew: i64,
    per_node: HashMap<NodeId, i64>,
    /// Empty for the host topology, where `per_node` says it.
    per_domain: HashMap<&'a str, i64>,
    /// Topologies of many domains would otherwise count for little.
    weight: f64,
}

impl<'a> Soft<'a> {
    fn new(
        topology_key: &'a str,
        max_skew: i64,
        per_node: HashMap<NodeId, i64>,
        feasible: &[&'a NodeState],
        nodes: &'a Nodes,
    ) -> Self {
        let mut per_domain = HashMap::new();
        if topology_key != HOST {
            let domains = feasible.iter().filter_map(|node| node.topology(topology_key));
            per_domain.extend(domains.map(|domain| (domain, 0)));
            for (id, count) in &per_node {
                let domain = nodes.at(*id).and_then(|node| node.topology(topology_key));
                if let Some(total) = domain.and_then(|domain| per_domain.get_mut(domain)) {
                    *total += count;
                }
            }
        }
        let size = if topology_key == HOST { feasible.len() } else { per_domain.len() };
        let weight = (size as f64 + 2.0).ln();
        Self { topology_key, max_skew, per_node, per_domain, weight }
    }

    fn score(&self, node: &NodeState) -> f64 {
        let Some(domain) = node.topology(self.topology_key) else { return 0.0 };
        let count = if self.topology_key == HOST {
            self.per_node.get(&node.id)
        } else {
            self.per_domain.get(domain)
        };
        // The skew that is allowed damps small differences.
        count.copied().unwrap_or(0) as f64 * self.weight + (self.max_skew - 1) as f64
    }
}

/// Upstream's default: zones may differ by 3 pods, hosts by 5.
fn default_constraints<'a>(
    pod: &PodInfo,
    nodes: &'a Nodes,
    feasible: &[&'a NodeState],
) -> Vec<Soft<'a>> {
    let Some(counted) = pod.controller.as_ref().and_then(|c| nodes.of_controller(c)) else {
        return Vec::new();
    };
    let per_node = || counted.iter().map(|(id, count)| (*id, i64::from(*count))).collect();
    [(ZONE, 3), (HOST, 5)]
        .map(|(key, max_skew)| Soft::new(key, max_skew, per_node(), feasible, nodes))
        .into()
}

impl Score for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn prepare<'a>(
        &'a self,
        pod: &'a PodInfo,
        nodes: &'a Nodes,
        feasible: &[&NodeState],
    ) -> Option<NodeScore<'a>> {
        // The list is the caller's, its nodes are the table's.
        let feasible: Vec<&'a NodeState> =
            feasible.iter().filter_map(|node| nodes.at(node.id)).collect();
        let explicit = !pod.rules.spread.is_empty();
        let wanted: Vec<&'a Spread> = pod.rules.spread.iter().filter(|c| !c.hard).collect();
        let has_labels = move |node: &NodeInfo| has_all(node, wanted.iter().copied());
        let soft: Vec<Soft<'a>> = if explicit {
            let labelled: Vec<&NodeState> =
                feasible.into_iter().filter(|node| has_labels(&node.info)).collect();
            let constraints = pod.rules.spread.iter().filter(|c| !c.hard);
            let soft = constraints.map(|c| {
                let mut per_node = counts(c, pod, nodes);
                per_node.retain(|id, _| {
                    let node = nodes.at(*id);
                    node.is_some_and(|n| has_labels(&n.info) && included(c, &n.info, pod))
                });
                Soft::new(&c.topology_key, c.max_skew, per_node, &labelled, nodes)
            });
            soft.collect()
        } else {
            default_constraints(pod, nodes, &feasible)
        };
        if soft.is_empty() {
            return None;
        }
        let score = move |node: &NodeState| {
            let sum: f64 = soft.iter().map(|c| c.score(node)).sum();
            has_labels(&node.info).then_some(sum.round() as i64)
        };
        Some(NodeScore { score: Box::new(score), normalize: Normalize::Spread })
    }
}

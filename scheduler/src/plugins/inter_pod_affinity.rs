//! InterPodAffinity: pods that want to be, or must not be, in one topology domain with
//! other pods. The rules of pods that are already placed concern the new one as well.

use std::collections::{HashMap, HashSet};

use crate::framework::{ClusterEvent, Filter, NodeFilter, NodeScore, Normalize, Score, Verdict};
use crate::nodes::{NodeState, Nodes};
use crate::pod::PodInfo;
use crate::terms::{Namespaces, PodTerm};

pub struct InterPodAffinity;

const AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
const EXISTING: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// A topology key with one of its values.
type Domain<'a> = (&'a str, &'a str);

fn matches(term: &PodTerm, pod: &PodInfo, namespaces: &Namespaces) -> bool {
    term.matches(&pod.key.namespace, &pod.labels, namespaces)
}

fn domain<'a>(term: &'a PodTerm, node: &'a NodeState) -> Option<Domain<'a>> {
    node.topology(&term.topology_key).map(|value| (term.topology_key.as_str(), value))
}

/// Calls with the placed pods that these terms can match, and maybe some others.
fn candidates<'a>(
    terms: impl Iterator<Item = &'a PodTerm>,
    nodes: &'a Nodes,
    mut call: impl FnMut(&'a NodeState, &'a PodInfo),
) {
    let mut namespaces: HashSet<&str> = HashSet::new();
    for term in terms {
        match term.only_namespaces() {
            Some(names) => namespaces.extend(names.iter().map(String::as_str)),
            None => return nodes.placed().for_each(|(node, pod)| call(node, pod)),
        }
    }
    for name in namespaces {
        nodes.in_namespace(name).for_each(|(node, pod)| call(node, pod));
    }
}

/// What the required rules come to for one pod.
#[derive(Default)]
struct Required<'a> {
    /// Domains that have a pod which all of the pod's affinity terms match.
    attracted: HashSet<Domain<'a>>,
    /// Domains with a pod that one of the pod's anti-affinity terms matches.
    repelled: HashSet<Domain<'a>>,
    /// Domains in which a placed pod wants none like this one.
    forbidden: HashSet<Domain<'a>>,
    /// The pod matches its own affinity: the first of a group may go anywhere.
    attracts_itself: bool,
}

impl<'a> Required<'a> {
    fn new(pod: &'a PodInfo, nodes: &'a Nodes) -> Self {
        let (rules, known) = (&pod.rules, &nodes.namespaces);
        let own = rules.affinity.iter().all(|term| matches(term, pod, known));
        let mut required = Self { attracts_itself: own, ..Self::default() };
        for (node, other) in nodes.with_pod_rules() {
            let terms = other.rules.anti_affinity.iter().filter(|t| matches(t, pod, known));
            required.forbidden.extend(terms.filter_map(|term| domain(term, node)));
        }
        candidates(rules.affinity.iter(), nodes, |node, other| {
            if rules.affinity.iter().all(|term| matches(term, other, known)) {
                let domains = rules.affinity.iter().filter_map(|term| domain(term, node));
                required.attracted.extend(domains);
            }
        });
        candidates(rules.anti_affinity.iter(), nodes, |node, other| {
            let terms = rules.anti_affinity.iter().filter(|t| matches(t, other, known));
            required.repelled.extend(terms.filter_map(|term| domain(term, node)));
        });
        required
    }

    fn judge(&self, pod: &PodInfo, node: &NodeState) -> Verdict {
        let among = |set: &HashSet<Domain<'a>>, term: &PodTerm| {
            let value = node.topology(&term.topology_key);
            value.is_some_and(|value| set.contains(&(term.topology_key.as_str(), value)))
        };
        let terms = &pod.rules.affinity;
        let labelled = terms.iter().all(|t| node.topology(&t.topology_key).is_some());
        let first = self.attracted.is_empty() && self.attracts_itself;
        if !labelled || !(first || terms.iter().all(|t| among(&self.attracted, t))) {
            return Verdict::unresolvable(AFFINITY);
        }
        if pod.rules.anti_affinity.iter().any(|t| among(&self.repelled, t)) {
            return Verdict::unschedulable(ANTI_AFFINITY);
        }
        let in_domain = |(key, value): &Domain<'a>| node.topology(key) == Some(*value);
        if self.forbidden.iter().any(in_domain) {
            return Verdict::unschedulable(EXISTING);
        }
        Verdict::Fits
    }
}

impl Filter for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, nodes: &'a Nodes) -> Option<NodeFilter<'a>> {
        let required = Required::new(pod, nodes);
        let rules = &pod.rules;
        let silent = rules.affinity.is_empty() && rules.anti_affinity.is_empty();
        if silent && required.forbidden.is_empty() {
            return None;
        }
        Some(Box::new(move |node| required.judge(pod, node)))
    }

    fn may_help(&self, event: &ClusterEvent<'_>, pod: &PodInfo) -> bool {
        match event {
            ClusterEvent::PodPlaced(_) => !pod.rules.affinity.is_empty(),
            ClusterEvent::PodRemoved(other) => {
                !pod.rules.anti_affinity.is_empty() || !other.rules.anti_affinity.is_empty()
            }
            _ => event.changes_topology(),
        }
    }
}

impl Score for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn prepare<'a>(
        &'a self,
        pod: &'a PodInfo,
        nodes: &'a Nodes,
        _: &[&NodeState],
    ) -> Option<NodeScore<'a>> {
        let known = &nodes.namespaces;
        let mut weights: HashMap<&str, HashMap<&str, i64>> = HashMap::new();
        let mut add = |term: &'a PodTerm, node: &'a NodeState, weight: i64| {
            if let Some((key, value)) = domain(term, node) {
                *weights.entry(key).or_default().entry(value).or_default() += weight;
            }
        };
        let preferred = &pod.rules.preferred_pods;
        candidates(preferred.iter().map(|(_, term)| term), nodes, |node, other| {
            for (weight, term) in preferred.iter().filter(|(_, t)| matches(t, other, known)) {
                add(term, node, *weight);
            }
        });
        for (node, other) in nodes.with_pod_rules() {
            // Upstream's hardPodAffinityWeight of 1: who requires this pod likes it near.
            let hard = other.rules.affinity.iter().map(|term| (1, term));
            let soft = other.rules.preferred_pods.iter().map(|(weight, term)| (*weight, term));
            for (weight, term) in hard.chain(soft).filter(|(_, t)| matches(t, pod, known)) {
                add(term, node, weight);
            }
        }
        if weights.is_empty() {
            return None;
        }
        let score = move |node: &NodeState| {
            let here = weights
                .iter()
                .filter_map(|(key, values)| node.topology(key).and_then(|value| values.get(value)));
            Some(here.sum())
        };
        Some(NodeScore { score: Box::new(score), normalize: Normalize::Range })
    }
}

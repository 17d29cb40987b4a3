//! NodeResourcesFit: what a pod requests must be free on the node, and emptier nodes are
//! better (LeastAllocated). BalancedAllocation: a node is better the more evenly its CPU
//! and memory are used, so that neither runs out alone.

use crate::framework::{
    ClusterEvent, Filter, MAX_SCORE, NodeFilter, NodeScore, Normalize, Reason, Score, Verdict,
};
use crate::nodes::{NodeInfo, NodeState, Nodes};
use crate::pod::PodInfo;
use crate::resources::Resources;

pub struct NodeResourcesFit;
pub struct BalancedAllocation;

/// Calls with each requested resource: its reason, the amount requested, and what the
/// node has and has given away.
fn each_requested(
    pod: &Resources,
    allocatable: &Resources,
    used: &Resources,
    mut call: impl FnMut(&dyn Fn() -> Reason, i64, i64, i64),
) {
    let (has, gave) = (allocatable, used);
    call(&|| "Insufficient cpu".into(), pod.milli_cpu, has.milli_cpu, gave.milli_cpu);
    call(&|| "Insufficient memory".into(), pod.memory, has.memory, gave.memory);
    call(
        &|| "Insufficient ephemeral-storage".into(),
        pod.ephemeral_storage,
        has.ephemeral_storage,
        gave.ephemeral_storage,
    );
    for (name, amount) in &pod.scalars {
        let reason = || Reason::from(format!("Insufficient {name}"));
        call(&reason, *amount, has.scalar(name), gave.scalar(name));
    }
}

fn fit(pod: &PodInfo, node: &NodeState) -> Verdict {
    let mut reasons: Vec<Reason> = Vec::new();
    let mut never = false;
    // Room that a preemption made belongs to the pod it was made for.
    let holds = |other: &&std::sync::Arc<PodInfo>| {
        other.uid != pod.uid
            && other.priority >= pod.priority
            && !node.pods.contains_key(&other.uid)
    };
    let nominated: Vec<_> = node.nominated.iter().filter(holds).collect();
    if (node.pods.len() + nominated.len()) as i64 + 1 > node.info.allowed_pods {
        reasons.push("Too many pods".into());
    }
    let with_nominated = (!nominated.is_empty()).then(|| {
        let mut used = node.requested.clone();
        nominated.iter().for_each(|other| used.add(&other.requests));
        used
    });
    let used = with_nominated.as_ref().unwrap_or(&node.requested);
    each_requested(&pod.requests, &node.info.allocatable, used, |reason, wanted, has, gave| {
        if wanted > 0 && wanted > has - gave {
            reasons.push(reason());
            never |= wanted > has;
        }
    });
    match (reasons.is_empty(), never) {
        (true, _) => Verdict::Fits,
        (false, false) => Verdict::Unschedulable(reasons),
        (false, true) => Verdict::Unresolvable(reasons),
    }
}

/// Whether an empty node would do.
fn fits_alone(pod: &PodInfo, node: &NodeInfo) -> bool {
    let mut fits = node.allowed_pods > 0;
    let nothing = Resources::default();
    each_requested(&pod.requests, &node.allocatable, &nothing, |_, wanted, has, _| {
        fits &= wanted <= has;
    });
    fits
}

impl Filter for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, _: &'a Nodes) -> Option<NodeFilter<'a>> {
        Some(Box::new(|node| fit(pod, node)))
    }

    fn may_help(&self, event: &ClusterEvent<'_>, pod: &PodInfo) -> bool {
        match event {
            ClusterEvent::NodeAdded(node) => fits_alone(pod, node),
            ClusterEvent::NodeUpdated { old, new } => {
                let more =
                    old.allocatable != new.allocatable || old.allowed_pods != new.allowed_pods;
                more && fits_alone(pod, new)
            }
            ClusterEvent::PodRemoved(_) => true,
            ClusterEvent::NodeRemoved(_) | ClusterEvent::PodPlaced(_) => false,
        }
    }
}

/// What would be used of CPU and memory with the pod on the node, and what there is.
fn usage(node: &NodeState, used: &Resources, pod: &Resources) -> [(i64, i64); 2] {
    let has = &node.info.allocatable;
    [(used.milli_cpu + pod.milli_cpu, has.milli_cpu), (used.memory + pod.memory, has.memory)]
}

impl Score for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn prepare<'a>(
        &'a self,
        pod: &'a PodInfo,
        _: &'a Nodes,
        _: &[&NodeState],
    ) -> Option<NodeScore<'a>> {
        let score = |node: &NodeState| {
            let usage = usage(node, &node.requested_for_scoring, &pod.requests_for_scoring);
            let free = usage.into_iter().filter(|(_, has)| *has > 0);
            let (sum, count) = free.fold((0, 0), |(sum, count), (used, has)| {
                (sum + (has - used).max(0) * MAX_SCORE / has, count + 1)
            });
            Some(if count == 0 { 0 } else { sum / count })
        };
        Some(NodeScore { score: Box::new(score), normalize: Normalize::AsIs })
    }
}

impl Score for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn prepare<'a>(
        &'a self,
        pod: &'a PodInfo,
        _: &'a Nodes,
        _: &[&NodeState],
    ) -> Option<NodeScore<'a>> {
        // A pod without requests changes no balance.
        if pod.requests.is_zero() {
            return None;
        }
        let score = |node: &NodeState| {
            let usage = usage(node, &node.requested, &pod.requests);
            if usage.iter().any(|(_, has)| *has <= 0) {
                return Some(MAX_SCORE);
            }
            let [cpu, memory] = usage.map(|(used, has)| (used as f64 / has as f64).min(1.0));
            // The standard deviation of two fractions is half their distance.
            Some(((1.0 - (cpu - memory).abs() / 2.0) * MAX_SCORE as f64) as i64)
        };
        Some(NodeScore { score: Box::new(score), normalize: Normalize::AsIs })
    }
}

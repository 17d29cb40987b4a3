//! The plugins, one file each, with upstream's names, reasons and weights.

mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources;
mod node_unschedulable;
mod pod_topology_spread;
mod taint_toleration;

pub use inter_pod_affinity::InterPodAffinity;
pub use node_affinity::NodeAffinity;
pub use node_name::NodeName;
pub use node_ports::NodePorts;
pub use node_resources::{BalancedAllocation, NodeResourcesFit};
pub use node_unschedulable::NodeUnschedulable;
pub use pod_topology_spread::PodTopologySpread;
pub use taint_toleration::TaintToleration;

use crate::framework::Framework;

/// Upstream's default profile. The order of the filters decides which reason a node shows:
/// cheap ones and those that no preemption can mend come first.
pub fn default_profile() -> Framework {
    Framework {
        filters: vec![
            Box::new(NodeUnschedulable),
            Box::new(NodeName),
            Box::new(TaintToleration),
            Box::new(NodeAffinity),
            Box::new(NodePorts),
            Box::new(NodeResourcesFit),
            Box::new(PodTopologySpread),
            Box::new(InterPodAffinity),
        ],
        scores: vec![
            Box::new(TaintToleration),
            Box::new(NodeAffinity),
            Box::new(PodTopologySpread),
            Box::new(InterPodAffinity),
            Box::new(NodeResourcesFit),
            Box::new(BalancedAllocation),
        ],
    }
}

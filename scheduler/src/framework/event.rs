//! Changes of the cluster that may make room for a pod that found none.

use crate::nodes::NodeInfo;
use crate::pod::PodInfo;

#[derive(Debug, Clone, Copy)]
pub enum ClusterEvent<'a> {
    NodeAdded(&'a NodeInfo),
    NodeUpdated {
        old: &'a NodeInfo,
        new: &'a NodeInfo,
    },
    NodeRemoved(&'a NodeInfo),
    /// A pod was placed on a node, or the labels of a placed one changed.
    PodPlaced(&'a PodInfo),
    /// A placed pod ended or was deleted.
    PodRemoved(&'a PodInfo),
}

impl<'a> ClusterEvent<'a> {
    /// The node that is new or has become different.
    pub fn node(&self) -> Option<&'a NodeInfo> {
        match self {
            Self::NodeAdded(node) | Self::NodeUpdated { new: node, .. } => Some(node),
            _ => None,
        }
    }

    /// Whether this makes a node satisfy `holds` that did not before.
    pub fn now_satisfies(&self, holds: impl Fn(&NodeInfo) -> bool) -> bool {
        match self {
            Self::NodeAdded(node) => holds(node),
            Self::NodeUpdated { old, new } => holds(new) && !holds(old),
            _ => false,
        }
    }

    /// Whether this adds or removes nodes of a topology, or moves them in it.
    pub fn changes_topology(&self) -> bool {
        match self {
            Self::NodeAdded(_) | Self::NodeRemoved(_) => true,
            Self::NodeUpdated { old, new } => old.labels != new.labels || old.taints != new.taints,
            _ => false,
        }
    }
}

//! Why no node would do, in upstream's words.

use std::collections::BTreeMap;

use super::verdict::Reason;

/// Said when the cluster has no node at all.
pub const NO_NODES: &str = "no nodes available to schedule pods";

/// How many nodes were refused for which reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnosis {
    pub all_nodes: usize,
    pub reasons: BTreeMap<Reason, usize>,
}

impl Diagnosis {
    pub fn new(all_nodes: usize) -> Self {
        Self { all_nodes, reasons: BTreeMap::new() }
    }

    pub fn count(&mut self, reason: impl Into<Reason>, nodes: usize) {
        if nodes > 0 {
            *self.reasons.entry(reason.into()).or_default() += nodes;
        }
    }

    /// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
    /// Upstream sorts the counted texts, so that equal situations read equally.
    pub fn message(&self) -> String {
        if self.all_nodes == 0 {
            return NO_NODES.to_owned();
        }
        let mut counted: Vec<String> =
            self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        counted.sort();
        let mut message = format!("0/{} nodes are available:", self.all_nodes);
        if !counted.is_empty() {
            message.push_str(&format!(" {}.", counted.join(", ")));
        }
        message
    }
}

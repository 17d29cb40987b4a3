//! What the controllers can be told, and what of it cannot work.

use std::time::Duration;

use crate::nodeipam::Cidr;

/// Settings of all controllers; the names follow upstream's controller manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Reconciles under way at once in each controller.
    pub workers: usize,
    /// How long a node may be silent before it counts as gone.
    pub node_monitor_grace: Duration,
    /// How long pods of a removed node are kept, should the node come back.
    pub pod_gc_quarantine: Duration,
    /// The network that pods get their addresses from; `None`: nodes bring their own.
    pub cluster_cidr: Option<String>,
    /// The size of each node's share of `cluster_cidr`.
    pub node_cidr_mask_bits: u8,
    /// The cluster CA, published to every namespace as ConfigMap `kube-root-ca.crt`.
    pub root_ca_pem: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: 4,
            node_monitor_grace: Duration::from_secs(40),
            pod_gc_quarantine: Duration::from_secs(40),
            cluster_cidr: Some("10.42.0.0/16".into()),
            node_cidr_mask_bits: 24,
            root_ca_pem: None,
        }
    }
}

/// Every fault found, not just the first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the controllers' configuration cannot work: {}", faults.join("; "))]
pub struct ConfigError {
    pub faults: Vec<String>,
}

impl Config {
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut faults = Vec::new();
        if !(1..=256).contains(&self.workers) {
            faults.push(format!("workers is {}, it must be 1 to 256", self.workers));
        }
        if self.node_monitor_grace < Duration::from_secs(1) {
            faults.push(format!(
                "node_monitor_grace is {:?}, nodes renew their Lease every few seconds: give it at least 1s",
                self.node_monitor_grace
            ));
        }
        if let Some(text) = &self.cluster_cidr {
            match Cidr::parse(text) {
                None => faults
                    .push(format!("cluster_cidr {text:?} is no IPv4 network such as 10.42.0.0/16")),
                Some(cidr) if !(cidr.bits..=30).contains(&self.node_cidr_mask_bits) => {
                    faults.push(format!(
                        "node_cidr_mask_bits is {}, it must be {} to 30 to fit into cluster_cidr {text}",
                        self.node_cidr_mask_bits, cidr.bits
                    ));
                }
                Some(_) => {}
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(ConfigError { faults }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_are_reported_at_once() {
        assert_eq!(Config::default().validate(), Ok(()));
        let broken = Config {
            workers: 0,
            node_monitor_grace: Duration::ZERO,
            cluster_cidr: Some("10.42.0.0".into()),
            ..Config::default()
        };
        let error = broken.validate().expect_err("three faults");
        assert_eq!(error.faults.len(), 3, "{error}");
        let small = Config { node_cidr_mask_bits: 8, ..Config::default() };
        let error = small.validate().expect_err("a node larger than the cluster").to_string();
        assert!(error.contains("16 to 30"), "{error}");
    }
}

//! What the API server must be told.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use skiff_client::VersionInfo;
use tokio_util::sync::CancellationToken;

use crate::authz::{Authorizer, table::Table};
use crate::cache::Limits;

#[derive(Clone)]
pub struct Config {
    /// `10.43.0.0/16`: where cluster IPs come from.
    pub service_cidr: String,
    /// First and last node port.
    pub node_port_range: (u16, u16),
    /// Where other machines and pods reach this server; without it, `default/kubernetes` is not made.
    pub advertise: Option<(IpAddr, u16)>,
    /// How the server calls kubelets; without it, logs and exec say that they are off.
    pub node_client: Option<NodeClient>,
    pub authorizer: Arc<dyn Authorizer>,
    pub version: VersionInfo,
    pub limits: Limits,
    /// Changes older than this are given back to the store's disk.
    pub compaction_interval: Duration,
    /// How long Events live.
    pub event_ttl: Duration,
    /// Ends watches and background work.
    pub shutdown: CancellationToken,
}

/// The certificate that kubelets accept from the API server, and the CA of theirs.
#[derive(Debug, Clone)]
pub struct NodeClient {
    pub ca_pem: String,
    pub cert_pem: String,
    pub key_pem: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            service_cidr: "10.43.0.0/16".into(),
            node_port_range: (30000, 32767),
            advertise: None,
            node_client: None,
            authorizer: Arc::new(Table),
            version: VersionInfo {
                version: format!("v{}", env!("CARGO_PKG_VERSION")),
                kubernetes_version: "v1.33.0".into(),
                platform: "linux/amd64".into(),
            },
            // 2 MiB hold some thousand changes of pods; 4096 events see `watchers`.
            limits: Limits {
                history_bytes: 2 << 20,
                queue_events: crate::cache::watchers::QUEUE_EVENTS,
            },
            compaction_interval: Duration::from_secs(300),
            event_ttl: Duration::from_secs(3600),
            shutdown: CancellationToken::new(),
        }
    }
}

impl Config {
    /// Every fault at once.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut faults = Vec::new();
        if let Err(fault) = parse_cidr(&self.service_cidr) {
            faults.push(fault);
        }
        let (first, last) = self.node_port_range;
        if first == 0 || first > last {
            faults.push(format!("service node port range {first}-{last} holds no port"));
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

/// The network's first address and its prefix length.
pub fn parse_cidr(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let fault = || {
        format!("service CIDR {text:?} is no IPv4 network between /8 and /28, such as 10.43.0.0/16")
    };
    let (address, length) = text.split_once('/').ok_or_else(fault)?;
    let address: Ipv4Addr = address.parse().map_err(|_| fault())?;
    let length: u8 = length.parse().map_err(|_| fault())?;
    if !(8..=28).contains(&length) {
        return Err(fault());
    }
    let mask = u32::MAX << (32 - u32::from(length));
    Ok((Ipv4Addr::from(u32::from(address) & mask), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_named() {
        let config = Config {
            service_cidr: "10.43.0.0".into(),
            node_port_range: (5, 4),
            ..Config::default()
        };
        let faults = config.validate().expect_err("faults");
        assert_eq!(faults.len(), 2);
        assert_eq!(Config::default().validate(), Ok(()));
        assert_eq!(parse_cidr("10.43.7.9/16"), Ok((Ipv4Addr::new(10, 43, 0, 0), 16)));
    }
}

//! What the proxy is told about its node and its cluster.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::error::ProxyError;
use crate::iptables::{Family, Settings};

/// How rules reach the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Through `iptables-restore`; what every host has.
    #[default]
    Iptables,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Mode, String> {
        match text {
            "iptables" => Ok(Mode::Iptables),
            other => Err(format!("proxy mode {other:?} is not available; use iptables")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("iptables")
    }
}

/// The proxy's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where pods have their addresses: one prefix, or one of each family with a comma between.
    pub cluster_cidr: String,
    /// The node's own address: told in the log here; modes that bind service addresses need it.
    pub node_ip: IpAddr,
    /// The node's name, as EndpointSlices give it in `nodeName`.
    pub node_name: String,
    pub mode: Mode,
    /// Prefixes of the node's addresses that serve node ports; empty: all of them.
    pub node_port_addresses: Vec<String>,
    /// Whether node ports answer on 127.0.0.1 too, as kube-proxy's iptables mode does. It takes the sysctl
    /// `route_localnet`, and a rule that keeps others on the wire from using it.
    pub localhost_node_ports: bool,
}

impl Config {
    pub fn new(cluster_cidr: &str, node_ip: IpAddr, node_name: &str) -> Config {
        Config {
            cluster_cidr: cluster_cidr.to_owned(),
            node_ip,
            node_name: node_name.to_owned(),
            mode: Mode::default(),
            node_port_addresses: Vec::new(),
            localhost_node_ports: true,
        }
    }

    /// Reports every fault at once.
    pub fn validate(&self) -> Result<(), ProxyError> {
        self.settings().map(|_| ())
    }

    /// What each address family is rendered with; a family without a cluster prefix has no rules.
    pub fn settings(&self) -> Result<Vec<Settings>, ProxyError> {
        let mut faults = Vec::new();
        let mut settings: Vec<Settings> = Vec::new();
        for cidr in self.cluster_cidr.split(',').map(str::trim) {
            let Some(family) = family_of(cidr) else {
                faults.push(format!("cluster-cidr: {cidr:?} is no prefix such as 10.42.0.0/16"));
                continue;
            };
            if settings.iter().any(|known| known.family == family) {
                faults.push(format!("cluster-cidr: {cidr} is the second prefix of its family"));
                continue;
            }
            settings.push(Settings {
                family,
                cluster_cidr: cidr.to_owned(),
                node_port_cidrs: Vec::new(),
                localhost_node_ports: self.localhost_node_ports && family == Family::Ipv4,
            });
        }
        for cidr in &self.node_port_addresses {
            match family_of(cidr) {
                None => faults.push(format!("node-port-addresses: {cidr:?} is no prefix")),
                Some(family) => {
                    let of_family = settings.iter_mut().filter(|known| known.family == family);
                    of_family.for_each(|known| known.node_port_cidrs.push(cidr.clone()));
                }
            }
        }
        if self.node_name.is_empty() {
            faults.push("node-name is empty".to_owned());
        }
        if faults.is_empty() { Ok(settings) } else { Err(ProxyError::BadConfig(faults)) }
    }
}

fn family_of(cidr: &str) -> Option<Family> {
    let (address, prefix) = cidr.split_once('/')?;
    let prefix: u8 = prefix.parse().ok()?;
    match address.parse().ok()? {
        IpAddr::V4(_) => (prefix <= 32).then_some(Family::Ipv4),
        IpAddr::V6(_) => (prefix <= 128).then_some(Family::Ipv6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families() {
        let config = Config::new("10.42.0.0/16, fd42::/56", "192.0.2.1".parse().unwrap(), "n1");
        let families: Vec<Family> = config.settings().unwrap().iter().map(|s| s.family).collect();
        assert_eq!(families, [Family::Ipv4, Family::Ipv6]);
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let mut config = Config::new("10.42.0.0", "192.0.2.1".parse().unwrap(), "");
        config.node_port_addresses = vec!["x".into()];
        let Err(ProxyError::BadConfig(faults)) = config.validate() else { panic!("accepted") };
        assert_eq!(faults.len(), 3, "{faults:#?}");
    }

    #[test]
    fn modes() {
        assert_eq!("iptables".parse(), Ok(Mode::Iptables));
        assert!("ipvs".parse::<Mode>().is_err());
    }
}

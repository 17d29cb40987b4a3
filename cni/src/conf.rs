//! The network configuration: upstream bridge's and host-local's keys, plus `nonMasqueradeCIDRs`.
//!
//! `NetworkConfig` of the cni-plugin crate reads the keys that the specification knows; the plugin's own are in its
//! `specific` map and are read here into [`BridgeConf`], once. Validation gathers every fault, not the first.

use std::net::IpAddr;
use std::path::PathBuf;

use cni_plugin::config::{Dns, NetworkConfig};
use serde::Deserialize;
use serde_json::Value;

use crate::addr::Cidr;
use crate::error::CniError;
use crate::ipam::range::{Range, RangeSet};
use crate::names::parse_mac;

/// Where host-local keeps its leases unless `ipam.dataDir` says otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

/// A route inside the container. Without a gateway of its own it goes through the address's gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct RouteConf {
    pub dst: Cidr,
    #[serde(default)]
    pub gw: Option<IpAddr>,
}

/// The whole configuration of a bridge network, checked.
#[derive(Clone, Debug)]
pub struct BridgeConf {
    pub name: String,
    pub bridge: String,
    pub is_gateway: bool,
    pub is_default_gateway: bool,
    pub force_address: bool,
    pub ip_masq: bool,
    pub hairpin: bool,
    /// Zero leaves the kernel's default.
    pub mtu: u32,
    /// Destinations, besides the pod ranges themselves, that see the pod's own address.
    pub non_masquerade: Vec<Cidr>,
    pub mac: Option<[u8; 6]>,
    pub dns: Dns,
    pub ipam: Option<IpamConf>,
}

/// What host-local reads.
#[derive(Clone, Debug)]
pub struct IpamConf {
    pub data_dir: PathBuf,
    pub sets: Vec<RangeSet>,
    pub routes: Vec<RouteConf>,
    /// Addresses the runtime asks for by `CNI_ARGS` IP=, `args.cni.ips` or the `ips` capability.
    pub requested: Vec<IpAddr>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawBridge {
    bridge: String,
    is_gateway: bool,
    is_default_gateway: bool,
    force_address: bool,
    hairpin_mode: bool,
    promisc_mode: bool,
    vlan: u32,
    mtu: u32,
    #[serde(rename = "nonMasqueradeCIDRs")]
    non_masquerade: Vec<Cidr>,
}

impl Default for RawBridge {
    fn default() -> RawBridge {
        RawBridge {
            bridge: "cni0".to_owned(),
            is_gateway: false,
            is_default_gateway: false,
            force_address: false,
            hairpin_mode: false,
            promisc_mode: false,
            vlan: 0,
            mtu: 0,
            non_masquerade: Vec::new(),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawIpam {
    #[serde(flatten)]
    legacy: RawRange,
    ranges: Vec<Vec<RawRange>>,
    routes: Vec<RouteConf>,
    data_dir: Option<PathBuf>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawRange {
    subnet: Option<Cidr>,
    range_start: Option<IpAddr>,
    range_end: Option<IpAddr>,
    gateway: Option<IpAddr>,
}

impl BridgeConf {
    /// Reads and checks everything; `args` is `CNI_ARGS`.
    pub fn read(config: &NetworkConfig, args: &[(String, String)]) -> Result<BridgeConf, CniError> {
        let specific = Value::Object(config.specific.clone().into_iter().collect());
        let raw: RawBridge = serde_json::from_value(specific)
            .map_err(|error| CniError::BadConfig(vec![error.to_string()]))?;
        if raw.promisc_mode {
            let hint = "use hairpinMode, which needs no promiscuous bridge";
            return Err(CniError::UnsupportedField { field: "promiscMode", hint });
        }
        if raw.vlan != 0 {
            let hint = "leave it out; one bridge carries one network";
            return Err(CniError::UnsupportedField { field: "vlan", hint });
        }
        let mut faults = Vec::new();
        if !is_link_name(&raw.bridge) {
            faults.push(format!("bridge: {:?} is no link name (1 to 15 characters)", raw.bridge));
        }
        if raw.mtu != 0 && !(68..=65535).contains(&raw.mtu) {
            faults.push(format!("mtu: {} is not between 68 and 65535", raw.mtu));
        }
        let mac = requested_mac(config, args, &mut faults);
        let ipam = read_ipam(config, args, &mut faults);
        if !faults.is_empty() {
            return Err(CniError::BadConfig(faults));
        }
        Ok(BridgeConf {
            name: config.name.clone(),
            bridge: raw.bridge,
            is_gateway: raw.is_gateway || raw.is_default_gateway,
            is_default_gateway: raw.is_default_gateway,
            force_address: raw.force_address,
            ip_masq: config.ip_masq,
            hairpin: raw.hairpin_mode,
            mtu: raw.mtu,
            non_masquerade: raw.non_masquerade.iter().map(Cidr::truncated).collect(),
            mac,
            dns: config.dns.clone().unwrap_or_default(),
            ipam,
        })
    }

    /// Every prefix that pods of this network have addresses in.
    pub fn subnets(&self) -> Vec<Cidr> {
        let sets = self.ipam.iter().flat_map(|ipam| &ipam.sets);
        let mut subnets: Vec<Cidr> =
            sets.flat_map(|set| &set.ranges).map(|range| range.subnet).collect();
        subnets.sort();
        subnets.dedup();
        subnets
    }
}

/// Where the leases of a configuration lie, read as leniently as DEL must be.
pub fn lease_data_dir(config: &NetworkConfig) -> PathBuf {
    let named = config.ipam.as_ref().and_then(|ipam| ipam.specific.get("dataDir"));
    PathBuf::from(named.and_then(Value::as_str).unwrap_or(DEFAULT_DATA_DIR))
}

/// What the kernel takes as the name of a link.
pub fn is_link_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 15
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
}

fn argument<'a>(args: &'a [(String, String)], key: &str) -> Option<&'a str> {
    args.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

fn requested_mac(
    config: &NetworkConfig,
    args: &[(String, String)],
    faults: &mut Vec<String>,
) -> Option<[u8; 6]> {
    let capability =
        config.runtime.as_ref().and_then(|runtime| runtime.mac).map(|mac| mac.to_string());
    let text = capability.or_else(|| argument(args, "MAC").map(str::to_owned))?;
    let mac = parse_mac(&text);
    if mac.is_none() {
        faults.push(format!("MAC: {text:?} is no hardware address"));
    }
    mac
}

fn read_ipam(
    config: &NetworkConfig,
    args: &[(String, String)],
    faults: &mut Vec<String>,
) -> Option<IpamConf> {
    let ipam = config.ipam.as_ref()?;
    if ipam.plugin.is_empty() {
        return None;
    }
    if ipam.plugin != "host-local" {
        faults.push(format!("ipam.type: {:?} is not built in; use \"host-local\"", ipam.plugin));
        return None;
    }
    let specific = Value::Object(ipam.specific.clone().into_iter().collect());
    let raw: RawIpam = match serde_json::from_value(specific) {
        Ok(raw) => raw,
        Err(error) => {
            faults.push(format!("ipam: {error}"));
            return None;
        }
    };
    let sets = read_sets(config, &raw, faults);
    let requested = requested_addresses(config, args, faults);
    for address in &requested {
        if !sets.iter().any(|set: &RangeSet| set.contains(*address)) {
            faults.push(format!("requested address {address} is in none of the ranges"));
        }
    }
    Some(IpamConf { data_dir: lease_data_dir(config), sets, routes: raw.routes, requested })
}

/// One address comes from each set. The `ipRanges` capability comes first, then the old single range, then `ranges`.
fn read_sets(config: &NetworkConfig, raw: &RawIpam, faults: &mut Vec<String>) -> Vec<RangeSet> {
    let mut groups: Vec<Vec<RawRange>> = Vec::new();
    let capability = config.runtime.as_ref().and_then(|runtime| runtime.specific.get("ipRanges"));
    if let Some(value) = capability {
        match serde_json::from_value::<Vec<Vec<RawRange>>>(value.clone()) {
            Ok(ranges) => groups.extend(ranges),
            Err(error) => faults.push(format!("runtimeConfig.ipRanges: {error}")),
        }
    }
    if raw.legacy.subnet.is_some() {
        groups.push(vec![raw.legacy.clone()]);
    }
    groups.extend(raw.ranges.iter().cloned());
    if groups.is_empty() {
        faults.push("ipam.ranges: at least one range is needed".to_owned());
    }
    let mut sets: Vec<RangeSet> = Vec::new();
    for (index, group) in groups.into_iter().enumerate() {
        let set = read_set(index, group, faults);
        if let Some(other) = sets.iter().position(|other| other.overlaps(&set)) {
            faults.push(format!("ipam.ranges[{index}] overlaps ipam.ranges[{other}]"));
        }
        sets.push(set);
    }
    sets
}

fn read_set(index: usize, group: Vec<RawRange>, faults: &mut Vec<String>) -> RangeSet {
    let mut set = RangeSet::default();
    if group.is_empty() {
        faults.push(format!("ipam.ranges[{index}] is empty"));
    }
    for (position, raw) in group.into_iter().enumerate() {
        let place = format!("ipam.ranges[{index}][{position}]");
        let Some(subnet) = raw.subnet else {
            faults.push(format!("{place}.subnet is missing"));
            continue;
        };
        match Range::new(subnet, raw.range_start, raw.range_end, raw.gateway) {
            Ok(range)
                if set.ranges.iter().any(|other| other.subnet.is_ipv4() != subnet.is_ipv4()) =>
            {
                faults.push(format!("{place}: {} is of another family than its set", range.subnet));
            }
            Ok(range) if set.ranges.iter().any(|other| other.overlaps(&range)) => {
                faults.push(format!("{place} overlaps another range of its set"));
            }
            Ok(range) => set.ranges.push(range),
            Err(fault) => faults.push(format!("{place}: {fault}")),
        }
    }
    set
}

fn requested_addresses(
    config: &NetworkConfig,
    args: &[(String, String)],
    faults: &mut Vec<String>,
) -> Vec<IpAddr> {
    let mut texts: Vec<String> = Vec::new();
    texts.extend(argument(args, "IP").map(str::to_owned));
    let listed = config.args.get("cni").and_then(|cni| cni.get("ips")).and_then(Value::as_array);
    texts.extend(listed.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
    if let Some(runtime) = &config.runtime {
        texts.extend(runtime.ips.iter().map(|ip| ip.ip().to_string()));
    }
    let mut addresses = Vec::new();
    for text in texts {
        match text.split('/').next().unwrap_or_default().parse() {
            Ok(address) => addresses.push(address),
            Err(_) => faults.push(format!("requested address {text:?} is no IP address")),
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<BridgeConf, CniError> {
        BridgeConf::read(&serde_json::from_value(value).unwrap(), &[])
    }

    fn base(ipam: Value) -> Value {
        json!({"cniVersion": "1.0.0", "name": "pods", "type": "skiff-bridge", "ipam": ipam})
    }

    #[test]
    fn upstream_defaults() {
        let conf = read(base(json!({"type": "host-local", "subnet": "10.1.0.0/24"}))).unwrap();
        assert_eq!(conf.bridge, "cni0");
        assert!(!conf.is_gateway && !conf.ip_masq && !conf.hairpin);
        let ipam = conf.ipam.unwrap();
        assert_eq!(ipam.data_dir, PathBuf::from(DEFAULT_DATA_DIR));
        let range = &ipam.sets[0].ranges[0];
        assert_eq!(range.gateway.to_string(), "10.1.0.1");
        assert_eq!(
            (range.first.to_string(), range.last.to_string()),
            ("10.1.0.1".into(), "10.1.0.254".into())
        );
    }

    #[test]
    fn default_gateway_implies_gateway() {
        let mut value = base(json!({"type": "host-local", "subnet": "10.1.0.0/24"}));
        value["isDefaultGateway"] = json!(true);
        assert!(read(value).unwrap().is_gateway);
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let mut value = base(json!({"type": "host-local", "ranges": [
            [{"subnet": "10.1.0.5/24"}],
            [{"subnet": "10.2.0.0/31"}],
            [{}],
            [{"subnet": "10.3.0.0/24", "rangeStart": "10.4.0.1"}],
            [{"subnet": "10.5.0.0/24"}, {"subnet": "fd00::/64"}],
            [{"subnet": "10.6.0.0/24"}], [{"subnet": "10.6.0.0/25"}]
        ]}));
        value["bridge"] = json!("a-name-that-is-too-long");
        value["mtu"] = json!(12);
        let Err(CniError::BadConfig(faults)) = read(value) else { panic!("accepted") };
        assert_eq!(faults.len(), 8, "{faults:#?}");
        assert!(faults[2].contains("host bits"), "{faults:#?}");
    }

    #[test]
    fn what_is_not_supported_is_refused_by_code_2() {
        let mut value = base(json!({"type": "host-local", "subnet": "10.1.0.0/24"}));
        value["promiscMode"] = json!(true);
        assert_eq!(read(value).unwrap_err().code(), 2);
    }

    #[test]
    fn other_ipam_plugins_are_refused() {
        assert_eq!(read(base(json!({"type": "dhcp"}))).unwrap_err().code(), 7);
    }
}

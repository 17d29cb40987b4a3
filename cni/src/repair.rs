//! Puts a network's rules back after another program has flushed them. Links and addresses are not looked at: a
//! flush takes none of them.

use cni_plugin::config::NetworkConfig;
use serde_json::Value;

use crate::conf::{BridgeConf, lease_data_dir};
use crate::error::CniError;
use crate::exec::ensure_masquerade;
use crate::hostport::HostPorts;
use crate::masquerade::Masquerade;
use crate::verb::add::masquerade_lock;

/// Looks at the masquerade and the host ports of the network with this configuration (one plugin's, with the name of
/// the list), and writes what is missing. Says whether anything was.
pub fn repair_rules(conf: &Value) -> Result<bool, CniError> {
    let config: NetworkConfig = serde_json::from_value(conf.clone())
        .map_err(|error| CniError::Decode(error.to_string()))?;
    let conf = BridgeConf::read(&config, &[])?;
    let subnets = conf.subnets();
    let mut repaired = false;
    if conf.ip_masq {
        for ipv4 in [true, false] {
            let rules = Masquerade::of(&conf.name, ipv4, &subnets, &conf.non_masquerade);
            let Some(rules) = rules else { continue };
            if !rules.is_complete()? {
                // Someone may have emptied the chain and left the jump.
                if rules.is_present()? {
                    rules.write()?;
                } else {
                    ensure_masquerade(&rules, &masquerade_lock(&conf))?;
                }
                repaired = true;
            }
        }
    }
    if let Some(ports) = HostPorts::open_existing(&lease_data_dir(&config), &conf.name)?
        && !ports.are_present(&subnets)?
    {
        ports.apply(&subnets)?;
        repaired = true;
    }
    Ok(repaired)
}

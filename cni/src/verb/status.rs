//! STATUS: whether an ADD can be expected to work: the configuration is right and iptables can be run.

use crate::conf::BridgeConf;
use crate::error::CniError;
use crate::masquerade::Masquerade;
use crate::request::Request;

pub fn status(request: &Request) -> Result<(), CniError> {
    let conf = BridgeConf::read(&request.config, &request.args)?;
    if !conf.ip_masq {
        return Ok(());
    }
    let subnets = conf.subnets();
    for ipv4 in [true, false] {
        if let Some(rules) = Masquerade::of(&conf.name, ipv4, &subnets, &conf.non_masquerade) {
            // Absent rules are fine, the first ADD makes them; only a failure to ask is not.
            rules.is_present().map_err(|error| CniError::NotReady(error.to_string()))?;
        }
    }
    Ok(())
}

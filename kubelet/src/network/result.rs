//! The addresses in a plugin's result, of all versions of the specification.

use std::net::IpAddr;

use serde_json::Value;

/// IPv4 goes first, so that a pod's first address is the one that everybody reaches.
pub(super) fn addresses(result: &Value) -> Result<Vec<IpAddr>, String> {
    let listed =
        result["ips"].as_array().into_iter().flatten().filter_map(|ip| ip["address"].as_str());
    let old = [&result["ip4"]["ip"], &result["ip6"]["ip"]].into_iter().filter_map(Value::as_str);
    let mut addresses = Vec::new();
    for text in listed.chain(old) {
        let plain = text.split('/').next().unwrap_or_default();
        addresses.push(
            plain
                .parse::<IpAddr>()
                .map_err(|_| format!("the plugin's result has an address {text:?}"))?,
        );
    }
    if addresses.is_empty() {
        return Err("the plugin's result has no address".to_owned());
    }
    addresses.sort_by_key(IpAddr::is_ipv6);
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_of_all_versions() {
        let words = |result: Value| match addresses(&result) {
            Ok(list) => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(why) => why,
        };
        assert_eq!(
            words(json!({"ips": [{"address": "fd00::2/64"}, {"address": "10.42.0.2/24"}]})),
            "10.42.0.2 fd00::2"
        );
        assert_eq!(words(json!({"ip4": {"ip": "10.1.2.3/16"}})), "10.1.2.3");
        assert_eq!(words(json!({})), "the plugin's result has no address");
        assert_eq!(
            words(json!({"ips": [{"address": "x"}]})),
            "the plugin's result has an address \"x\""
        );
    }
}

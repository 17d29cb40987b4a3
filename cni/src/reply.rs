//! What the runtime gets back: results, versions and errors as JSON.
//!
//! The result is the cni-plugin crate's `SuccessReply`; three things of its JSON are mended on the way out (and back
//! in, for `prevResult`): a host interface has no `sandbox` key, hardware addresses are lower case, and before 1.0.0
//! every address carries the version of its family.

use cni_plugin::reply::{Interface, Ip, Route, SuccessReply};
use serde_json::{Value, json};

use crate::error::CniError;
use crate::request::SUPPORTED_VERSIONS;

/// The result in the form that this version of the specification gives it.
pub fn render_result(result: &SuccessReply, version: &str) -> Result<Value, CniError> {
    let mut value =
        serde_json::to_value(result).map_err(|error| CniError::Decode(error.to_string()))?;
    value["cniVersion"] = json!(version);
    for interface in value["interfaces"].as_array_mut().into_iter().flatten() {
        if interface["sandbox"] == json!("") {
            interface.as_object_mut().map(|fields| fields.remove("sandbox"));
        }
        if let Some(mac) = interface["mac"].as_str().map(str::to_lowercase) {
            interface["mac"] = json!(mac);
        }
    }
    if version.starts_with("0.") {
        for (ip, shown) in result.ips.iter().zip(value["ips"].as_array_mut().into_iter().flatten())
        {
            shown["version"] = json!(if ip.address.is_ipv4() { "4" } else { "6" });
        }
    }
    Ok(value)
}

/// Reads a `prevResult`, as a runtime or another plugin wrote it.
pub fn parse_result(mut value: Value) -> Result<SuccessReply, CniError> {
    let Some(fields) = value.as_object_mut() else {
        return Err(CniError::Decode("prevResult is not an object".to_owned()));
    };
    fields.entry("dns").or_insert(json!({}));
    fields.entry("cniVersion").or_insert(json!("1.0.0"));
    let interfaces = value.get_mut("interfaces").and_then(Value::as_array_mut);
    for interface in interfaces.into_iter().flatten() {
        if let Some(fields) = interface.as_object_mut() {
            fields.entry("sandbox").or_insert(json!(""));
        }
    }
    serde_json::from_value(value).map_err(|error| CniError::Decode(format!("prevResult: {error}")))
}

/// The answer to VERSION.
pub fn render_version(version: &str) -> Value {
    json!({"cniVersion": version, "supportedVersions": SUPPORTED_VERSIONS})
}

/// An error as the specification says it: code, short message, details.
pub fn render_error(error: &CniError, version: &str) -> Value {
    json!({"cniVersion": version, "code": error.code(), "msg": error.message(), "details": error.to_string()})
}

/// A result from texts; every text is made by this crate from parsed values.
pub struct ResultParts {
    pub interfaces: Vec<(String, String, String)>,
    pub ips: Vec<(String, Option<std::net::IpAddr>, usize)>,
    pub routes: Vec<(String, Option<std::net::IpAddr>)>,
}

/// Builds the crate's result type, whose own field types are only reachable by parsing.
pub fn build_result(
    parts: ResultParts,
    dns: cni_plugin::config::Dns,
) -> Result<SuccessReply, CniError> {
    let wrong = |error: &dyn std::fmt::Display| CniError::Decode(error.to_string());
    let mut result = SuccessReply {
        cni_version: "1.0.0".parse().map_err(|error| wrong(&error))?,
        interfaces: Vec::new(),
        ips: Vec::new(),
        routes: Vec::new(),
        dns,
        specific: Default::default(),
    };
    for (name, mac, sandbox) in parts.interfaces {
        let mac = Some(mac.parse().map_err(|error| wrong(&error))?);
        result.interfaces.push(Interface { name, mac, sandbox: sandbox.into() });
    }
    for (address, gateway, interface) in parts.ips {
        let address = address.parse().map_err(|error| wrong(&error))?;
        result.ips.push(Ip { address, gateway, interface: Some(interface) });
    }
    for (dst, gw) in parts.routes {
        result.routes.push(Route { dst: dst.parse().map_err(|error| wrong(&error))?, gw });
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SuccessReply {
        let parts = ResultParts {
            interfaces: vec![
                ("cni0".into(), "02:AB:00:00:00:01".into(), "".into()),
                ("veth01234567".into(), "02:00:00:00:00:02".into(), "".into()),
                ("eth0".into(), "02:00:00:00:00:03".into(), "/var/run/netns/c1".into()),
            ],
            ips: vec![("10.42.0.5/24".into(), Some("10.42.0.1".parse().unwrap()), 2)],
            routes: vec![("0.0.0.0/0".into(), Some("10.42.0.1".parse().unwrap()))],
        };
        build_result(parts, Default::default()).unwrap()
    }

    #[test]
    fn a_result_of_1_0_0() {
        let expect = json!({
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": "cni0", "mac": "02:ab:00:00:00:01"},
                {"name": "veth01234567", "mac": "02:00:00:00:00:02"},
                {"name": "eth0", "mac": "02:00:00:00:00:03", "sandbox": "/var/run/netns/c1"}
            ],
            "ips": [{"interface": 2, "address": "10.42.0.5/24", "gateway": "10.42.0.1"}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.42.0.1"}],
            "dns": {}
        });
        assert_eq!(render_result(&sample(), "1.0.0").unwrap(), expect);
    }

    #[test]
    fn before_1_0_0_addresses_carry_their_version() {
        let old = render_result(&sample(), "0.4.0").unwrap();
        assert_eq!(old["ips"][0]["version"], json!("4"));
        assert_eq!(old["cniVersion"], json!("0.4.0"));
    }

    #[test]
    fn results_of_other_plugins_are_read() {
        for version in ["0.4.0", "1.0.0"] {
            let back = parse_result(render_result(&sample(), version).unwrap()).unwrap();
            assert_eq!(back.interfaces.len(), 3);
            assert_eq!(back.ips[0].interface, Some(2));
        }
        assert!(parse_result(json!({"ips": [{"address": "10.0.0.1/24"}]})).is_ok());
        assert_eq!(parse_result(json!([])).unwrap_err().code(), 6);
    }

    #[test]
    fn an_error() {
        let error = CniError::IncompatibleVersion("9.0".into());
        let value = render_error(&error, "1.0.0");
        assert_eq!(value["code"], json!(1));
        assert_eq!(value["cniVersion"], json!("1.0.0"));
        assert!(value["details"].as_str().unwrap().contains("0.4.0"));
    }
}

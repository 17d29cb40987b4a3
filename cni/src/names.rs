//! Names and hardware addresses that follow from who they are for.
//!
//! DEL must find the host end of a pair long after ADD, with or without the container's namespace, and without a
//! state file: so the name is a hash of network, container and interface. The hash is FNV-1a, 64 bits, folded.

/// FNV-1a over the parts, with a separator so that ("ab", "c") and ("a", "bc") differ.
fn fnv1a(parts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for part in parts {
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

fn fold32(hash: u64) -> u32 {
    (hash >> 32) as u32 ^ hash as u32
}

/// The host end of a container's pair: `veth` and eight hex digits.
pub fn host_veth(network: &str, container: &str, ifname: &str) -> String {
    format!("veth{:08x}", fold32(fnv1a(&[network, container, ifname])))
}

/// What the host end carries as its alias, so that a collision of hashes is seen and `ip link` tells whose it is.
pub fn host_alias(network: &str, container: &str, ifname: &str) -> String {
    format!("skiff:{network}/{container}/{ifname}")
}

/// The masquerade chain of a network.
pub fn masquerade_chain(network: &str) -> String {
    format!("SKIFF-MASQ-{:08X}", fold32(fnv1a(&["masq", network])))
}

/// The chains of a network's host ports: translation, and masquerade of what the pods themselves send there.
pub fn host_port_chains(network: &str) -> (String, String) {
    let digest = fold32(fnv1a(&["hostports", network]));
    (format!("SKIFF-HP-{digest:08X}"), format!("SKIFF-HM-{digest:08X}"))
}

/// A unicast, locally administered address that stays the same for the same parts.
pub fn stable_mac(parts: &[&str]) -> [u8; 6] {
    let bytes = fnv1a(parts).to_be_bytes();
    [(bytes[0] & 0xfc) | 0x02, bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]]
}

/// Lower case with colons, as the specification's examples and `ip link` write it.
pub fn mac_text(mac: &[u8]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// Six bytes in hexadecimal, with colons or dashes.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split([':', '-'])
        .map(|part| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok()).flatten())
        .collect::<Option<_>>()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_and_fit() {
        let name = host_veth("pods", "c1", "eth0");
        assert_eq!(name, host_veth("pods", "c1", "eth0"));
        assert_eq!(name.len(), 12);
        assert_ne!(name, host_veth("pods", "c1", "eth1"));
        assert_ne!(host_veth("p", "ab", "c"), host_veth("p", "a", "bc"));
        assert!(masquerade_chain("pods").len() < 28);
    }

    #[test]
    fn hardware_addresses() {
        let mac = stable_mac(&["pods", "c1", "eth0"]);
        assert_eq!(mac[0] & 0x03, 0x02, "locally administered, unicast");
        assert_eq!(parse_mac(&mac_text(&mac)), Some(mac));
        assert_eq!(parse_mac("02:00:00:00:00"), None);
        assert_eq!(parse_mac("02:00:00:00:00:zz"), None);
    }
}

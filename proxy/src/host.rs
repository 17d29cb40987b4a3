//! Settings of the node's kernel that service traffic needs. Best effort: a setting that cannot be made is told, with
//! how to mend it, and costs one path of traffic, not the proxy.

use std::io;
use std::path::Path;

use crate::iptables::{Family, Settings};

const ROUTE_LOCALNET: &str = "net/ipv4/conf/all/route_localnet";

/// Forwarding on; bridged packets through iptables; node ports on 127.0.0.1 where asked for.
pub fn prepare(settings: &[Settings]) {
    for family in settings {
        match family.family {
            Family::Ipv4 => {
                set("net/ipv4/ip_forward", "1");
                bridge("net/bridge/bridge-nf-call-iptables");
                if family.localhost_node_ports {
                    set(ROUTE_LOCALNET, "1");
                }
            }
            Family::Ipv6 => {
                set("net/ipv6/conf/all/forwarding", "1");
                bridge("net/bridge/bridge-nf-call-ip6tables");
            }
        }
    }
}

/// Takes back what is unsafe without our rules. Forwarding stays: others may rely on it by now.
pub fn restore() {
    set(ROUTE_LOCALNET, "0");
}

/// Answers between two pods of one node cross only the bridge; iptables must see them there to undo DNAT.
fn bridge(key: &str) {
    if Path::new("/proc/sys").join(key).exists() {
        set(key, "1");
    } else {
        tracing::warn!(
            "/proc/sys/{key} is missing: a pod may not reach a service served on its own node; run: modprobe br_netfilter"
        );
    }
}

fn set(key: &str, value: &str) {
    let path = Path::new("/proc/sys").join(key);
    let done = match std::fs::read_to_string(&path) {
        Ok(current) if current.trim() == value => Ok(()),
        Ok(_) => std::fs::write(&path, value),
        Err(error) => Err(error),
    };
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(%error, "cannot set {} to {value}; set it by hand", path.display())
        }
        Ok(()) => {}
    }
}

//! Takes a whole network off the host: what uninstalling leaves to do after every container is gone, or when some
//! were lost. Gathers its errors and goes on, so that one stuck thing does not keep the others.

use std::path::Path;

use crate::error::CniError;
use crate::exec::kernel;
use crate::hostport;
use crate::ipam::lease::LeaseStore;
use crate::masquerade;
use crate::names;
use crate::netlink::Netlink;
use crate::plan::LinkKind;

/// What was found and removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    pub bridge: bool,
    pub masquerade: bool,
    pub host_ports: bool,
    /// Host ends of pairs that were still there.
    pub host_links: Vec<String>,
    /// Addresses that were still leased.
    pub leases: usize,
}

/// Removes the bridge, the rules of masquerade and host ports, the leases and the pairs of their holders. Idempotent.
pub fn remove_network(network: &str, bridge: &str, data_dir: &Path) -> Result<Removed, CniError> {
    let mut removed = Removed::default();
    let mut errors = Vec::new();
    errors.extend(remove_links(network, bridge, data_dir, &mut removed).err());
    match masquerade::remove(network) {
        Ok(found) => removed.masquerade = found,
        Err(error) => errors.push(error),
    }
    match hostport::remove(network) {
        Ok(found) => removed.host_ports = found,
        Err(error) => errors.push(error),
    }
    CniError::gather(errors).map(|()| removed)
}

fn remove_links(
    network: &str,
    bridge: &str,
    data_dir: &Path,
    removed: &mut Removed,
) -> Result<(), CniError> {
    let mut netlink = Netlink::open().map_err(kernel("open", "a netlink socket"))?;
    if let Some(store) = LeaseStore::open_existing(data_dir, network)? {
        let leases = store.leases()?;
        removed.leases = leases.len();
        for (_, holder) in &leases {
            let veth = names::host_veth(network, &holder.container, &holder.ifname);
            if netlink.delete_link(&veth).map_err(kernel("delete link", &veth))? {
                removed.host_links.push(veth);
            }
        }
        store.destroy()?;
    }
    let found = netlink.link(bridge).map_err(kernel("look up link", bridge))?;
    if found.is_some_and(|link| link.kind == LinkKind::Bridge) {
        removed.bridge = netlink.delete_link(bridge).map_err(kernel("delete bridge", bridge))?;
    }
    Ok(())
}

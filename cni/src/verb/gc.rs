//! GC: frees what containers hold that the runtime no longer knows (a node that crashed between ADD and DEL).

use crate::conf::{BridgeConf, lease_data_dir};
use crate::error::CniError;
use crate::exec::kernel;
use crate::hostport::HostPorts;
use crate::ipam::lease::{Holder, LeaseStore};
use crate::names;
use crate::netlink::Netlink;
use crate::request::Request;

pub fn gc(request: &Request) -> Result<(), CniError> {
    let network = &request.config.name;
    let Some(store) = LeaseStore::open_existing(&lease_data_dir(&request.config), network)? else {
        return Ok(());
    };
    let valid = |holder: &Holder| {
        request
            .valid_attachments
            .iter()
            .any(|a| a.container == holder.container && a.ifname == holder.ifname)
    };
    let mut netlink = Netlink::open().map_err(kernel("open", "a netlink socket"))?;
    let mut errors = Vec::new();
    for (_, holder) in store.leases()?.iter().filter(|(_, holder)| !valid(holder)) {
        let veth = names::host_veth(network, &holder.container, &holder.ifname);
        match netlink.delete_link(&veth).map_err(kernel("delete link", &veth)) {
            Ok(_) => errors.extend(store.release(holder).err()),
            Err(error) => errors.push(error),
        }
    }
    drop(store);
    if let Some(ports) = HostPorts::open_existing(&lease_data_dir(&request.config), network)? {
        let subnets = BridgeConf::read(&request.config, &[]).map(|conf| conf.subnets());
        let subnets = subnets.unwrap_or_default();
        for holder in ports.holders()?.iter().filter(|holder| !valid(holder)) {
            errors.extend(ports.unmap(holder, &subnets).err());
        }
    }
    CniError::gather(errors)
}

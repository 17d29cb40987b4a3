//! DEL: takes a container off the network. Repeatable, and content when nothing is left to do.
//!
//! Deleting the host end deletes the pair, so the container's namespace is not needed and may be gone. The
//! configuration may have become wrong meanwhile: only its name and lease folder are read.

use crate::addr::Cidr;
use crate::conf::{BridgeConf, lease_data_dir};
use crate::error::CniError;
use crate::exec::kernel;
use crate::hostport::HostPorts;
use crate::ipam::lease::{Holder, LeaseStore};
use crate::names;
use crate::netlink::Netlink;
use crate::request::Request;

pub fn del(request: &Request) -> Result<(), CniError> {
    let holder = Holder { container: request.container.clone(), ifname: request.ifname.clone() };
    // The link goes first: while it is up, its address must not go to another container.
    let veth = names::host_veth(&request.config.name, &holder.container, &holder.ifname);
    let mut errors = Vec::new();
    errors.extend(delete_link(&veth).err());
    errors.extend(unmap_ports(request, &holder).err());
    if errors.is_empty() {
        errors.extend(release(request, &holder).err());
    }
    CniError::gather(errors)
}

fn delete_link(name: &str) -> Result<(), CniError> {
    let mut netlink = Netlink::open().map_err(kernel("open", "a netlink socket"))?;
    netlink.delete_link(name).map(|_| ()).map_err(kernel("delete link", name))
}

fn unmap_ports(request: &Request, holder: &Holder) -> Result<(), CniError> {
    let network = &request.config.name;
    match HostPorts::open_existing(&lease_data_dir(&request.config), network)? {
        // A configuration that no longer reads has no ranges: their masquerade comes back with the next ADD.
        Some(ports) => ports.unmap(holder, &subnets(request)),
        None => Ok(()),
    }
}

fn subnets(request: &Request) -> Vec<Cidr> {
    BridgeConf::read(&request.config, &[]).map(|conf| conf.subnets()).unwrap_or_default()
}

fn release(request: &Request, holder: &Holder) -> Result<(), CniError> {
    match LeaseStore::open_existing(&lease_data_dir(&request.config), &request.config.name)? {
        Some(store) => store.release(holder).map(|_| ()),
        None => Ok(()),
    }
}

//! ADD: connects a container to the network and says how.

use std::path::PathBuf;

use cni_plugin::reply::SuccessReply;

use crate::addr::Cidr;
use crate::conf::{BridgeConf, DEFAULT_DATA_DIR, lease_data_dir};
use crate::error::CniError;
use crate::exec::{World, kernel};
use crate::hostport::{HostPorts, Mapped};
use crate::ipam::lease::{Holder, Lease, LeaseStore};
use crate::names;
use crate::plan::{self, Attachment, Space};
use crate::reply::{ResultParts, build_result};
use crate::request::Request;

pub fn add(request: &Request) -> Result<SuccessReply, CniError> {
    let conf = BridgeConf::read(&request.config, &request.args)?;
    let who = Attachment { container: request.container.clone(), ifname: request.ifname.clone() };
    let netns = request.netns.clone().unwrap_or_default();
    let mut world = World::open(&netns)?;
    let links = world.observe(&conf.name, &conf.bridge, &who)?;
    plan::conflicts(&conf, &who, &links)?;
    let leases = allocate(&conf, &who)?;
    let done = plan::plan(&conf, &who, &leases, &links)
        .and_then(|operations| world.execute(&operations, &masquerade_lock(&conf)))
        .and_then(|()| result(&conf, &who, &leases, &mut world, &netns.display().to_string()));
    let done = done.and_then(|result| match map_ports(request, &conf, &who, &leases) {
        Ok(()) => Ok(result),
        Err(error) => {
            let veth = names::host_veth(&conf.name, &who.container, &who.ifname);
            let undone = world.host.delete_link(&veth).map_err(kernel("undo: delete link", &veth));
            CniError::gather([Some(error), undone.err()].into_iter().flatten().collect())
                .map(|()| result)
        }
    });
    done.map_err(|error| undo(&conf, &who, error))
}

fn map_ports(
    request: &Request,
    conf: &BridgeConf,
    who: &Attachment,
    leases: &[Lease],
) -> Result<(), CniError> {
    if request.port_mappings.is_empty() {
        return Ok(());
    }
    let mapped = Mapped {
        addresses: leases.iter().map(|lease| lease.address).collect(),
        ports: request.port_mappings.clone(),
    };
    let ports = HostPorts::open(&lease_data_dir(&request.config), &conf.name)?;
    let done = ports.map(&holder(who), &mapped, &conf.subnets());
    done.map_err(|error| match ports.unmap(&holder(who), &conf.subnets()) {
        Ok(()) => error,
        Err(second) => CniError::Several(vec![error, second]),
    })
}

/// Beside the leases, so that a network is one folder.
pub fn masquerade_lock(conf: &BridgeConf) -> PathBuf {
    let data_dir =
        conf.ipam.as_ref().map_or(PathBuf::from(DEFAULT_DATA_DIR), |ipam| ipam.data_dir.clone());
    data_dir.join(&conf.name).join("masquerade.lock")
}

fn holder(who: &Attachment) -> Holder {
    Holder { container: who.container.clone(), ifname: who.ifname.clone() }
}

fn allocate(conf: &BridgeConf, who: &Attachment) -> Result<Vec<Lease>, CniError> {
    match &conf.ipam {
        Some(ipam) => LeaseStore::open(&ipam.data_dir, &conf.name)?.allocate(ipam, &holder(who)),
        None => Ok(Vec::new()),
    }
}

/// The executor has taken its links back already; here the addresses go back too.
fn undo(conf: &BridgeConf, who: &Attachment, error: CniError) -> CniError {
    let Some(ipam) = &conf.ipam else { return error };
    let released =
        LeaseStore::open(&ipam.data_dir, &conf.name).and_then(|store| store.release(&holder(who)));
    match released {
        Ok(_) => error,
        Err(second) => CniError::Several(vec![error, second]),
    }
}

/// Interfaces in upstream's order: bridge, host end, container end; every address belongs to the last.
fn result(
    conf: &BridgeConf,
    who: &Attachment,
    leases: &[Lease],
    world: &mut World,
    sandbox: &str,
) -> Result<SuccessReply, CniError> {
    let veth = names::host_veth(&conf.name, &who.container, &who.ifname);
    let mut interfaces = Vec::new();
    for (space, name, sandbox) in [
        (Space::Host, conf.bridge.as_str(), ""),
        (Space::Host, &veth, ""),
        (Space::Container, &who.ifname, sandbox),
    ] {
        let link = world.find(space, name)?.ok_or_else(|| {
            CniError::Conflict(format!("link {name} was removed by someone else during ADD"))
        })?;
        interfaces.push((link.name, names::mac_text(&link.mac), sandbox.to_owned()));
    }
    let address = |lease: &Lease| Cidr::new(lease.address, lease.range.subnet.prefix).to_string();
    let parts = ResultParts {
        interfaces,
        ips: leases.iter().map(|lease| (address(lease), Some(lease.range.gateway), 2)).collect(),
        routes: plan::routes(conf, leases)
            .iter()
            .map(|route| (route.dst.to_string(), route.gw))
            .collect(),
    };
    build_result(parts, conf.dns.clone())
}

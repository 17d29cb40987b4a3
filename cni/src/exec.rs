//! Carries out a plan, one operation after the other, and takes back what it made when one fails.
//!
//! Shared things (bridge, gateway address, forwarding, masquerade) stay: other containers may use them by then.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::error::CniError;
use crate::masquerade::Masquerade;
use crate::names;
use crate::netlink::{Netlink, PairEnd};
use crate::netns;
use crate::plan::{Attachment, Link, Links, Operation, Space};

/// Both namespaces of one ADD or CHECK.
pub struct World {
    pub host: Netlink,
    pub container: Netlink,
    netns: File,
}

/// Names what failed around an error of the kernel.
pub fn kernel(operation: &'static str, object: &str) -> impl FnOnce(io::Error) -> CniError {
    let object = object.to_owned();
    move |source| CniError::Kernel { operation, object, source }
}

impl World {
    pub fn open(netns_path: &Path) -> Result<World, CniError> {
        let netns = netns::open(netns_path)?;
        let name = netns_path.display().to_string();
        let container =
            netns::within(&netns, Netlink::open).map_err(kernel("enter the namespace", &name))?;
        let host = Netlink::open().map_err(kernel("open", "a netlink socket"))?;
        Ok(World { host, container, netns })
    }

    /// What is there before anything is touched.
    pub fn observe(
        &mut self,
        network: &str,
        bridge: &str,
        who: &Attachment,
    ) -> Result<Links, CniError> {
        let host_veth = names::host_veth(network, &who.container, &who.ifname);
        let on = |path: &str| std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "1");
        Ok(Links {
            bridge: self.find(Space::Host, bridge)?,
            host_veth: self.find(Space::Host, &host_veth)?,
            container: self.find(Space::Container, &who.ifname)?,
            loopback_up: self.find(Space::Container, "lo")?.is_some_and(|lo| lo.up),
            ipv4_forwarding: on("/proc/sys/net/ipv4/ip_forward"),
            ipv6_forwarding: on("/proc/sys/net/ipv6/conf/all/forwarding"),
        })
    }

    /// The link of this name, if there is one.
    pub fn find(&mut self, space: Space, name: &str) -> Result<Option<Link>, CniError> {
        self.socket(space).link(name).map_err(kernel("look up link", name))
    }

    fn index(&mut self, space: Space, name: &str) -> Result<u32, CniError> {
        match self.find(space, name)? {
            Some(link) => Ok(link.index),
            None => Err(kernel("find link", name)(io::Error::from_raw_os_error(libc::ENODEV))),
        }
    }

    fn socket(&mut self, space: Space) -> &mut Netlink {
        match space {
            Space::Host => &mut self.host,
            Space::Container => &mut self.container,
        }
    }

    /// Runs the whole plan. After a failure the pair made by it is deleted again.
    pub fn execute(&mut self, operations: &[Operation], masq_lock: &Path) -> Result<(), CniError> {
        let mut made = None;
        for operation in operations {
            if let Err(error) = self.run(operation, masq_lock) {
                let undone = made.map_or(Ok(false), |pair: &str| self.host.delete_link(pair));
                let mut errors = vec![error];
                errors.extend(
                    undone.map_err(kernel("undo: delete link", made.unwrap_or_default())).err(),
                );
                return CniError::gather(errors);
            }
            if let Operation::CreatePair { host, .. } = operation {
                made = Some(host.as_str());
            }
        }
        Ok(())
    }

    fn run(&mut self, operation: &Operation, masq_lock: &Path) -> Result<(), CniError> {
        match operation {
            Operation::CreateBridge { name, mac, mtu } => {
                self.host.create_bridge(name, *mac, *mtu).map_err(kernel("create bridge", name))
            }
            Operation::SetSysctl { space, key, value } => self.set_sysctl(*space, key, value),
            Operation::DeleteHostLink { name } => {
                self.host.delete_link(name).map(|_| ()).map_err(kernel("delete link", name))
            }
            Operation::RemoveAddress { link, address } => {
                let index = self.index(Space::Host, link)?;
                let object = format!("{address} from {link}");
                self.host.remove_address(index, *address).map_err(kernel("remove address", &object))
            }
            Operation::AddAddress { space, link, address } => {
                let index = self.index(*space, link)?;
                let object = format!("{address} to {link}");
                self.socket(*space)
                    .add_address(index, *address)
                    .map_err(kernel("add address", &object))
            }
            Operation::SetUp { space, link } => {
                let index = self.index(*space, link)?;
                self.socket(*space).set_up(index).map_err(kernel("bring up link", link))
            }
            Operation::CreatePair { host, host_mac, ifname, mac, mtu } => {
                let ends =
                    (PairEnd { name: host, mac: *host_mac }, PairEnd { name: ifname, mac: *mac });
                let netns = self.netns.as_raw_fd();
                let object = format!("{host} with {ifname}");
                self.host
                    .create_pair(ends.0, ends.1, netns, *mtu)
                    .map_err(kernel("create veth pair", &object))
            }
            Operation::AttachPort { link, alias, bridge, hairpin } => {
                self.attach_port(link, alias, bridge, *hairpin)
            }
            Operation::AddRoute { link, dst, gateway } => {
                let index = self.index(Space::Container, link)?;
                let object = format!("{dst} through {link}");
                self.container
                    .add_route(index, *dst, *gateway)
                    .map_err(kernel("add route", &object))
            }
            Operation::EnsureMasquerade(masquerade) => ensure_masquerade(masquerade, masq_lock),
        }
    }

    fn attach_port(
        &mut self,
        link: &str,
        alias: &str,
        bridge: &str,
        hairpin: bool,
    ) -> Result<(), CniError> {
        let port = self.index(Space::Host, link)?;
        let controller = self.index(Space::Host, bridge)?;
        let object = format!("{link} to {bridge}");
        self.host.attach_port(port, alias, controller).map_err(kernel("attach port", &object))?;
        if hairpin {
            self.host.set_hairpin(port, true).map_err(kernel("set hairpin mode of", link))?;
        }
        Ok(())
    }

    /// `/proc/sys/net` shows the namespace of the thread that opens it. A key the kernel lacks is no fault: there is
    /// nothing to set then (a kernel without IPv6 has no `net/ipv6`).
    fn set_sysctl(&self, space: Space, key: &str, value: &str) -> Result<(), CniError> {
        let path = Path::new("/proc/sys").join(key);
        let write = || match std::fs::write(&path, value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        };
        let done = match space {
            Space::Host => write(),
            Space::Container => netns::within(&self.netns, write),
        };
        done.map_err(|source| CniError::Io { operation: "set", path, source })
    }
}

/// Looks first without a lock; whoever finds the rules missing takes the lock, looks again and writes them.
pub fn ensure_masquerade(masquerade: &Masquerade, lock: &Path) -> Result<(), CniError> {
    if masquerade.is_present()? {
        return Ok(());
    }
    let failed = |source| CniError::Io { operation: "lock", path: lock.to_owned(), source };
    if let Some(folder) = lock.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let file =
        File::options().create(true).truncate(false).write(true).open(lock).map_err(failed)?;
    let _held = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive)
        .map_err(|(_, errno)| failed(io::Error::from(errno)))?;
    if masquerade.is_present()? {
        return Ok(());
    }
    masquerade.write()
}

//! Who holds which address: one small file an address, in host-local's own layout.
//!
//! `DATADIR/NETWORK/10.42.0.5` holds the container id and the interface name; `last_reserved_ip.N` holds where set
//! N goes on; `lock` is held (flock) while anything changes. The layout is upstream's, so that a node may change
//! from one plugin to the other without losing its leases.
//!
//! A lease appears complete or not at all: it is written beside and renamed to its name, under the lock. Nothing is synced to
//! disk, because containers do not outlive a power loss; a file that came back empty from one is nobody's lease.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::conf::IpamConf;
use crate::error::CniError;
use crate::ipam::range::Range;

const LOCK_FILE: &str = "lock";
const LAST_RESERVED: &str = "last_reserved_ip.";
const PENDING: &str = ".pending";

/// The holder of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub container: String,
    pub ifname: String,
}

/// An address given to a container, with the range it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub address: IpAddr,
    pub range: Range,
}

/// The leases of one network, locked for as long as this value lives.
pub struct LeaseStore {
    dir: PathBuf,
    network: String,
    _lock: Flock<File>,
}

impl LeaseStore {
    /// Opens and locks, creating the folder when it is missing.
    pub fn open(data_dir: &Path, network: &str) -> Result<LeaseStore, CniError> {
        let dir = data_dir.join(network);
        fs::create_dir_all(&dir).map_err(failed("create the lease folder", &dir))?;
        LeaseStore::lock(dir, network)
    }

    /// Opens and locks if there ever was a lease.
    pub fn open_existing(data_dir: &Path, network: &str) -> Result<Option<LeaseStore>, CniError> {
        let dir = data_dir.join(network);
        if !dir.is_dir() {
            return Ok(None);
        }
        LeaseStore::lock(dir, network).map(Some)
    }

    fn lock(dir: PathBuf, network: &str) -> Result<LeaseStore, CniError> {
        let path = dir.join(LOCK_FILE);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed("open the lease lock", &path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| failed("lock the leases with", &path)(io::Error::from(errno)))?;
        Ok(LeaseStore { dir, network: network.to_owned(), _lock: lock })
    }

    /// Every lease of the network, sorted by address.
    pub fn leases(&self) -> Result<Vec<(IpAddr, Holder)>, CniError> {
        let entries = fs::read_dir(&self.dir).map_err(failed("list the leases in", &self.dir))?;
        let mut leases = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed("list the leases in", &self.dir))?;
            let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            else {
                continue;
            };
            if let Some(holder) = self.holder(address)? {
                leases.push((address, holder));
            }
        }
        leases.sort_by_key(|(address, _)| *address);
        Ok(leases)
    }

    /// Who holds an address. An empty file is what a power loss left behind: nobody.
    pub fn holder(&self, address: IpAddr) -> Result<Option<Holder>, CniError> {
        let path = self.path(address);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read the lease", &path)(error)),
        };
        let mut lines = text.lines().map(str::trim);
        let container = lines.next().unwrap_or_default().to_owned();
        let ifname = lines.next().unwrap_or_default().to_owned();
        Ok((!container.is_empty()).then_some(Holder { container, ifname }))
    }

    /// One address from every set, or none at all.
    pub fn allocate(&self, conf: &IpamConf, holder: &Holder) -> Result<Vec<Lease>, CniError> {
        let held = self.leases()?;
        if let Some((address, _)) = held.iter().find(|(_, theirs)| theirs == holder) {
            return Err(CniError::Conflict(format!(
                "{address} is already allocated to interface {} of container {} in network {}; DEL comes first",
                holder.ifname, holder.container, self.network
            )));
        }
        let mut leases: Vec<Lease> = Vec::new();
        for index in 0..conf.sets.len() {
            match self.allocate_in(conf, index, holder, &held) {
                Ok(lease) => leases.push(lease),
                Err(error) => {
                    for lease in leases {
                        self.remove(lease.address)?;
                    }
                    return Err(error);
                }
            }
        }
        Ok(leases)
    }

    fn allocate_in(
        &self,
        conf: &IpamConf,
        index: usize,
        holder: &Holder,
        held: &[(IpAddr, Holder)],
    ) -> Result<Lease, CniError> {
        let set = &conf.sets[index];
        let taken =
            |address: IpAddr| held.binary_search_by_key(&address, |(theirs, _)| *theirs).is_ok();
        let requested = conf.requested.iter().copied().find(|address| set.contains(*address));
        let found = match requested {
            Some(address) if taken(address) => None,
            Some(address) => {
                set.range_of(address).filter(|range| range.gateway != address).map(|r| (address, r))
            }
            None => set.next_free(self.last_reserved(index), taken),
        };
        let Some((address, range)) = found else {
            let ranges = requested.map_or_else(|| set.to_string(), |address| address.to_string());
            return Err(CniError::Exhausted { network: self.network.clone(), ranges });
        };
        self.write(address, holder)?;
        if requested.is_none() {
            self.set_last_reserved(index, address)?;
        }
        Ok(Lease { address, range: range.clone() })
    }

    /// Frees what the holder has; nothing is fine too. Returns what was freed.
    pub fn release(&self, holder: &Holder) -> Result<Vec<IpAddr>, CniError> {
        let mut freed = Vec::new();
        for (address, theirs) in self.leases()? {
            if theirs == *holder {
                self.remove(address)?;
                freed.push(address);
            }
        }
        Ok(freed)
    }

    /// Forgets the whole network: every lease, and the folder.
    pub fn destroy(self) -> Result<(), CniError> {
        fs::remove_dir_all(&self.dir).map_err(failed("remove the leases in", &self.dir))
    }

    fn path(&self, address: IpAddr) -> PathBuf {
        self.dir.join(address.to_string())
    }

    fn write(&self, address: IpAddr, holder: &Holder) -> Result<(), CniError> {
        let path = self.path(address);
        let pending = self.dir.join(PENDING);
        let write = || -> io::Result<()> {
            let mut file = File::create(&pending)?;
            write!(file, "{}\r\n{}", holder.container, holder.ifname)?;
            // Under the lock nobody else makes this name; only a torn lease of the past can be in the way.
            fs::rename(&pending, &path)
        };
        write().map_err(failed("write the lease", &path))
    }

    fn remove(&self, address: IpAddr) -> Result<(), CniError> {
        let path = self.path(address);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove the lease", &path)(error))
            }
            _ => Ok(()),
        }
    }

    fn last_reserved(&self, set: usize) -> Option<IpAddr> {
        let text = fs::read_to_string(self.dir.join(format!("{LAST_RESERVED}{set}"))).ok()?;
        text.trim().parse().ok()
    }

    fn set_last_reserved(&self, set: usize, address: IpAddr) -> Result<(), CniError> {
        let path = self.dir.join(format!("{LAST_RESERVED}{set}"));
        fs::write(&path, address.to_string()).map_err(failed("write", &path))
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CniError {
    let path = path.to_owned();
    move |source| CniError::Io { operation, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::range::RangeSet;

    fn conf(subnet: &str, requested: &[&str]) -> IpamConf {
        let range = Range::new(subnet.parse().unwrap(), None, None, None).unwrap();
        IpamConf {
            data_dir: PathBuf::new(),
            sets: vec![RangeSet { ranges: vec![range] }],
            routes: Vec::new(),
            requested: requested.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn holder(container: &str) -> Holder {
        Holder { container: container.to_owned(), ifname: "eth0".to_owned() }
    }

    #[test]
    fn a_lease_is_upstreams_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = LeaseStore::open(dir.path(), "pods").unwrap();
        let leases = store.allocate(&conf("10.0.0.0/29", &[]), &holder("c1")).unwrap();
        assert_eq!(leases[0].address.to_string(), "10.0.0.2");
        let text = fs::read_to_string(dir.path().join("pods/10.0.0.2")).unwrap();
        assert_eq!(text, "c1\r\neth0");
        let last = fs::read_to_string(dir.path().join("pods/last_reserved_ip.0")).unwrap();
        assert_eq!(last, "10.0.0.2");
    }

    #[test]
    fn twice_for_one_holder_is_refused_and_release_is_idempotent() {
        let dir = tempfile::tempdir().unwrap();
        let store = LeaseStore::open(dir.path(), "pods").unwrap();
        store.allocate(&conf("10.0.0.0/29", &[]), &holder("c1")).unwrap();
        let again = store.allocate(&conf("10.0.0.0/29", &[]), &holder("c1")).unwrap_err();
        assert_eq!(again.code(), 101);
        assert_eq!(store.release(&holder("c1")).unwrap().len(), 1);
        assert_eq!(store.release(&holder("c1")).unwrap().len(), 0);
        let next = store.allocate(&conf("10.0.0.0/29", &[]), &holder("c1")).unwrap();
        assert_eq!(next[0].address.to_string(), "10.0.0.3", "a freed address rests");
    }

    #[test]
    fn a_full_range_says_so_and_a_torn_lease_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let store = LeaseStore::open(dir.path(), "pods").unwrap();
        store.allocate(&conf("10.0.0.0/30", &[]), &holder("c1")).unwrap();
        let full = store.allocate(&conf("10.0.0.0/30", &[]), &holder("c2")).unwrap_err();
        assert_eq!(full.code(), 11);
        fs::write(dir.path().join("pods/10.0.0.2"), "").unwrap();
        assert!(store.allocate(&conf("10.0.0.0/30", &[]), &holder("c2")).is_ok());
    }

    #[test]
    fn an_address_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let store = LeaseStore::open(dir.path(), "pods").unwrap();
        let wish = conf("10.0.0.0/24", &["10.0.0.77"]);
        assert_eq!(
            store.allocate(&wish, &holder("c1")).unwrap()[0].address.to_string(),
            "10.0.0.77"
        );
        assert_eq!(store.allocate(&wish, &holder("c2")).unwrap_err().code(), 11);
        let gateway = conf("10.0.0.0/24", &["10.0.0.1"]);
        assert_eq!(store.allocate(&gateway, &holder("c3")).unwrap_err().code(), 11);
    }
}

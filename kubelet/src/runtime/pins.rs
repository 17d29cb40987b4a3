//! Namespaces of a sandbox without a process to hold them: mounted as `uts` and `ipc` in the sandbox's
//! folder. A pod that shares no process namespace needs no more, and starts in half the time.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{FsType, statfs};

/// `NSFS_MAGIC` of `linux/magic.h`.
const NSFS: FsType = FsType(0x6e73_6673);
const NAMES: [&str; 2] = ["uts", "ipc"];

/// Whether the sandbox of this folder holds namespaces. They go with the boot, as a process would.
pub(super) fn are_there(dir: &Path) -> bool {
    NAMES
        .iter()
        .all(|name| statfs(&dir.join(name)).is_ok_and(|stat| stat.filesystem_type() == NSFS))
}

/// Made on a thread of their own: a worker of the async runtime must never leave the host's.
pub(super) async fn make(
    dir: PathBuf,
    hostname: String,
    sysctls: Vec<(String, String)>,
    network: PathBuf,
) -> io::Result<()> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("namespaces".to_owned()).spawn(move || {
        let _ = sender.send(make_here(&dir, &hostname, &sysctls, &network));
    })?;
    receiver.await.map_err(io::Error::other)?
}

fn make_here(
    dir: &Path,
    hostname: &str,
    sysctls: &[(String, String)],
    network: &Path,
) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)?;
    nix::unistd::sethostname(hostname)?;
    if !sysctls.is_empty() {
        nix::sched::setns(File::open(network)?, CloneFlags::CLONE_NEWNET)?;
    }
    for (name, value) in sysctls {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        std::fs::write(&path, value)
            .map_err(|why| io::Error::other(format!("set sysctl {name}: {why}")))?;
    }
    for name in NAMES {
        let own = format!("/proc/self/task/{}/ns/{name}", nix::unistd::gettid());
        File::create(dir.join(name))?;
        mount(Some(own.as_str()), &dir.join(name), None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    }
    Ok(())
}

/// Nothing there is what is wanted.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    for name in NAMES {
        match umount2(&dir.join(name), MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

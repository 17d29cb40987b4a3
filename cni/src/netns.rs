//! Work inside another network namespace, on a thread of its own that ends there.
//!
//! A thread that entered a namespace is never used for anything else: there is no going back that could fail.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use crate::error::CniError;

/// Opens a namespace and makes sure it is a network namespace and not the one the plugin runs in.
pub fn open(path: &Path) -> Result<File, CniError> {
    let file = open_any(path)?;
    let own = File::open("/proc/thread-self/ns/net").and_then(|own| own.metadata());
    if let (Ok(own), Ok(theirs)) = (own, file.metadata())
        && (own.dev(), own.ino()) == (theirs.dev(), theirs.ino())
    {
        let fault = format!("CNI_NETNS {} is the plugin's own network namespace", path.display());
        return Err(CniError::BadEnvironment(vec![fault]));
    }
    Ok(file)
}

fn open_any(path: &Path) -> Result<File, CniError> {
    File::open(path).map_err(|source| CniError::Io {
        operation: "open the network namespace",
        path: path.to_owned(),
        source,
    })
}

/// Runs `work` on a new thread in the namespace and waits for it.
pub fn within<T: Send>(netns: &File, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)?;
            work()
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}

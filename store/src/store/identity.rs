//! Who this member is, kept in its folder; and the lock that keeps a second process out.
//!
//! ```text
//! data-dir/lock         held while the store runs
//! data-dir/member       name and ids, as JSON
//! data-dir/log/         the write-ahead log
//! data-dir/snapshots/   the newest snapshot
//! data-dir/engine/      the disk engine; rebuilt if it is lost
//! ```

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::OpenError;
use crate::config::Config;
use crate::wal::disk::{Disk, Lock, Stream, create_anew};

const FORMAT: u32 = 1;
/// The kernel needs a moment to end a process that is just syncing a file. It tells nobody but a
/// blocked thread when a lock is free, so for this second the lock is tried again.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_RETRY: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub format: u32,
    pub name: String,
    pub member_id: u64,
    pub cluster_id: u64,
}

pub(super) fn io_error(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { operation, path, source }
}

pub(super) fn lock(disk: &dyn Disk, data_dir: &Path) -> Result<Lock, OpenError> {
    let path = data_dir.join("lock");
    disk.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { path },
        _ => io_error("lock", &path)(error),
    })
}

/// As `lock`, but a process that was killed a moment ago may still hold it.
pub(super) async fn wait_for_lock(disk: &dyn Disk, data_dir: &Path) -> Result<Lock, OpenError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match lock(disk, data_dir) {
            Err(OpenError::Locked { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(LOCK_RETRY).await;
            }
            outcome => return outcome,
        }
    }
}

/// Reads who this is, or decides it at the first start.
pub(super) fn load(disk: &dyn Disk, config: &Config) -> Result<Identity, OpenError> {
    let path = config.data_dir.join("member");
    if disk.exists(&path) {
        let mut bytes = Vec::new();
        let read = disk.open(&path).and_then(|file| Stream::new(file).read_to_end(&mut bytes));
        read.map_err(io_error("read", &path))?;
        let fault = |fault: String| OpenError::Identity { path: path.clone(), fault };
        let identity: Identity =
            serde_json::from_slice(&bytes).map_err(|error| fault(error.to_string()))?;
        if identity.format > FORMAT {
            return Err(fault(format!(
                "format {} is newer than this program knows ({FORMAT})",
                identity.format
            )));
        }
        return Ok(identity);
    }
    let identity = Identity {
        format: FORMAT,
        name: config.name.clone(),
        member_id: config.member_id.unwrap_or_else(|| config.member_id(&config.peer_urls)),
        cluster_id: config.cluster_id(),
    };
    save(disk, &config.data_dir, &identity)?;
    Ok(identity)
}

pub(super) fn save(disk: &dyn Disk, data_dir: &Path, identity: &Identity) -> Result<(), OpenError> {
    let path = data_dir.join("member");
    let temporary = data_dir.join("member.tmp");
    let write = || -> io::Result<()> {
        let mut file = Stream::new(create_anew(disk, &temporary)?);
        file.write_all(&serde_json::to_vec_pretty(identity).map_err(io::Error::other)?)?;
        file.sync()?;
        disk.rename(&temporary, &path)?;
        disk.sync_folder(data_dir)
    };
    write().map_err(io_error("write", &path))
}

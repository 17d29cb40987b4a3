//! Who this member is, kept in its folder; and the lock that keeps a second process out.
//!
//! ```text
//! data-dir/lock         held while the store runs
//! data-dir/member       name and ids, as JSON
//! data-dir/log/         the write-ahead log
//! data-dir/snapshots/   the newest snapshot
//! data-dir/engine/      the disk engine; rebuilt if it is lost
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::OpenError;
use crate::config::Config;

const FORMAT: u32 = 1;

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

/// The lock lives as long as the file; a killed process leaves none behind.
pub(super) fn lock(data_dir: &Path) -> Result<File, OpenError> {
    let path = data_dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path }),
        Err(TryLockError::Error(error)) => Err(io_error("lock", &path)(error)),
    }
}

/// Reads who this is, or decides it at the first start.
pub(super) fn load(config: &Config) -> Result<Identity, OpenError> {
    let path = config.data_dir.join("member");
    match std::fs::read(&path) {
        Ok(bytes) => {
            let fault = |fault: String| OpenError::Identity { path: path.clone(), fault };
            let identity: Identity =
                serde_json::from_slice(&bytes).map_err(|error| fault(error.to_string()))?;
            if identity.format > FORMAT {
                return Err(fault(format!(
                    "format {} is newer than this program knows ({FORMAT})",
                    identity.format
                )));
            }
            Ok(identity)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let identity = Identity {
                format: FORMAT,
                name: config.name.clone(),
                member_id: config.member_id(&config.peer_urls),
                cluster_id: config.cluster_id(),
            };
            save(&config.data_dir, &identity)?;
            Ok(identity)
        }
        Err(error) => Err(io_error("read", &path)(error)),
    }
}

pub(super) fn save(data_dir: &Path, identity: &Identity) -> Result<(), OpenError> {
    let path = data_dir.join("member");
    let temporary = data_dir.join("member.tmp");
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(identity).map_err(io::Error::other)?)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        File::open(data_dir)?.sync_all()
    };
    write().map_err(io_error("write", &path))
}

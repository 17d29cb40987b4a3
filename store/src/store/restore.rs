//! Snapshot files outside of a running store: what one holds, and a new cluster from it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use super::identity::{self, Identity, io_error};
use super::{OpenError, Store};
use crate::config::Config;
use crate::engine::Meta;
use crate::kv::Revision;
use crate::raft::types::{AppliedTo, MemberSet, StoredMembership, log_id};
use crate::snapshot::{Header, SnapshotError, SnapshotFolder, SnapshotReader};
use crate::wal::disk::{Disk, RealDisk};

/// What a snapshot file holds; it has been read to its end and is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotStatus {
    pub cluster_id: u64,
    pub revision: Revision,
    pub records: u64,
    pub bytes: u64,
}

fn open(path: &Path) -> Result<SnapshotReader<BufReader<File>>, OpenError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    Ok(SnapshotReader::start(BufReader::new(file))?)
}

impl Store {
    /// Reads a snapshot file through. Blocks.
    pub fn snapshot_status(path: &Path) -> Result<SnapshotStatus, OpenError> {
        let mut reader = open(path)?;
        let mut records = 0;
        while reader.next_record()?.is_some() {
            records += 1;
        }
        Ok(SnapshotStatus {
            cluster_id: reader.header.cluster_id,
            revision: reader.header.meta.revision,
            records,
            bytes: std::fs::metadata(path).map_err(io_error("look at", path))?.len(),
        })
    }

    /// Fills an empty data folder from a snapshot file, as a member of a new cluster made of
    /// the configuration's members. Revisions go on from the snapshot's. Blocks.
    pub fn restore(path: &Path, config: &Config) -> Result<Identity, OpenError> {
        config.validate()?;
        let dir = &config.data_dir;
        std::fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let _lock = identity::lock(&*disk, dir)?;
        if dir.join("member").exists() || dir.join("log").exists() {
            return Err(OpenError::NotEmpty { path: dir.clone() });
        }
        let folder = SnapshotFolder::open(disk.clone(), dir.join("snapshots"))?;
        let mut reader = open(path)?;
        let header = Header {
            cluster_id: config.cluster_id(),
            meta: Meta { applied: first_entry(config).encode(), ..reader.header.meta.clone() },
            leases: reader.header.leases.clone(),
        };
        let file = folder.write(&header, |writer| {
            while let Some((rev, record)) = reader.next_record()? {
                writer.record(rev, &record)?;
            }
            Ok::<_, SnapshotError>(())
        })?;
        folder.keep(&file, 0, 0)?;
        // Last, so that a restore that did not finish is known as one.
        identity::load(&*disk, config)
    }
}

/// As if the new cluster's first entry, which names its members, had brought it all.
fn first_entry(config: &Config) -> AppliedTo {
    let nodes: BTreeMap<_, _> = config.initial_members().into_iter().collect();
    let members = MemberSet::from(nodes);
    AppliedTo {
        log_id: Some(log_id(0, 0)),
        membership: StoredMembership::new(Some(log_id(0, 0)), members),
    }
}

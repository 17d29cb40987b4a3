//! Backups outside of a running store: what one holds, and a new cluster from it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::identity::{self, Identity, io_error};
use super::{OpenError, Store};
use crate::config::Config;
use crate::engine::Meta;
use crate::kv::Revision;
use crate::raft::types::{AppliedTo, MemberSet, StoredMembership, log_id};
use crate::snapshot::{BackupReader, Header, Kept, Manifest, SnapshotError, SnapshotFolder};
use crate::wal::disk::{Disk, RealDisk};

/// What a backup holds; it has been read to its end and is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotStatus {
    pub cluster_id: u64,
    pub revision: Revision,
    /// 0: never.
    pub compacted: Revision,
    pub records: u64,
    pub bytes: u64,
    /// `None`: the store alone, without the cluster's own files.
    pub manifest: Option<Manifest>,
    pub files: Vec<Kept>,
}

/// How the new cluster's revisions go on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestoreOptions {
    /// Clients that have seen revisions written after the backup must not see them again
    /// with another meaning: leave this many out.
    pub bump_revision: u64,
    /// Watches from before are told to list again.
    pub mark_compacted: bool,
}

impl Store {
    /// Reads a backup through. Blocks.
    pub fn snapshot_status(path: &Path) -> Result<SnapshotStatus, OpenError> {
        let fault = |source| OpenError::Backup { path: path.to_owned(), source };
        let mut reader = BackupReader::open(path).map_err(fault)?;
        let mut records = 0;
        while reader.store.next_record().map_err(fault)?.is_some() {
            records += 1;
        }
        let status = SnapshotStatus {
            cluster_id: reader.store.header.cluster_id,
            revision: reader.store.header.meta.revision,
            compacted: reader.store.header.meta.compacted.max(0),
            records,
            bytes: std::fs::metadata(path).map_err(io_error("look at", path))?.len(),
            manifest: reader.manifest.clone(),
            files: std::mem::take(&mut reader.files),
        };
        reader.finish().map_err(fault)?;
        Ok(status)
    }

    /// Fills an empty data folder from a backup, as a member of a new cluster made of the
    /// configuration's members. Revisions go on from the backup's. Blocks.
    pub fn restore(path: &Path, config: &Config) -> Result<Identity, OpenError> {
        Self::restore_with(path, config, RestoreOptions::default())
    }

    pub fn restore_with(
        path: &Path,
        config: &Config,
        options: RestoreOptions,
    ) -> Result<Identity, OpenError> {
        config.validate()?;
        let fault = |source| OpenError::Backup { path: path.to_owned(), source };
        let mut reader = BackupReader::open(path).map_err(fault)?;
        let dir = &config.data_dir;
        std::fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let _lock = identity::lock(&*disk, dir)?;
        if dir.join("member").exists() || dir.join("log").exists() {
            return Err(OpenError::NotEmpty { path: dir.clone() });
        }
        let folder = SnapshotFolder::open(disk.clone(), dir.join("snapshots"))?;
        let mut meta = Meta {
            applied: first_entry(config).encode(),
            // They are about members that this cluster does not have.
            alarms: Default::default(),
            ..reader.store.header.meta.clone()
        };
        let bump = Revision::try_from(options.bump_revision).unwrap_or(Revision::MAX);
        meta.revision = meta.revision.saturating_add(bump);
        if options.mark_compacted {
            meta.compacted = meta.revision;
        }
        let header = Header {
            cluster_id: config.cluster_id(),
            meta,
            leases: reader.store.header.leases.clone(),
        };
        let file = folder.write(&header, |writer| {
            while let Some((rev, record)) = reader.store.next_record()? {
                writer.record(rev, &record)?;
            }
            Ok::<_, SnapshotError>(())
        });
        let file = file.map_err(fault)?;
        reader.finish().map_err(fault)?;
        folder.keep(&file, 0, 0, drop)?;
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

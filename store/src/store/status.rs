//! What the operator's side asks: status, members, hashes, snapshots, leadership.

use std::collections::BTreeMap;
use std::io::Write;

use openraft::async_runtime::watch::WatchReceiver as _;

use super::{Identity, Store};
use crate::kv::{KvError, Revision};
use crate::mvcc::Digest;
use crate::mvcc::alarm::RaisedAlarm;
use crate::mvcc::revision::Rev;
use crate::raft::machine::View;
use crate::raft::types::MemberId;
use crate::snapshot::SnapshotWriter;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub version: &'static str,
    pub cluster_id: u64,
    pub member_id: MemberId,
    pub revision: Revision,
    pub compacted: Revision,
    /// Of log, engine and snapshots on disk.
    pub db_bytes: u64,
    /// Of keys and values that a range can still see.
    pub db_bytes_in_use: u64,
    /// 0: none is known.
    pub leader: MemberId,
    pub raft_index: u64,
    pub raft_term: u64,
    pub raft_applied_index: u64,
    pub is_learner: bool,
    pub alarms: Vec<RaisedAlarm>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKv {
    pub hash: u32,
    pub revision: Revision,
    pub compacted: Revision,
}

impl Store {
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// The newest revision that has been applied here.
    pub fn revision(&self) -> Revision {
        self.inner.core.mvcc().revision()
    }

    pub fn raft_term(&self) -> u64 {
        self.inner.raft.server_metrics().borrow_watched().vote.leader_id.term
    }

    pub fn status(&self) -> Status {
        let inner = &self.inner;
        let metrics = inner.raft.metrics().borrow_watched().clone();
        let (revision, compacted, bytes) = {
            let mvcc = inner.core.mvcc();
            (mvcc.revision(), mvcc.compacted(), mvcc.bytes())
        };
        let me = inner.identity.member_id;
        let snapshot = inner.core.snapshot_file().and_then(|file| file.bytes().ok());
        Status {
            version: env!("CARGO_PKG_VERSION"),
            cluster_id: inner.identity.cluster_id,
            member_id: me,
            revision,
            compacted,
            db_bytes: inner.wal.bytes() + inner.core.engine.disk_bytes() + snapshot.unwrap_or(0),
            db_bytes_in_use: bytes,
            leader: inner.leadership.current().unwrap_or(0),
            raft_index: metrics.last_log_index.unwrap_or(0),
            raft_term: metrics.vote.leader_id.term,
            raft_applied_index: inner.core.applied().log_id.map_or(0, |id| id.index()),
            is_learner: !metrics.membership_config.voter_ids().any(|id| id == me),
            alarms: self.alarms(),
        }
    }

    /// A hash of every record up to `revision` (0: the newest) that is not compacted. The
    /// same on all members, as etcd's is; its value differs from etcd's.
    pub async fn hash_kv(&self, revision: Revision) -> Result<HashKv, KvError> {
        {
            let mvcc = self.inner.core.mvcc();
            mvcc.check_revision(revision)?;
            let compacted = mvcc.compacted();
            // A range at the compaction itself can be answered; a hash is not, as in etcd.
            if revision > 0 && revision <= compacted {
                return Err(KvError::Compacted { requested: revision, compacted });
            }
        }
        let view = View::new(self.inner.core.clone());
        view.settle().await.map_err(|_| KvError::Stopped)?;
        let upto = if revision > 0 { revision } else { view.meta.revision };
        let core = self.inner.core.clone();
        let hashed = self.inner.core.background.run("hash", move || {
            let mut digest = Digest::default();
            let compacted = view.meta.compacted;
            // What compaction has set free may or may not have been removed here yet, and the
            // index may be compacted further meanwhile: of each key only its newest version
            // from before counts, found among the records that the view keeps.
            let mut before = BTreeMap::new();
            core.engine.scan(Rev::default(), Rev::new(upto, u32::MAX), &mut |rev, record| {
                let checksum = record.checksum(rev);
                if rev.main > compacted {
                    digest.add(rev, checksum);
                } else if record.is_tombstone() {
                    before.remove(&record.key);
                } else {
                    before.insert(record.key, (rev, checksum));
                }
                true
            })?;
            for (rev, checksum) in before.into_values() {
                digest.add(rev, checksum);
            }
            Ok::<_, crate::engine::EngineError>((digest, compacted))
        });
        let (digest, compacted) = hashed.await.map_err(internal)?.map_err(internal)?;
        Ok(HashKv { hash: (digest.sum ^ (digest.sum >> 32)) as u32, revision: upto, compacted })
    }

    /// Writes the state as it is now, as one file that proves itself; writes go on
    /// meanwhile. Returns what it wrote to.
    pub async fn snapshot_to<W: Write + Send + 'static>(&self, out: W) -> Result<W, KvError> {
        self.inner.linearize().await?;
        let view = View::new(self.inner.core.clone());
        view.settle().await.map_err(|_| KvError::Stopped)?;
        let written = self.inner.core.background.run("stream a snapshot", move || {
            let mut writer = SnapshotWriter::start(out, &view.header())?;
            view.fill(&mut writer)?;
            writer.finish()
        });
        written.await.map_err(internal)?.map_err(internal)
    }

    /// Writes a snapshot and lets the log before it go; then the engine gives back the space that
    /// compactions have set free. Writes and reads go on all the while.
    pub async fn defragment(&self) -> Result<(), KvError> {
        let text = |error: &dyn std::fmt::Display| KvError::Internal(error.to_string());
        let compacted = super::snapshotter::compact_log(&self.inner).await;
        compacted.map_err(|error| text(&error))?;
        self.inner.core.queue.compact().await.map_err(|error| text(&error))
    }

    /// How often the log was synced and how many bytes were written to it.
    pub fn log_written(&self) -> (u64, u64) {
        self.inner.wal.written()
    }

    /// Watches that are up to date, and how many were cut off because they were too slow.
    pub fn watch_counts(&self) -> (usize, u64) {
        let hub = self.inner.core.hub();
        (hub.len(), hub.too_slow)
    }
}

fn internal(error: impl std::fmt::Display) -> KvError {
    KvError::Internal(error.to_string())
}

//! Compacts the log: when it has grown enough, writes a snapshot and lets the log before it
//! go. A snapshot that fails (a full disk) is tried again when the log has grown further;
//! until then nothing is lost but space.

use std::sync::Arc;

use openraft::async_runtime::watch::WatchReceiver as _;

use super::Inner;
use crate::raft::machine::write_snapshot;

/// Written to the log between two looks at the disk's space; the leader looks at every write.
const LOOK_EVERY_BYTES: u64 = 1 << 20;

pub(super) async fn run(inner: Arc<Inner>) {
    let mut applied = inner.raft.data_metrics();
    let mut failed_at_bytes = 0;
    let mut looked_at = 0;
    let mut compacted = inner.core.mvcc().compacted();
    loop {
        if applied.changed().await.is_err() {
            return;
        }
        let written = inner.wal.written().1;
        if written >= looked_at + LOOK_EVERY_BYTES {
            looked_at = written;
            inner.core.space_wake.notify_one();
        }
        let log_bytes = inner.wal.bytes();
        let (bytes, now) = {
            let mvcc = inner.core.mvcc();
            (mvcc.bytes(), mvcc.compacted())
        };
        // Behind a compaction there is least to write.
        let part = if std::mem::replace(&mut compacted, now) == now { 1 } else { 2 };
        let threshold = inner.config.snapshot_log_bytes.max(bytes / part);
        if log_bytes < threshold + failed_at_bytes {
            continue;
        }
        let (applied, covered) = (inner.core.applied().log_id, inner.core.snapshot_index());
        if applied.is_none_or(|id| covered.is_some_and(|covered| id.index() <= covered)) {
            // What fills the log is not applied yet, so no snapshot can stand for it.
            continue;
        }
        match compact_log(&inner).await {
            Ok(()) => failed_at_bytes = 0,
            Err(error) => {
                tracing::error!(%error, log_bytes, "cannot write a snapshot, so the log keeps growing");
                failed_at_bytes = log_bytes;
            }
        }
    }
}

/// Writes a snapshot now and purges the log up to it.
pub(super) async fn compact_log(
    inner: &Inner,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    if write_snapshot(&inner.core).await?.is_none() {
        return Ok(());
    }
    let index = inner.core.snapshot_index();
    inner.raft.trigger().snapshot().await?;
    // The log may go only once Raft has taken note of the snapshot.
    let wait = inner.raft.wait(Some(std::time::Duration::from_secs(30)));
    let noted = |id: Option<u64>| id >= index;
    wait.metrics(
        |metrics| noted(metrics.snapshot.as_ref().map(|id| id.index())),
        "the snapshot is known",
    )
    .await?;
    if let Some(index) = index {
        let keep = if inner.sole_voter.is_only() { 0 } else { kept_for_others(inner, index) };
        inner.raft.trigger().purge_log(index.saturating_sub(keep)).await?;
    }
    Ok(())
}

/// Entries that stay for members which lag a little. They must not by themselves be enough for
/// the next snapshot.
fn kept_for_others(inner: &Inner, index: u64) -> u64 {
    let config = &inner.config;
    let fitting = inner.wal.entries_within(config.snapshot_log_bytes / 2, index);
    fitting.min(config.snapshot_keep_entries)
}

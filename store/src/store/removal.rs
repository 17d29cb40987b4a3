//! A member that has been removed from its cluster.
//!
//! It learns of it from its own log, or, if it was away meanwhile, from another member that
//! refuses it. From then on it serves nobody, and says so at every start: its log belongs to
//! a member that does not exist any more.

use std::path::Path;
use std::sync::Arc;

use openraft::async_runtime::watch::WatchReceiver as _;

use super::{Inner, OpenError, Store};
use crate::wal::disk::{Disk, create_anew};

const MARKER: &str = "removed";

/// Refuses to start as a member that was removed.
pub(super) fn check(disk: &dyn Disk, data_dir: &Path) -> Result<(), OpenError> {
    if disk.exists(&data_dir.join(MARKER)) {
        return Err(OpenError::Removed { path: data_dir.to_owned() });
    }
    Ok(())
}

impl Store {
    /// Returns when this member has been removed from the cluster.
    pub async fn removed(&self) {
        self.inner.removed.cancelled().await;
    }
}

pub(super) async fn run(inner: Arc<Inner>) {
    let mut metrics = inner.raft.server_metrics();
    let mut refused = inner.network.refused.subscribe();
    let me = inner.identity.member_id;
    let mut was_member = false;
    loop {
        let (effective, committed) = {
            let metrics = metrics.borrow_and_update();
            (metrics.membership_config.clone(), metrics.committed_membership_config.clone())
        };
        let in_effective = effective.nodes().any(|(id, _)| *id == me);
        let in_committed = committed.nodes().any(|(id, _)| *id == me);
        // A member that is still catching up reads of times before it was added.
        let left = was_member && !in_committed && !in_effective;
        was_member |= in_committed;
        // Ids are never given twice, so a later list of members without this one is final.
        let known = effective.log_id().as_ref().map_or(0, |id| id.index());
        let told = in_effective && *refused.borrow_and_update() > known;
        if left || told {
            return leave(&inner);
        }
        tokio::select! {
            biased;
            changed = metrics.changed() => if changed.is_err() { return },
            changed = refused.changed() => if changed.is_err() { return },
        }
    }
}

fn leave(inner: &Inner) {
    let identity = &inner.identity;
    tracing::error!(
        name = identity.name,
        member = format!("{:x}", identity.member_id),
        "this member has been removed from the cluster; it serves nothing any more"
    );
    let marker = inner.config.data_dir.join(MARKER);
    let noted = create_anew(&*inner.disk, &marker)
        .and_then(|_| inner.disk.sync_folder(&inner.config.data_dir));
    if let Err(error) = noted {
        tracing::warn!(path = %marker.display(), %error, "cannot note the removal");
    }
    inner.raft.runtime_config().elect(false);
    inner.removed.cancel();
}

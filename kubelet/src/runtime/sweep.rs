//! After every (re)connection: ends that nobody saw are recorded, and snapshots that a killed skiff made for
//! containers which never came to be are removed.

use std::collections::HashSet;
use std::sync::Weak;

use containerd_client::services::v1 as api;
use containerd_client::services::v1::snapshots as snap;
use containerd_client::types::v1::Status as TaskStatus;
use tonic::Status;

use super::connection::ignore_not_found;
use super::{Core, events, record};

/// On every container's snapshot.
pub(super) const LABEL_SNAPSHOT: &str = "skiff.io/snapshot";

pub(super) async fn run(core: Weak<Core>) {
    let stopped = match core.upgrade() {
        Some(core) => core.stopped_tasks().await.unwrap_or_default(),
        None => return,
    };
    for id in stopped {
        events::reap(&core, &id).await;
    }
    let Some(core) = core.upgrade() else { return };
    if let Err(status) = core.remove_orphans().await {
        tracing::debug!(why = status.message(), "orphaned snapshots stay until the next time");
    }
}

impl Core {
    async fn stopped_tasks(&self) -> Result<Vec<String>, Status> {
        let request = self.connection.request(api::ListTasksRequest::default());
        let tasks = self.connection.tasks().list(request).await?.into_inner().tasks;
        // The answer to a list names the container as `id`.
        let stopped = tasks.into_iter().filter(|task| task.status() == TaskStatus::Stopped);
        Ok(stopped.map(|task| task.id).collect())
    }

    /// Only those from before this process: another one may just be in the making.
    async fn remove_orphans(&self) -> Result<(), Status> {
        let request = snap::ListSnapshotsRequest {
            snapshotter: self.snapshotter.clone(),
            filters: vec![format!("labels.\"{LABEL_SNAPSHOT}\"==container")],
        };
        let request = self.connection.request(request);
        let mut stream = self.connection.snapshots().list(request).await?.into_inner();
        let mut snapshots = Vec::new();
        while let Some(piece) = stream.message().await? {
            snapshots.extend(piece.info);
        }
        let records = self.list_records(Vec::new()).await?;
        let used: HashSet<&str> =
            records.iter().map(|(container, _)| container.id.as_str()).collect();
        for snapshot in &snapshots {
            let old =
                record::time(snapshot.created_at.as_ref()).is_some_and(|at| at < self.connected);
            if !old || used.contains(snapshot.name.as_str()) {
                continue;
            }
            let request = snap::RemoveSnapshotRequest {
                snapshotter: self.snapshotter.clone(),
                key: snapshot.name.clone(),
            };
            let result = self.connection.snapshots().remove(self.connection.request(request)).await;
            ignore_not_found(result)?;
        }
        Ok(())
    }
}

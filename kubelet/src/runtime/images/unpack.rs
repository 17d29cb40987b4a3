//! Layers become snapshots: prepare, apply the layer's archive, commit under the chain id.

use std::collections::HashMap;
use std::sync::Arc;

use containerd_client::services::v1 as api;
use containerd_client::services::v1::snapshots as snap;
use containerd_client::types;
use tonic::Status;

use super::super::connection::{Connection, Lease, already_exists, ignore_not_found, is_not_found};
use super::super::keyed::Keyed;
use super::content::unique;
use super::{Resolved, content, manifest};

pub(super) struct Unpacker {
    connection: Connection,
    snapshotter: String,
    /// Two images with a layer in common unpack it once.
    layers: Keyed,
}

impl Unpacker {
    pub fn new(connection: Connection, snapshotter: &str) -> Unpacker {
        Unpacker { connection, snapshotter: snapshotter.to_owned(), layers: Keyed::default() }
    }

    /// Makes sure that the image's top snapshot is there, and that the collector knows it by the image.
    pub async fn unpack(&self, image: &Arc<Resolved>, lease: &Lease) -> Result<(), Status> {
        let Some(top) = image.chain_ids.last() else { return Ok(()) };
        if !self.has_snapshot(top).await? {
            let mut parent = String::new();
            for (at, chain_id) in image.chain_ids.iter().enumerate() {
                let _only = self.layers.lock(chain_id).await;
                if !self.has_snapshot(chain_id).await? {
                    self.unpack_layer(image, at, &parent, lease).await?;
                }
                parent.clone_from(chain_id);
            }
        }
        let label = format!("containerd.io/gc.ref.snapshot.{}", self.snapshotter);
        let labels = HashMap::from([(label, top.clone())]);
        content::set_labels(&self.connection, &image.config_digest, labels).await
    }

    async fn has_snapshot(&self, name: &str) -> Result<bool, Status> {
        let request = snap::StatSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: name.to_owned(),
        };
        match self.connection.snapshots().stat(self.connection.request(request)).await {
            Ok(_) => Ok(true),
            Err(status) if is_not_found(&status) => Ok(false),
            Err(status) => Err(status),
        }
    }

    async fn unpack_layer(
        &self,
        image: &Resolved,
        at: usize,
        parent: &str,
        lease: &Lease,
    ) -> Result<(), Status> {
        let chain_id = &image.chain_ids[at];
        let key = format!("{} {chain_id}", unique("extract"));
        let request = snap::PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.clone(),
            parent: parent.to_owned(),
            labels: HashMap::new(),
        };
        let prepared =
            self.connection.snapshots().prepare(self.connection.leased(lease, request)).await?;
        let mounts = prepared.into_inner().mounts;
        if let Err(status) = self.apply(image, at, mounts, lease).await {
            self.remove(&key).await;
            return Err(status);
        }
        let request = snap::CommitSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            name: chain_id.clone(),
            key: key.clone(),
            labels: HashMap::new(),
        };
        match self.connection.snapshots().commit(self.connection.leased(lease, request)).await {
            Err(status) if already_exists(&status) => {
                self.remove(&key).await;
                Ok(())
            }
            other => other.map(drop),
        }
    }

    async fn apply(
        &self,
        image: &Resolved,
        at: usize,
        mounts: Vec<types::Mount>,
        lease: &Lease,
    ) -> Result<(), Status> {
        let layer = &image.layers[at];
        let request = api::ApplyRequest { diff: Some(wire(layer)), mounts, ..Default::default() };
        let applied = self.connection.diff().apply(self.connection.leased(lease, request)).await?;
        let got = applied.into_inner().applied.map(|applied| applied.digest).unwrap_or_default();
        if got != image.diff_ids[at] {
            return Err(Status::data_loss(format!(
                "wrong diff id calculated on extraction {got:?}, the image's configuration says {:?}",
                image.diff_ids[at]
            )));
        }
        Ok(())
    }

    async fn remove(&self, key: &str) {
        let request = snap::RemoveSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.to_owned(),
        };
        let result = self.connection.snapshots().remove(self.connection.request(request)).await;
        if let Err(status) = ignore_not_found(result) {
            tracing::warn!(
                snapshot = key,
                why = status.message(),
                "half-made snapshot stays until collected"
            );
        }
    }
}

pub(super) fn wire(descriptor: &manifest::Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.clone(),
        size: descriptor.size,
        annotations: HashMap::new(),
    }
}

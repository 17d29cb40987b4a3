//! The node's heartbeat: one small merge patch of its Lease each interval.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::json;
use skiff_client::{Api, Patch, Target, WriteOptions};
use skiff_kit::backoff::Backoff;
use skiff_proto::{Status, Timestamp, resource};

use crate::config::Config;

pub const NAMESPACE: &str = "kube-node-lease";
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(7);

pub async fn renew_forever(api: Arc<dyn Api>, config: Config) {
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
    loop {
        let wait = match renew(&*api, &config).await {
            Ok(()) => {
                backoff.reset();
                config.lease_renew_interval
            }
            Err(status) => {
                tracing::warn!("node lease not renewed, trying again: {status}");
                backoff.next()
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn renew(api: &dyn Api, config: &Config) -> Result<(), Status> {
    let now = Timestamp::micros(SystemTime::now());
    // The duration too: it may have been configured anew since the Lease was made.
    let duration_seconds = config.lease_duration.as_secs();
    let patch = json!({"spec": {"renewTime": now, "leaseDurationSeconds": duration_seconds}});
    let target = Target::one(&resource::LEASES, NAMESPACE, &config.node_name);
    let patch = Patch::Merge(Bytes::from(patch.to_string()));
    match api.patch(&target, patch, &WriteOptions::default()).await {
        Ok(_) => Ok(()),
        Err(status) if status.is_not_found() => create(api, config, now).await,
        Err(status) => Err(status),
    }
}

async fn create(api: &dyn Api, config: &Config, now: Timestamp) -> Result<(), Status> {
    let node = api.get(&Target::one(&resource::NODES, "", &config.node_name)).await?;
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": config.node_name,
            "namespace": NAMESPACE,
            // The lease goes when the node does.
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Node", "name": config.node_name, "uid": node.uid(),
            }],
        },
        "spec": {
            "holderIdentity": config.node_name,
            "leaseDurationSeconds": config.lease_duration.as_secs(),
            "renewTime": now,
        },
    });
    let target = Target::all(&resource::LEASES, NAMESPACE);
    match api.create(&target, Bytes::from(lease.to_string()), &WriteOptions::default()).await {
        Err(status) if !status.is_already_exists() => Err(status),
        _ => Ok(()),
    }
}

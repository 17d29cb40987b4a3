//! Telling each Ingress served where it can be reached.

use std::net::IpAddr;

use bytes::Bytes;
use serde_json::json;
use skiff_client::{Api, Patch, Target, WriteOptions};
use skiff_proto::model::{Ingress, LoadBalancerIngress};
use skiff_proto::{ObjectKey, resource};

use crate::route::{Observed, served};

/// An Ingress whose addresses are to be written.
#[derive(Debug, PartialEq)]
pub struct Write {
    pub ingress: ObjectKey,
    pub addresses: Vec<LoadBalancerIngress>,
}

/// Those that do not say `addresses` yet. Without addresses nothing is written: somebody
/// else may know them.
pub fn plan(observed: &Observed, addresses: &[IpAddr]) -> Vec<Write> {
    let wanted: Vec<LoadBalancerIngress> = addresses
        .iter()
        .map(|ip| LoadBalancerIngress { ip: ip.to_string(), ..Default::default() })
        .collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let key = |i: &Ingress| ObjectKey::new(&i.metadata.namespace, &i.metadata.name);
    served(observed)
        .into_iter()
        .filter(|ingress| ingress.status.load_balancer.ingress != wanted)
        .map(|ingress| Write { ingress: key(ingress), addresses: wanted.clone() })
        .collect()
}

/// Whether it was written, or there is nothing to write to any more.
pub async fn write(api: &dyn Api, write: &Write) -> bool {
    let Write { ingress, addresses } = write;
    let patch = json!({"status": {"loadBalancer": {"ingress": addresses}}});
    let patch = Patch::Merge(Bytes::from(patch.to_string()));
    let target = Target::one(&resource::INGRESSES, &ingress.namespace, &ingress.name);
    let target = target.subresource("status");
    match api.patch(&target, patch, &WriteOptions::default()).await {
        Ok(_) => true,
        Err(status) if status.is_not_found() => true,
        Err(status) => {
            tracing::warn!(%ingress, "cannot write the Ingress' address: {status}");
            false
        }
    }
}

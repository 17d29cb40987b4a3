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

/// Best effort: the next change of the Ingress tries again.
pub async fn write(api: &dyn Api, write: &Write) {
    let Write { ingress, addresses } = write;
    let patch = json!({"status": {"loadBalancer": {"ingress": addresses}}});
    let patch = Patch::Merge(Bytes::from(patch.to_string()));
    let target = Target::one(&resource::INGRESSES, &ingress.namespace, &ingress.name);
    let target = target.subresource("status");
    if let Err(status) = api.patch(&target, patch, &WriteOptions::default()).await
        && !status.is_not_found()
    {
        tracing::warn!(%ingress, "cannot write the Ingress' address: {status}");
    }
}

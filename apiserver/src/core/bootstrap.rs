//! What every cluster has from its first second: the default namespaces, and the `kubernetes`
//! Service through which pods reach the API server.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use skiff_client::{Api, Target, WriteOptions};
use skiff_proto::resource::{ENDPOINT_SLICES, ENDPOINTS, NAMESPACES, SERVICES};
use skiff_proto::{Resource, Status};

use super::Core;
use crate::authn::User;

const DEFAULT_NAMESPACES: &[&str] = &["default", "kube-system", "kube-node-lease", "kube-public"];
const NAME: &str = "kubernetes";
/// What pods connect to, as upstream: the cluster IP's own port.
const SERVICE_PORT: u16 = 443;

pub async fn run(core: &Arc<Core>) -> Result<(), Status> {
    let api = core.as_user(User::server());
    for name in DEFAULT_NAMESPACES {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        ensure(&*api, &NAMESPACES, "", namespace).await?;
    }
    if let Some((address, port)) = core.config().advertise {
        let ip = core.addresses().first().to_string();
        ensure(&*api, &SERVICES, "default", service(&ip, port)).await?;
        put(&*api, &ENDPOINTS, endpoints(address, port)).await?;
        put(&*api, &ENDPOINT_SLICES, slice(address, port)).await?;
    }
    Ok(())
}

fn service(ip: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": NAME, "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "sessionAffinity": "None",
            "ports": [{"name": "https", "port": SERVICE_PORT, "protocol": "TCP", "targetPort": port}],
        },
    })
}

fn endpoints(address: IpAddr, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": NAME, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{
            "addresses": [{"ip": address.to_string()}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }],
    })
}

fn slice(address: IpAddr, port: u16) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": NAME, "labels": {"kubernetes.io/service-name": NAME}},
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    })
}

/// Makes it unless it is there.
async fn ensure(
    api: &dyn Api,
    resource: &Resource,
    namespace: &str,
    object: Value,
) -> Result<(), Status> {
    let target = Target::all(resource, namespace);
    let json = Bytes::from(object.to_string());
    match api.create(&target, json, &WriteOptions::default()).await {
        Ok(_) => Ok(()),
        Err(status) if status.is_already_exists() => Ok(()),
        Err(status) => Err(status),
    }
}

/// Makes it what it should be: this server may have moved.
async fn put(api: &dyn Api, resource: &Resource, object: Value) -> Result<(), Status> {
    let options = WriteOptions::default();
    let json = Bytes::from(object.to_string());
    let target = Target::one(resource, "default", NAME);
    match api.update(&target, json.clone(), &options).await {
        Err(status) if status.is_not_found() => {
            api.create(&Target::all(resource, "default"), json, &options).await?;
            Ok(())
        }
        other => other.map(drop),
    }
}

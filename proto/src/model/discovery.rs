//! EndpointSlice.

use super::EndpointPort;
use crate::meta::{ObjectMeta, ObjectReference};

model! {
    /// The Service is named by the label `kubernetes.io/service-name`.
    EndpointSlice {
        metadata: ObjectMeta,
        /// `IPv4`, `IPv6` or `FQDN`.
        address_type: String,
        endpoints: Vec<Endpoint>,
        ports: Vec<EndpointPort>,
    }
    Endpoint {
        addresses: Vec<String>,
        conditions: EndpointConditions,
        hostname: Option<String>,
        target_ref: Option<ObjectReference>,
        node_name: Option<String>,
        zone: Option<String>,
    }
    EndpointConditions { ready: Option<bool>, serving: Option<bool>, terminating: Option<bool> }
}

/// The label that names a slice's Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

//! Service and Endpoints.

use std::collections::BTreeMap;

use crate::int_or_string::IntOrString;
use crate::meta::{Condition, ObjectMeta, ObjectReference};

model! {
    Service { metadata: ObjectMeta, spec: ServiceSpec, status: ServiceStatus }
    ServiceSpec {
        /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
        #[serde(rename = "type")] type_: String,
        selector: BTreeMap<String, String>,
        ports: Vec<ServicePort>,
        #[serde(rename = "clusterIP")] cluster_ip: String,
        #[serde(rename = "clusterIPs")] cluster_ips: Vec<String>,
        #[serde(rename = "externalIPs")] external_ips: Vec<String>,
        session_affinity: String,
        session_affinity_config: Option<SessionAffinityConfig>,
        external_traffic_policy: String,
        internal_traffic_policy: String,
        health_check_node_port: u16,
        publish_not_ready_addresses: bool,
        ip_families: Vec<String>,
        ip_family_policy: String,
        external_name: String,
        #[serde(rename = "loadBalancerIP")] load_balancer_ip: String,
        load_balancer_source_ranges: Vec<String>,
        load_balancer_class: String,
    }
    ServicePort {
        name: String,
        protocol: String,
        port: u16,
        target_port: Option<IntOrString>,
        node_port: u16,
        app_protocol: String,
    }
    SessionAffinityConfig { #[serde(rename = "clientIP")] client_ip: Option<ClientIpConfig> }
    ClientIpConfig { timeout_seconds: Option<i32> }
    ServiceStatus { load_balancer: LoadBalancerStatus, conditions: Vec<Condition> }
    LoadBalancerStatus { ingress: Vec<LoadBalancerIngress> }
    LoadBalancerIngress { ip: String, hostname: String }

    Endpoints { metadata: ObjectMeta, subsets: Vec<EndpointSubset> }
    EndpointSubset {
        addresses: Vec<EndpointAddress>,
        not_ready_addresses: Vec<EndpointAddress>,
        ports: Vec<EndpointPort>,
    }
    EndpointAddress { ip: String, hostname: String, node_name: Option<String>, target_ref: Option<ObjectReference> }
    /// Of Endpoints and of EndpointSlices.
    EndpointPort { name: String, protocol: String, port: u16, app_protocol: Option<String> }
}

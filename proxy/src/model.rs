//! The small model that everything behind the API's edge works with.
//!
//! Source: Kubernetes v1 Service and discovery.k8s.io/v1 EndpointSlice, with the meanings of their reference
//! documentation. Wire types are read once, here, and go no further.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use skiff_proto::ObjectKey;
use skiff_proto::model::{EndpointSlice, SERVICE_NAME_LABEL, Service};

/// Upstream's default for `sessionAffinityConfig.clientIP.timeoutSeconds`: three hours.
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// Kubernetes' own default is TCP.
    fn read(text: &str) -> Option<Protocol> {
        match text {
            "TCP" | "" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// `internalTrafficPolicy` and `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Every endpoint.
    #[default]
    Cluster,
    /// Only endpoints on this node.
    Local,
}

impl Policy {
    fn read(text: &str) -> Policy {
        if text == "Local" { Policy::Local } else { Policy::Cluster }
    }
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    /// Zero: none.
    pub node_port: u16,
}

/// What the rules need to know of a Service. A headless or ExternalName Service has no ports here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceInfo {
    pub cluster_ips: Vec<IpAddr>,
    pub external_ips: Vec<IpAddr>,
    pub load_balancer_ips: Vec<IpAddr>,
    /// Who may use the load balancer's addresses; empty: everybody.
    pub source_ranges: Vec<String>,
    /// Seconds for which a client keeps its endpoint.
    pub affinity_seconds: Option<u32>,
    pub internal: Policy,
    pub external: Policy,
    pub ports: Vec<PortInfo>,
}

impl ServiceInfo {
    pub fn read(service: &Service) -> ServiceInfo {
        let spec = &service.spec;
        if spec.type_ == "ExternalName" || spec.cluster_ip == "None" {
            return ServiceInfo::default();
        }
        let mut cluster_ips = parse_all(&spec.cluster_ips);
        if cluster_ips.is_empty() {
            cluster_ips.extend(spec.cluster_ip.parse::<IpAddr>().ok());
        }
        let on_nodes = matches!(spec.type_.as_str(), "NodePort" | "LoadBalancer");
        let balanced = spec.type_ == "LoadBalancer";
        let ingress = service.status.load_balancer.ingress.iter().map(|ingress| ingress.ip.clone());
        let ingress: Vec<String> = ingress.filter(|_| balanced).collect();
        ServiceInfo {
            cluster_ips,
            external_ips: parse_all(&spec.external_ips),
            load_balancer_ips: parse_all(&ingress),
            source_ranges: spec
                .load_balancer_source_ranges
                .iter()
                .map(|r| r.trim().to_owned())
                .collect(),
            affinity_seconds: affinity(service),
            internal: Policy::read(&spec.internal_traffic_policy),
            external: Policy::read(&spec.external_traffic_policy),
            ports: read_ports(service, on_nodes),
        }
    }
}

fn read_ports(service: &Service, on_nodes: bool) -> Vec<PortInfo> {
    let read = |port: &skiff_proto::model::ServicePort| {
        Some(PortInfo {
            name: port.name.clone(),
            protocol: Protocol::read(&port.protocol)?,
            port: port.port,
            node_port: if on_nodes { port.node_port } else { 0 },
        })
    };
    service.spec.ports.iter().filter_map(read).collect()
}

fn affinity(service: &Service) -> Option<u32> {
    if service.spec.session_affinity != "ClientIP" {
        return None;
    }
    let config = service.spec.session_affinity_config.as_ref();
    let seconds = config
        .and_then(|config| config.client_ip.as_ref())
        .and_then(|client| client.timeout_seconds);
    Some(
        seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(DEFAULT_AFFINITY_SECONDS),
    )
}

fn parse_all(texts: &[String]) -> Vec<IpAddr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// One port that every endpoint of a slice serves; named target ports come resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    pub address: IpAddr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    /// Empty: unknown.
    pub node: String,
}

/// What the rules need to know of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceInfo {
    /// The Service it belongs to; none without the label.
    pub service: Option<ObjectKey>,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<SliceEndpoint>,
}

impl SliceInfo {
    pub fn read(slice: &EndpointSlice) -> SliceInfo {
        let namespace = &slice.metadata.namespace;
        let service = slice.metadata.labels.get(SERVICE_NAME_LABEL).filter(|name| !name.is_empty());
        let ports = slice.ports.iter().filter(|port| port.port != 0).filter_map(|port| {
            Some(SlicePort {
                name: port.name.clone(),
                protocol: Protocol::read(&port.protocol)?,
                port: port.port,
            })
        });
        let endpoints = slice.endpoints.iter().filter_map(|endpoint| {
            // All addresses of an endpoint reach the same pod; upstream uses the first only.
            let address = endpoint.addresses.first()?.parse().ok()?;
            let conditions = &endpoint.conditions;
            let ready = conditions.ready.unwrap_or(true);
            Some(SliceEndpoint {
                address,
                ready,
                serving: conditions.serving.unwrap_or(ready),
                terminating: conditions.terminating.unwrap_or(false),
                node: endpoint.node_name.clone().unwrap_or_default(),
            })
        });
        SliceInfo {
            service: service.map(|name| ObjectKey::new(namespace, name)),
            ports: ports.collect(),
            endpoints: endpoints.collect(),
        }
    }
}

/// An endpoint of one service port, as traffic is sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    pub target: SocketAddr,
    /// On this node for certain.
    pub local: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(value: serde_json::Value) -> ServiceInfo {
        ServiceInfo::read(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn headless_and_external_name_have_no_ports() {
        let ports = json!([{"port": 80}]);
        for spec in [
            json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports}),
            json!({"type": "ExternalName", "externalName": "a.example", "ports": ports}),
        ] {
            assert_eq!(service(json!({"spec": spec})), ServiceInfo::default());
        }
    }

    #[test]
    fn a_cluster_ip_service_has_no_node_port() {
        let info = service(json!({"spec": {"type": "ClusterIP", "clusterIP": "10.43.0.5",
            "ports": [{"name": "dns", "protocol": "UDP", "port": 53, "nodePort": 30053}]}}));
        assert_eq!(info.cluster_ips, ["10.43.0.5".parse::<IpAddr>().unwrap()]);
        assert_eq!((info.ports[0].node_port, info.ports[0].protocol), (0, Protocol::Udp));
    }

    #[test]
    fn affinity_has_upstreams_default() {
        let spec = |config: serde_json::Value| {
            service(json!({"spec": {"clusterIP": "10.43.0.5", "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": config, "ports": [{"port": 80}]}}))
        };
        assert_eq!(spec(json!(null)).affinity_seconds, Some(10_800));
        assert_eq!(spec(json!({"clientIP": {"timeoutSeconds": 60}})).affinity_seconds, Some(60));
    }

    #[test]
    fn conditions_default_as_documented() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "web-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}, {"name": "none"}],
            "endpoints": [
                {"addresses": ["10.42.0.5"], "conditions": {}, "nodeName": "n1"},
                {"addresses": ["10.42.0.6"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["not-an-address"]}
            ]
        }))
        .unwrap();
        let info = SliceInfo::read(&slice);
        assert_eq!(info.service, Some(ObjectKey::new("shop", "web")));
        assert_eq!(info.ports.len(), 1);
        assert!(
            info.endpoints[0].ready && info.endpoints[0].serving && !info.endpoints[0].terminating
        );
        assert!(
            !info.endpoints[1].ready && info.endpoints[1].serving && info.endpoints[1].terminating
        );
        assert_eq!(info.endpoints.len(), 2);
    }
}

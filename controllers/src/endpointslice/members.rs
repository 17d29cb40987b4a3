//! What Services make of pods: which ones count, by which ports, in which state. Pure, and
//! the same for EndpointSlices and Endpoints.

use skiff_client::cache::Entry;
use skiff_proto::model::{EndpointPort, Service, ServicePort};
use skiff_proto::{IntOrString, ObjectReference};

use crate::caches::pod::{Pod, PodView, protocol};
use crate::caches::{Caches, term};

/// Labels a Service's derived objects with "no cluster IP".
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

pub fn is_headless(service: &Service) -> bool {
    service.spec.cluster_ip == "None"
}

/// Only Services with a selector get endpoints from controllers.
pub fn selects_pods(service: &Service) -> bool {
    !service.spec.selector.is_empty() && service.spec.type_ != "ExternalName"
}

/// The pods a Service selects, found through its rarest label.
pub fn pods_of(caches: &Caches, service: &Entry<Service>) -> Vec<Pod> {
    let namespace = service.object.namespace();
    let selector = &service.value.spec.selector;
    let terms = selector.iter().map(|(k, v)| term::label(namespace, k, v));
    let Some(rarest) = terms.min_by_key(|term| caches.pods.count(term)) else {
        return Vec::new();
    };
    let mut pods = caches.pods.by(&rarest);
    pods.retain(|pod| selects(&service.value, pod));
    pods
}

pub fn selects(service: &Service, pod: &Pod) -> bool {
    let labels = pod.object.labels();
    let selector = &service.spec.selector;
    !selector.is_empty() && selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

/// Whether the pod can be an endpoint at all.
pub fn is_member(pod: &Pod) -> bool {
    !pod.value.ips.is_empty() && !pod.value.phase.is_terminal()
}

/// Whether a change of the pod can change any endpoint.
pub fn differs(old: &Pod, new: &Pod) -> bool {
    let seen = |view: &PodView| {
        let v = view;
        (
            v.ready,
            v.phase.is_terminal(),
            v.ips.clone(),
            v.node_name.clone(),
            v.hostname.clone(),
            v.subdomain.clone(),
        )
    };
    seen(&old.value) != seen(&new.value)
        || old.object.is_terminating() != new.object.is_terminating()
        || old.object.labels() != new.object.labels()
        || old.object.uid() != new.object.uid()
        || old.value.ports != new.value.ports
}

/// The Service's ports as this pod serves them; a named target that it lacks is left out.
pub fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let resolve = |port: &ServicePort| {
        Some(EndpointPort {
            name: port.name.clone(),
            protocol: protocol(&port.protocol).to_owned(),
            port: target_port(port, pod)?,
            app_protocol: Some(port.app_protocol.clone()).filter(|p| !p.is_empty()),
        })
    };
    let mut ports: Vec<EndpointPort> = service.spec.ports.iter().filter_map(resolve).collect();
    ports.sort_by(|a, b| port_key(a).cmp(&port_key(b)));
    ports
}

pub fn port_key(port: &EndpointPort) -> (&str, &str, u16) {
    (&port.name, &port.protocol, port.port)
}

fn target_port(port: &ServicePort, pod: &Pod) -> Option<u16> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => {
            let protocol = protocol(&port.protocol);
            let named = pod.value.ports.iter();
            named.filter(|p| p.name == *name && p.protocol == protocol).map(|p| p.port).next()
        }
    }
}

/// The pod's own host name, if the Service is the one that its subdomain names.
pub fn hostname(service: &Entry<Service>, pod: &Pod) -> Option<String> {
    let ours = pod.value.subdomain == service.object.name();
    (ours && !pod.value.hostname.is_empty()).then(|| pod.value.hostname.clone())
}

pub fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: "Pod".into(),
        namespace: pod.object.namespace().into(),
        name: pod.object.name().into(),
        uid: pod.object.uid().into(),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{entry, pod};
    use serde_json::json;

    #[test]
    fn target_ports_are_resolved_per_pod() {
        let service: Entry<Service> =
            entry(json!({"metadata": {"name": "web"}, "spec": {"ports": [
                {"name": "http", "port": 80, "targetPort": "web"},
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 5353},
                {"name": "plain", "port": 9000, "appProtocol": "h2c"}
            ]}}));
        let with = |name: &str| {
            pod(json!({"metadata": {"name": "p"}, "spec": {"containers": [
                {"ports": [{"name": name, "containerPort": 8080}]}]}}))
        };
        let text = |pod: &Pod| -> Vec<String> {
            ports(&service.value, pod)
                .iter()
                .map(|p| format!("{}:{}/{}", p.name, p.port, p.protocol))
                .collect()
        };
        assert_eq!(text(&with("web")), ["dns:5353/UDP", "http:8080/TCP", "plain:9000/TCP"]);
        assert_eq!(text(&with("other")), ["dns:5353/UDP", "plain:9000/TCP"]);
    }

    #[test]
    fn a_hostname_counts_only_for_its_subdomain() {
        let service = |name: &str| entry::<Service>(json!({"metadata": {"name": name}}));
        let pod = pod(
            json!({"metadata": {"name": "p"}, "spec": {"hostname": "db-0", "subdomain": "db"}}),
        );
        assert_eq!(hostname(&service("db"), &pod), Some("db-0".into()));
        assert_eq!(hostname(&service("web"), &pod), None);
    }
}

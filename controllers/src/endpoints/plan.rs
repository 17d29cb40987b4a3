//! The Endpoints of one Service from its pods. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};
use skiff_client::cache::Entry;
use skiff_proto::model::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};

use crate::caches::pod::Pod;
use crate::endpointslice::members;

/// Upstream's limit on the addresses of one object.
pub const MAX_ADDRESSES: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Create(Content),
    Update(Content),
    Delete,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    pub labels: BTreeMap<String, String>,
    pub truncated: bool,
    pub subsets: Vec<EndpointSubset>,
}

/// `service` is `None` when it is gone.
pub fn plan(
    service: Option<&Entry<Service>>,
    pods: &[Pod],
    observed: Option<&Entry<Endpoints>>,
) -> Option<Action> {
    let Some(service) = service else {
        // Only what was made here: users may keep Endpoints without a Service.
        let ours = observed.filter(|o| o.object.labels().contains_key(MANAGED_BY_LABEL));
        return ours.map(|_| Action::Delete);
    };
    let wanted = content(service, pods);
    let Some(observed) = observed else { return Some(Action::Create(wanted)) };
    let now = Content {
        labels: observed.object.labels().clone(),
        truncated: observed.value.metadata.annotations.contains_key(OVER_CAPACITY),
        subsets: observed.value.subsets.clone(),
    };
    (now != wanted).then_some(Action::Update(wanted))
}

fn content(service: &Entry<Service>, pods: &[Pod]) -> Content {
    let mut labels = service.object.labels().clone();
    labels.insert(MANAGED_BY_LABEL.into(), MANAGER.into());
    if members::is_headless(&service.value) {
        labels.insert(members::HEADLESS_LABEL.into(), String::new());
    } else {
        labels.remove(members::HEADLESS_LABEL);
    }
    let mut subsets = subsets(service, pods);
    let truncated = truncate(&mut subsets);
    Content { labels, truncated, subsets }
}

fn subsets(service: &Entry<Service>, pods: &[Pod]) -> Vec<EndpointSubset> {
    let publish_all = service.value.spec.publish_not_ready_addresses;
    let mut subsets: Vec<EndpointSubset> = Vec::new();
    let counts =
        |pod: &&Pod| members::is_member(pod) && (publish_all || !pod.object.is_terminating());
    for pod in pods.iter().filter(counts) {
        let Some(address) = address(service, pod) else { continue };
        let ports = members::ports(&service.value, pod);
        if ports.is_empty() && !service.value.spec.ports.is_empty() {
            continue;
        }
        let subset = match subsets.iter().position(|subset| subset.ports == ports) {
            Some(at) => &mut subsets[at],
            None => {
                subsets.push(EndpointSubset { ports, ..EndpointSubset::default() });
                let last = subsets.len() - 1;
                &mut subsets[last]
            }
        };
        if pod.value.ready || publish_all {
            subset.addresses.push(address);
        } else {
            subset.not_ready_addresses.push(address);
        }
    }
    for subset in &mut subsets {
        subset.addresses.sort_by_key(order);
        subset.not_ready_addresses.sort_by_key(order);
    }
    let key = |subset: &EndpointSubset| -> Vec<(String, String, u16)> {
        let own = |p: &EndpointPort| (p.name.clone(), p.protocol.clone(), p.port);
        subset.ports.iter().map(own).collect()
    };
    subsets.sort_by_key(key);
    subsets
}

fn order(address: &EndpointAddress) -> (Option<IpAddr>, String) {
    let uid = address.target_ref.as_ref().map(|r| r.uid.clone()).unwrap_or_default();
    (address.ip.parse().ok(), uid)
}

/// The address of the Service's first family.
fn address(service: &Entry<Service>, pod: &Pod) -> Option<EndpointAddress> {
    let v6 = service.value.spec.ip_families.first().is_some_and(|family| family == "IPv6");
    let of_family =
        |text: &&String| text.parse::<IpAddr>().is_ok_and(|ip: IpAddr| ip.is_ipv6() == v6);
    Some(EndpointAddress {
        ip: pod.value.ips.iter().find(of_family)?.clone(),
        hostname: members::hostname(service, pod).unwrap_or_default(),
        node_name: Some(pod.value.node_name.clone()).filter(|name| !name.is_empty()),
        target_ref: Some(members::reference(pod)),
    })
}

/// Keeps the first thousand addresses, ready ones first. True if any was dropped.
fn truncate(subsets: &mut Vec<EndpointSubset>) -> bool {
    let total: usize =
        subsets.iter().map(|s| s.addresses.len() + s.not_ready_addresses.len()).sum();
    if total <= MAX_ADDRESSES {
        return false;
    }
    let mut left = MAX_ADDRESSES;
    for subset in subsets.iter_mut() {
        subset.addresses.truncate(left);
        left -= subset.addresses.len();
    }
    for subset in subsets.iter_mut() {
        subset.not_ready_addresses.truncate(left);
        left -= subset.not_ready_addresses.len();
    }
    subsets.retain(|s| !s.addresses.is_empty() || !s.not_ready_addresses.is_empty());
    true
}

impl Content {
    pub fn new_object(&self, service: &Entry<Service>) -> Value {
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": service.object.name(), "namespace": service.object.namespace()},
        });
        self.write(&mut object);
        object
    }

    pub fn write(&self, object: &mut Value) {
        object["metadata"]["labels"] = json!(self.labels);
        if self.truncated {
            object["metadata"]["annotations"][OVER_CAPACITY] = "truncated".into();
        } else if let Some(annotations) = object.pointer_mut("/metadata/annotations") {
            annotations.as_object_mut().map(|map| map.remove(OVER_CAPACITY));
        }
        object["subsets"] = json!(self.subsets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{entry, pod};

    fn service(spec: Value) -> Entry<Service> {
        entry(json!({
            "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}}, "spec": spec
        }))
    }

    fn member(number: usize, ready: bool) -> Pod {
        pod(json!({
            "metadata": {"name": format!("p{number}"), "namespace": "shop", "uid": format!("u{number}")},
            "spec": {"nodeName": "n1"},
            "status": {"phase": "Running", "podIP": format!("10.42.{}.{}", number / 250, number % 250),
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}
        }))
    }

    fn made(action: Option<Action>) -> Content {
        match action {
            Some(Action::Create(content) | Action::Update(content)) => content,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ready_and_not_ready_stand_apart_in_order_of_addresses() {
        let service = service(json!({"ports": [{"name": "http", "port": 80}]}));
        let pods = [member(10, true), member(2, true), member(3, false)];
        let content = made(plan(Some(&service), &pods, None));
        let reference = |n: usize| json!({"kind": "Pod", "namespace": "shop", "name": format!("p{n}"), "uid": format!("u{n}")});
        assert_eq!(
            content.new_object(&service),
            json!({
                "apiVersion": "v1", "kind": "Endpoints",
                "metadata": {"name": "web", "namespace": "shop",
                    "labels": {"app": "web", "endpoints.kubernetes.io/managed-by": "endpoint-controller"}},
                "subsets": [{
                    "addresses": [
                        {"ip": "10.42.0.2", "nodeName": "n1", "targetRef": reference(2)},
                        {"ip": "10.42.0.10", "nodeName": "n1", "targetRef": reference(10)}],
                    "notReadyAddresses": [{"ip": "10.42.0.3", "nodeName": "n1", "targetRef": reference(3)}],
                    "ports": [{"name": "http", "protocol": "TCP", "port": 80}]
                }]
            })
        );
        let observed: Entry<Endpoints> = entry(content.new_object(&service));
        assert_eq!(plan(Some(&service), &pods, Some(&observed)), None);
        assert!(matches!(
            plan(Some(&service), &pods[..1], Some(&observed)),
            Some(Action::Update(_))
        ));
        assert_eq!(plan(None, &[], Some(&observed)), Some(Action::Delete));
    }

    #[test]
    fn a_users_own_endpoints_outlive_a_service() {
        let own: Entry<Endpoints> =
            entry(json!({"metadata": {"name": "web", "namespace": "shop"}}));
        assert_eq!(plan(None, &[], Some(&own)), None);
    }

    #[test]
    fn headless_without_ports_and_published_not_ready() {
        let service = service(json!({"clusterIP": "None", "publishNotReadyAddresses": true}));
        let content = made(plan(Some(&service), &[member(1, false)], None));
        assert_eq!(content.labels["service.kubernetes.io/headless"], "");
        assert_eq!(content.subsets[0].addresses.len(), 1);
        assert_eq!(content.subsets[0].ports, []);
    }

    #[test]
    fn more_than_a_thousand_are_cut_off_ready_first() {
        let service = service(json!({"ports": [{"port": 80}]}));
        let pods: Vec<Pod> = (0..1200).map(|n| member(n, n % 2 == 0)).collect();
        let content = made(plan(Some(&service), &pods, None));
        assert!(content.truncated);
        assert_eq!(content.subsets[0].addresses.len(), 600);
        assert_eq!(content.subsets[0].not_ready_addresses.len(), 400);
        let json = content.new_object(&service);
        assert_eq!(json["metadata"]["annotations"][OVER_CAPACITY], "truncated");
    }
}

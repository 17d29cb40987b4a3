//! Which slices to create, change and delete for one Service, with as few writes as can
//! be: a slice whose endpoints stay is not touched. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use serde_json::{Value, json};
use skiff_client::cache::Entry;
use skiff_proto::ObjectKey;
use skiff_proto::model::{
    Endpoint, EndpointConditions, EndpointPort, EndpointSlice, Node, SERVICE_NAME_LABEL, Service,
};

use super::members;
use crate::caches::pod::Pod;
use crate::ownership::controller_reference;

pub const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Upstream's `--max-endpoints-per-slice`.
pub const SLICE_ENDPOINTS: usize = 100;
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

pub struct Observed<'a> {
    pub service: &'a Entry<Service>,
    /// Those that the Service selects.
    pub pods: Vec<Pod>,
    /// All that carry the Service's name.
    pub slices: Vec<Entry<EndpointSlice>>,
    pub node: &'a dyn Fn(&str) -> Option<Entry<Node>>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Create(Box<Content>),
    Update(ObjectKey, Box<Content>),
    Delete(ObjectKey),
}

/// Everything of a slice that is ours to write.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Content {
    pub labels: BTreeMap<String, String>,
    pub address_type: &'static str,
    pub ports: Vec<EndpointPort>,
    pub endpoints: Vec<Endpoint>,
}

/// Endpoints that share ports, by the pod's uid; in the pods' order.
type Group = (Vec<EndpointPort>, Vec<Endpoint>);

pub fn plan(observed: Observed<'_>) -> Vec<Action> {
    let Observed { service, pods, slices, node } = observed;
    let ours = |slice: &Entry<EndpointSlice>| {
        slice.object.labels().get(MANAGED_BY_LABEL).is_some_and(|by| by == MANAGER)
            && !slice.object.is_terminating()
    };
    let slices: Vec<Entry<EndpointSlice>> = slices.into_iter().filter(ours).collect();
    let families = families(&service.value);
    let labels = labels(service);
    let mut actions: Vec<Action> = slices
        .iter()
        .filter(|slice| !families.contains(&&*slice.value.address_type))
        .map(|slice| Action::Delete(slice.object.key()))
        .collect();
    for family in families {
        let existing: Vec<&Entry<EndpointSlice>> =
            slices.iter().filter(|slice| slice.value.address_type == family).collect();
        let groups = groups(service, &pods, family, node);
        actions.extend(reconcile(existing, groups, family, &labels));
    }
    actions
}

fn families(service: &Service) -> Vec<&'static str> {
    let mut families: Vec<&'static str> = service
        .spec
        .ip_families
        .iter()
        .filter_map(|family| match family.as_str() {
            "IPv4" => Some("IPv4"),
            "IPv6" => Some("IPv6"),
            _ => None,
        })
        .collect();
    if families.is_empty() {
        families.push("IPv4");
    }
    families
}

fn labels(service: &Entry<Service>) -> BTreeMap<String, String> {
    let mut labels = service.object.labels().clone();
    labels.retain(|key, _| ![SERVICE_NAME_LABEL, MANAGED_BY_LABEL].contains(&key.as_str()));
    labels.insert(SERVICE_NAME_LABEL.into(), service.object.name().into());
    labels.insert(MANAGED_BY_LABEL.into(), MANAGER.into());
    if members::is_headless(&service.value) {
        labels.insert(members::HEADLESS_LABEL.into(), String::new());
    } else {
        labels.remove(members::HEADLESS_LABEL);
    }
    labels
}

fn groups(
    service: &Entry<Service>,
    pods: &[Pod],
    family: &str,
    node: &dyn Fn(&str) -> Option<Entry<Node>>,
) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for pod in pods.iter().filter(|pod| members::is_member(pod)) {
        let Some(endpoint) = endpoint(service, pod, family, node) else { continue };
        let ports = members::ports(&service.value, pod);
        match groups.iter_mut().find(|(known, _)| *known == ports) {
            Some((_, endpoints)) => endpoints.push(endpoint),
            None => groups.push((ports, vec![endpoint])),
        }
    }
    groups
}

fn endpoint(
    service: &Entry<Service>,
    pod: &Pod,
    family: &str,
    node: &dyn Fn(&str) -> Option<Entry<Node>>,
) -> Option<Endpoint> {
    let of_family = |text: &&String| match text.parse::<IpAddr>() {
        Ok(ip) => ip.is_ipv4() == (family == "IPv4"),
        Err(_) => false,
    };
    let address = pod.value.ips.iter().find(of_family)?;
    let serving = pod.value.ready;
    let terminating = pod.object.is_terminating();
    let ready = service.value.spec.publish_not_ready_addresses || (serving && !terminating);
    let node_name = Some(pod.value.node_name.clone()).filter(|name| !name.is_empty());
    let zone = node_name.as_deref().and_then(node);
    Some(Endpoint {
        addresses: vec![address.clone()],
        conditions: EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        },
        hostname: members::hostname(service, pod),
        target_ref: Some(members::reference(pod)),
        node_name,
        zone: zone.and_then(|node| node.object.labels().get(ZONE_LABEL).cloned()),
    })
}

fn uid(endpoint: &Endpoint) -> &str {
    endpoint.target_ref.as_ref().map_or("", |r| &r.uid)
}

/// A slice being worked on.
struct Draft<'a> {
    slice: &'a Entry<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

fn reconcile(
    existing: Vec<&Entry<EndpointSlice>>,
    mut groups: Vec<Group>,
    family: &'static str,
    labels: &BTreeMap<String, String>,
) -> Vec<Action> {
    if groups.is_empty() {
        // A slice without endpoints tells proxies that there is nothing, rather than
        // nothing known yet.
        groups.push((Vec::new(), Vec::new()));
    }
    let content = |ports: &[EndpointPort], endpoints: Vec<Endpoint>| {
        let (labels, ports) = (labels.clone(), ports.to_vec());
        Box::new(Content { labels, address_type: family, ports, endpoints })
    };
    let mut actions = Vec::new();
    let mut unused = existing;
    for (ports, endpoints) in groups {
        let same = |slice: &&Entry<EndpointSlice>| same_ports(&slice.value.ports, &ports);
        let (mine, others): (Vec<_>, Vec<_>) = unused.into_iter().partition(same);
        unused = others;
        let placeholder = endpoints.is_empty();
        let (drafts, rest) = place(mine, endpoints);
        let mut kept = 0;
        for draft in drafts {
            if draft.endpoints.is_empty() && !(placeholder && kept == 0) {
                actions.push(Action::Delete(draft.slice.object.key()));
                continue;
            }
            kept += 1;
            if draft.changed || draft.slice.object.labels() != labels {
                let content = content(&ports, draft.endpoints);
                actions.push(Action::Update(draft.slice.object.key(), content));
            }
        }
        for chunk in rest.chunks(SLICE_ENDPOINTS) {
            actions.push(Action::Create(content(&ports, chunk.to_vec())));
        }
        if placeholder && kept == 0 {
            actions.push(Action::Create(content(&ports, Vec::new())));
        }
    }
    actions.extend(unused.into_iter().map(|slice| Action::Delete(slice.object.key())));
    actions
}

fn same_ports(a: &[EndpointPort], b: &[EndpointPort]) -> bool {
    let mut a: Vec<&EndpointPort> = a.iter().collect();
    a.sort_by(|x, y| members::port_key(x).cmp(&members::port_key(y)));
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| *x == y)
}

/// Keeps endpoints in their slices, and puts new ones where a write is due anyway, then
/// where there is room; the rest needs slices of its own.
fn place<'a>(
    slices: Vec<&'a Entry<EndpointSlice>>,
    endpoints: Vec<Endpoint>,
) -> (Vec<Draft<'a>>, Vec<Endpoint>) {
    let order: Vec<String> = endpoints.iter().map(|e| uid(e).to_owned()).collect();
    let mut wanted: HashMap<String, Endpoint> =
        endpoints.into_iter().map(|e| (uid(&e).to_owned(), e)).collect();
    let mut drafts: Vec<Draft<'a>> = slices
        .into_iter()
        .map(|slice| {
            let old = &slice.value.endpoints;
            let kept: Vec<Endpoint> = old.iter().filter_map(|e| wanted.remove(uid(e))).collect();
            let changed = kept != *old;
            Draft { slice, endpoints: kept, changed }
        })
        .collect();
    let mut rest = order.iter().filter_map(|uid| wanted.remove(uid)).peekable();
    // The fullest first, so that slices fill up.
    drafts.sort_by_key(|draft| (!draft.changed, std::cmp::Reverse(draft.endpoints.len())));
    for draft in &mut drafts {
        while draft.endpoints.len() < SLICE_ENDPOINTS && rest.peek().is_some() {
            draft.endpoints.extend(rest.next());
            draft.changed = true;
        }
    }
    (drafts, rest.collect())
}

impl Content {
    /// A new slice of the Service.
    pub fn new_slice(&self, service: &Entry<Service>) -> Value {
        let mut slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "generateName": format!("{}-", service.object.name()),
                "namespace": service.object.namespace(),
                "ownerReferences": [controller_reference(&service.object)],
            },
        });
        self.write(&mut slice);
        slice
    }

    pub fn write(&self, slice: &mut Value) {
        slice["metadata"]["labels"] = json!(self.labels);
        slice["addressType"] = self.address_type.into();
        slice["ports"] = self
            .ports
            .iter()
            .map(|port| {
                let mut json = json!(port);
                // The name is there even when it is empty: it tells a port from all ports.
                json["name"] = port.name.clone().into();
                json
            })
            .collect();
        slice["endpoints"] = json!(self.endpoints);
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

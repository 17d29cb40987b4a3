//! The table of service ports and their endpoints: what every mode renders, and nothing of any mode.
//!
//! Which endpoints take traffic follows upstream (KEP-1669, service traffic policies): the ready ones; when none is
//! ready, those that still serve while they terminate. The same again among this node's own for `Local`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use skiff_proto::ObjectKey;

use crate::model::{Endpoint, Policy, PortInfo, Protocol, ServiceInfo, SliceInfo};
use crate::tracker::Changes;

/// All Services with their EndpointSlices, as of the last changes applied.
pub struct Table {
    node_name: String,
    services: BTreeMap<ObjectKey, Arc<ServiceInfo>>,
    slices: BTreeMap<ObjectKey, Arc<SliceInfo>>,
    /// Which slices a Service has.
    slices_of: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
}

/// One port of one Service, with the endpoints that take its traffic, in order and without doubles.
#[derive(Clone, Debug)]
pub struct ServicePort<'a> {
    pub key: &'a ObjectKey,
    pub service: &'a ServiceInfo,
    pub port: &'a PortInfo,
    /// For the policy Cluster.
    pub cluster: Vec<Endpoint>,
    /// For the policy Local.
    pub local: Vec<Endpoint>,
}

impl ServicePort<'_> {
    /// `shop/web:http`, as messages and comments name it.
    pub fn id(&self) -> String {
        if self.port.name.is_empty() {
            self.key.to_string()
        } else {
            format!("{}:{}", self.key, self.port.name)
        }
    }

    pub fn endpoints(&self, policy: Policy) -> &[Endpoint] {
        match policy {
            Policy::Cluster => &self.cluster,
            Policy::Local => &self.local,
        }
    }

    /// Addresses that clients outside the cluster use, with whether sources are restricted.
    pub fn external_addresses(&self) -> impl Iterator<Item = (IpAddr, bool)> + '_ {
        let restricted = !self.service.source_ranges.is_empty();
        let external = self.service.external_ips.iter().map(|address| (*address, false));
        external
            .chain(self.service.load_balancer_ips.iter().map(move |address| (*address, restricted)))
    }
}

impl Table {
    pub fn new(node_name: &str) -> Table {
        Table {
            node_name: node_name.to_owned(),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            slices_of: BTreeMap::new(),
        }
    }

    /// Applies changes, and says what connection tracking may have to forget because of them.
    pub fn apply(&mut self, changes: Changes) -> Retired {
        let mut retired = Retired::default();
        for (key, info) in changes.services {
            let old = match info {
                Some(new) => {
                    retired.udp_changed |= has_udp(&new);
                    self.services.insert(key, new)
                }
                None => self.services.remove(&key),
            };
            if let Some(old) = old {
                retired.add(&old);
            }
        }
        for (key, info) in changes.slices {
            retired.udp_changed |= info.as_deref().is_some_and(serves_udp);
            let old = self.replace_slice(key, info);
            retired.udp_changed |= old.is_some_and(|old| serves_udp(&old));
        }
        retired
    }

    fn replace_slice(
        &mut self,
        key: ObjectKey,
        new: Option<Arc<SliceInfo>>,
    ) -> Option<Arc<SliceInfo>> {
        let old = self.slices.remove(&key);
        if let Some(service) = old.as_ref().and_then(|old| old.service.as_ref())
            && let Some(of_service) = self.slices_of.get_mut(service)
        {
            of_service.remove(&key);
            if of_service.is_empty() {
                self.slices_of.remove(service);
            }
        }
        if let Some(new) = new {
            if let Some(service) = &new.service {
                self.slices_of.entry(service.clone()).or_default().insert(key.clone());
            }
            self.slices.insert(key, new);
        }
        old
    }

    /// Every port of every Service that has an address, sorted by name.
    pub fn ports(&self) -> impl Iterator<Item = ServicePort<'_>> {
        self.services.iter().flat_map(move |(key, service)| {
            service.ports.iter().map(move |port| self.service_port(key, service, port))
        })
    }

    fn service_port<'a>(
        &'a self,
        key: &'a ObjectKey,
        service: &'a ServiceInfo,
        port: &'a PortInfo,
    ) -> ServicePort<'a> {
        let mut candidates: BTreeMap<SocketAddr, Candidate> = BTreeMap::new();
        for slice in
            self.slices_of.get(key).into_iter().flatten().filter_map(|key| self.slices.get(key))
        {
            let ports = slice.ports.iter();
            let numbers = ports.filter(|p| p.name == port.name && p.protocol == port.protocol);
            for number in numbers.map(|found| found.port) {
                for endpoint in &slice.endpoints {
                    let candidate =
                        candidates.entry(SocketAddr::new(endpoint.address, number)).or_default();
                    // While a pod moves between slices it may be in two: ready in one is ready.
                    candidate.ready |= endpoint.ready;
                    candidate.draining |= endpoint.serving && endpoint.terminating;
                    candidate.local |=
                        !self.node_name.is_empty() && endpoint.node == self.node_name;
                }
            }
        }
        let all: Vec<(SocketAddr, Candidate)> = candidates.into_iter().collect();
        let local: Vec<(SocketAddr, Candidate)> =
            all.iter().copied().filter(|(_, c)| c.local).collect();
        ServicePort { key, service, port, cluster: usable(&all), local: usable(&local) }
    }

    /// Addresses of endpoints that may be on this node: those that are, and those nobody says where they are.
    pub fn hairpin_addresses(&self) -> BTreeSet<IpAddr> {
        let of_services = self.slices_of.iter().filter(|(service, _)| {
            self.services.get(service).is_some_and(|service| !service.ports.is_empty())
        });
        let slices =
            of_services.flat_map(|(_, slices)| slices).filter_map(|key| self.slices.get(key));
        let endpoints = slices.flat_map(|slice| &slice.endpoints);
        let here = endpoints.filter(|endpoint| {
            (endpoint.ready || endpoint.serving)
                && (endpoint.node.is_empty() || endpoint.node == self.node_name)
        });
        here.map(|endpoint| endpoint.address).collect()
    }
}

/// Where UDP services were before a change; flows to there may be stale.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retired {
    /// A UDP port or its endpoints changed: some may have been lost, or the first gained.
    pub udp_changed: bool,
    pub addresses: BTreeSet<SocketAddr>,
    pub node_ports: BTreeSet<u16>,
}

impl Retired {
    fn add(&mut self, old: &ServiceInfo) {
        let addresses =
            || old.cluster_ips.iter().chain(&old.external_ips).chain(&old.load_balancer_ips);
        for port in old.ports.iter().filter(|port| port.protocol == Protocol::Udp) {
            self.udp_changed = true;
            self.addresses.extend(addresses().map(|address| SocketAddr::new(*address, port.port)));
            self.node_ports.extend(Some(port.node_port).filter(|number| *number != 0));
        }
    }

    /// Takes over what an earlier change left to do.
    pub fn merge(&mut self, other: Retired) {
        self.udp_changed |= other.udp_changed;
        self.addresses.extend(other.addresses);
        self.node_ports.extend(other.node_ports);
    }
}

#[derive(Clone, Copy, Default)]
struct Candidate {
    ready: bool,
    draining: bool,
    local: bool,
}

fn usable(candidates: &[(SocketAddr, Candidate)]) -> Vec<Endpoint> {
    let pick = |keep: fn(&Candidate) -> bool| -> Vec<Endpoint> {
        let kept = candidates.iter().filter(|(_, candidate)| keep(candidate));
        kept.map(|(target, candidate)| Endpoint { target: *target, local: candidate.local })
            .collect()
    };
    let ready = pick(|candidate| candidate.ready);
    if ready.is_empty() { pick(|candidate| candidate.draining) } else { ready }
}

fn has_udp(service: &ServiceInfo) -> bool {
    service.ports.iter().any(|port| port.protocol == Protocol::Udp)
}

fn serves_udp(slice: &SliceInfo) -> bool {
    slice.ports.iter().any(|port| port.protocol == Protocol::Udp)
}

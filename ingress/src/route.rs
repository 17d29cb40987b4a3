//! From Ingresses, classes, Services and EndpointSlices to a route table. Pure: the same
//! objects give the same table.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use skiff_proto::ObjectKey;
use skiff_proto::model::{
    EndpointSlice, Ingress, IngressBackend, IngressClass, IngressServiceBackend, Service,
    ServiceBackendPort,
};

use crate::balancer::{Balancer, Endpoint};
use crate::matcher::{Matcher, PathType};

/// `spec.controller` of the classes that are served here.
pub const CONTROLLER: &str = "skiff.dev/ingress";
/// The class that is made at the first start.
pub const CLASS_NAME: &str = "skiff";
pub const DEFAULT_CLASS_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";
/// How classes were named before `ingressClassName`; still widely used.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// What the watches show.
#[derive(Debug, Default)]
pub struct Observed {
    pub ingresses: Vec<Arc<Ingress>>,
    pub classes: Vec<Arc<IngressClass>>,
    pub services: HashMap<ObjectKey, Arc<Service>>,
    /// By namespace and Service.
    pub slices: HashMap<ObjectKey, Vec<Arc<EndpointSlice>>>,
}

/// Endpoints by address, kept from table to table.
pub type Endpoints = HashMap<SocketAddr, Arc<Endpoint>>;

/// Where requests go; replaced as a whole.
#[derive(Debug, Default)]
pub struct RouteTable {
    matcher: Matcher<Arc<Target>>,
}

/// A port of a Service.
#[derive(Debug)]
pub struct Target {
    /// `namespace/name`.
    pub service: String,
    /// Or why there is nobody to ask, for the one who asks.
    pub balancer: Result<Balancer, String>,
}

impl RouteTable {
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Target>> {
        self.matcher.find(host, path)
    }

    /// `endpoints` are those of the table before; on return those of this one. `turn` is
    /// where balancing begins, so that frequent changes do not favour the first endpoint.
    pub fn build(observed: &Observed, endpoints: &mut Endpoints, turn: usize) -> Self {
        let mut builder = Builder {
            observed,
            known: std::mem::take(endpoints),
            used: HashMap::new(),
            targets: HashMap::new(),
            turn,
        };
        let mut table = Self::default();
        for ingress in served(observed) {
            table.add(ingress, &mut builder);
        }
        *endpoints = builder.used;
        table
    }

    fn add(&mut self, ingress: &Ingress, builder: &mut Builder<'_>) {
        let namespace = &ingress.metadata.namespace;
        let mut target = |backend: &IngressBackend| builder.target(namespace, backend);
        let default = ingress.spec.default_backend.as_ref().map(&mut target);
        for rule in &ingress.spec.rules {
            for path in rule.http.iter().flat_map(|http| &http.paths) {
                let path_type =
                    if path.path_type == "Exact" { PathType::Exact } else { PathType::Prefix };
                self.matcher.add(&rule.host, path_type, &path.path, target(&path.backend));
            }
            if let Some(default) = &default {
                self.matcher.add_fallback(&rule.host, default.clone());
            }
        }
        if let Some(default) = default {
            self.matcher.add_fallback("", default);
        }
    }
}

/// The Ingresses of our classes, oldest first: where two claim the same path, the first
/// keeps it.
pub fn served(observed: &Observed) -> Vec<&Arc<Ingress>> {
    let ours = |class: &&Arc<IngressClass>| class.spec.controller == CONTROLLER;
    let classes: Vec<&Arc<IngressClass>> = observed.classes.iter().filter(ours).collect();
    let mut served: Vec<&Arc<Ingress>> =
        observed.ingresses.iter().filter(|ingress| is_served(ingress, &classes)).collect();
    served.sort_by_key(|ingress| {
        let meta = &ingress.metadata;
        (meta.creation_timestamp, meta.namespace.clone(), meta.name.clone())
    });
    served
}

fn is_served(ingress: &Ingress, ours: &[&Arc<IngressClass>]) -> bool {
    let annotation = ingress.metadata.annotations.get(CLASS_ANNOTATION);
    match (&ingress.spec.ingress_class_name, annotation) {
        (Some(name), _) => ours.iter().any(|class| class.metadata.name == *name),
        (None, Some(name)) => {
            name == CLASS_NAME || ours.iter().any(|class| class.metadata.name == *name)
        }
        (None, None) => ours.iter().any(|class| {
            let default = class.metadata.annotations.get(DEFAULT_CLASS_ANNOTATION);
            default.is_some_and(|value| value == "true")
        }),
    }
}

struct Builder<'a> {
    observed: &'a Observed,
    known: Endpoints,
    used: Endpoints,
    /// By namespace, Service and port as text: what several paths lead to is shared.
    targets: HashMap<(ObjectKey, String), Arc<Target>>,
    turn: usize,
}

impl Builder<'_> {
    fn target(&mut self, namespace: &str, backend: &IngressBackend) -> Arc<Target> {
        let Some(IngressServiceBackend { name, port }) = &backend.service else {
            let why = "the Ingress names a backend that is no Service, which is not served";
            return Arc::new(Target { service: String::new(), balancer: Err(why.into()) });
        };
        let key = ObjectKey::new(namespace, name);
        let port_text =
            if port.name.is_empty() { port.number.to_string() } else { port.name.clone() };
        if let Some(target) = self.targets.get(&(key.clone(), port_text.clone())) {
            return target.clone();
        }
        let balancer = self.balancer(&key, port, &port_text);
        let target = Arc::new(Target { service: key.to_string(), balancer });
        self.targets.insert((key, port_text), target.clone());
        target
    }

    fn balancer(
        &mut self,
        key: &ObjectKey,
        port: &ServiceBackendPort,
        port_text: &str,
    ) -> Result<Balancer, String> {
        let Some(service) = self.observed.services.get(key) else {
            return Err(format!("Service {key} does not exist"));
        };
        if service.spec.type_ == "ExternalName" {
            return Err(format!("Service {key} is of type ExternalName, which is not served"));
        }
        let wanted = service.spec.ports.iter().find(|p| {
            if port.name.is_empty() { p.port == port.number } else { p.name == port.name }
        });
        let Some(wanted) = wanted else {
            return Err(format!("Service {key} has no port {port_text}"));
        };
        let slices = self.observed.slices.get(key).map_or(&[][..], Vec::as_slice);
        let mut addrs = addresses(slices, &wanted.name);
        addrs.sort();
        addrs.dedup();
        let endpoints = addrs.into_iter().map(|addr| self.endpoint(addr)).collect();
        Balancer::new(endpoints, self.turn)
            .ok_or_else(|| format!("Service {key} has no ready endpoints"))
    }

    fn endpoint(&mut self, addr: SocketAddr) -> Arc<Endpoint> {
        let known = &mut self.known;
        let fresh = || known.remove(&addr).unwrap_or_else(|| Endpoint::new(addr));
        self.used.entry(addr).or_insert_with(fresh).clone()
    }
}

/// Ready endpoints; if there are none, those that are ending but still serve, so that a
/// rollout of a single replica does not fail requests.
fn addresses(slices: &[Arc<EndpointSlice>], port_name: &str) -> Vec<SocketAddr> {
    let (mut ready, mut serving) = (Vec::new(), Vec::new());
    for slice in slices {
        let tcp = |protocol: &str| protocol.is_empty() || protocol == "TCP";
        let Some(port) = slice.ports.iter().find(|p| p.name == port_name && tcp(&p.protocol))
        else {
            continue;
        };
        for endpoint in &slice.endpoints {
            // All addresses of an endpoint are one pod's; consumers use the first.
            let ip = endpoint.addresses.first().and_then(|a| a.parse::<IpAddr>().ok());
            let Some(addr) = ip.map(|ip| SocketAddr::new(ip, port.port)) else { continue };
            let conditions = &endpoint.conditions;
            if conditions.ready.unwrap_or(true) {
                ready.push(addr);
            } else if conditions.serving.unwrap_or(false) && conditions.terminating == Some(true) {
                serving.push(addr);
            }
        }
    }
    if ready.is_empty() { serving } else { ready }
}

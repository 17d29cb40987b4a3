//! Cluster IPs and node ports. Each is a key of its own in the store, written and removed in
//! the same transaction as its Service: two servers can never give one address twice, a crash
//! can leave none behind, and there is nothing to rebuild after a restart.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use bytes::Bytes;
use rand::Rng;
use serde_json::{Value, json};
use skiff_proto::Status;
use skiff_proto::resource::SERVICES;
use skiff_store::kv::{KeyRange, KeyValue, RangeRequest};

use super::config::{Config, parse_cidr};
use super::{Core, meta};
use crate::cache::hub::prefix_end;
use crate::registry::{FieldError, Kind};
use crate::storage::{Beside, Guard, error, key};

const IPS: &str = "serviceips";
const PORTS: &str = "servicenodeports";

/// The ranges that addresses come from.
#[derive(Debug, Clone)]
pub struct Addresses {
    cidr: String,
    /// The network's own address.
    base: u32,
    /// Usable are 1 to `size`.
    size: u32,
    ports: (u16, u16),
}

/// What a Service takes and gives back together with its own write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    taken: Vec<Claim>,
    released: Vec<Bytes>,
    owner: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Claim {
    key: Bytes,
    /// The user asked for exactly this: what to say when somebody has it.
    requested: Option<FieldError>,
}

/// What is known to be taken; free choice avoids it.
pub type Taken = HashSet<Bytes>;

/// Why nothing can be given.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    Invalid(FieldError),
    /// `serviceIP` or `nodePort`.
    Full(&'static str),
}

impl Refusal {
    pub fn status(self, kind: &Kind, name: &str) -> Status {
        match self {
            Self::Invalid(error) => kind.invalid(name, &[error]),
            Self::Full(what) => {
                Status::internal(format!("failed to allocate a {what}: range is full"))
            }
        }
    }
}

impl Addresses {
    pub fn new(config: &Config) -> Result<Self, String> {
        let (network, length) = parse_cidr(&config.service_cidr)?;
        // Without the network's and the broadcast address.
        let size = (1u32 << (32 - u32::from(length))) - 2;
        let cidr = format!("{network}/{length}");
        Ok(Self { cidr, base: u32::from(network), size, ports: config.node_port_range })
    }

    /// The first address: that of `default/kubernetes`.
    pub fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    /// Completes a Service's addresses; `old` is what it had.
    pub fn assign(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        taken: &Taken,
    ) -> Result<Claims, Refusal> {
        let owner = key::path(meta::text(service, "namespace"), meta::text(service, "name"));
        let mut claims = Claims { owner, ..Claims::default() };
        let held = old.map(held).unwrap_or_default();
        self.assign_ip(service, old, taken, &held, &mut claims)?;
        self.assign_ports(service, old, taken, &held, &mut claims)?;
        let now = self::held(service);
        claims.released = held.into_iter().filter(|key| !now.contains(key)).collect();
        Ok(claims)
    }

    fn assign_ip(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        taken: &Taken,
        held: &[Bytes],
        claims: &mut Claims,
    ) -> Result<(), Refusal> {
        if type_of(service) == "ExternalName" {
            if let Some(spec) = service["spec"].as_object_mut() {
                for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                    spec.remove(field);
                }
            }
            return Ok(());
        }
        let before = old.filter(|o| type_of(o) != "ExternalName").map_or("", cluster_ip);
        let mut ip = cluster_ip(service).to_owned();
        if ip.is_empty() {
            ip = before.to_owned();
        }
        let requested = !ip.is_empty();
        if ip.is_empty() {
            ip = self.free_ip(taken).ok_or(Refusal::Full("serviceIP"))?.to_string();
        }
        if ip != "None" {
            let key = key::claim(IPS, &ip);
            if !held.contains(&key) {
                if requested && !self.contains(&ip) {
                    return Err(Refusal::Invalid(self.ip_error(&ip, &self.outside(&ip))));
                }
                let why = "provided IP is already allocated";
                let requested = requested.then(|| self.ip_error(&ip, why));
                claims.taken.push(Claim { key, requested });
            }
        }
        let spec = &mut service["spec"];
        spec["clusterIP"] = json!(ip);
        spec["clusterIPs"] = json!([ip]);
        if spec.get("ipFamilies").is_none_or(Value::is_null) {
            spec["ipFamilies"] = json!(["IPv4"]);
        }
        if spec.get("ipFamilyPolicy").is_none_or(Value::is_null) {
            spec["ipFamilyPolicy"] = json!("SingleStack");
        }
        Ok(())
    }

    fn assign_ports(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        taken: &Taken,
        held: &[Bytes],
        claims: &mut Claims,
    ) -> Result<(), Refusal> {
        let wants = wants_node_ports(service);
        let before = old.map(node_ports).unwrap_or_default();
        let Some(ports) = service.pointer_mut("/spec/ports").and_then(Value::as_array_mut) else {
            return Ok(());
        };
        // Those that are given come first, so that a free choice cannot take one of them.
        for (n, port) in ports.iter_mut().enumerate() {
            if !wants {
                // A Service that stops being a NodePort gives its ports back.
                if old.is_some_and(wants_node_ports)
                    && let Some(port) = port.as_object_mut()
                {
                    port.remove("nodePort");
                }
                continue;
            }
            let same =
                |p: &(String, i64, i64)| p.0 == protocol(port) && p.1 == number(port, "port");
            if number(port, "nodePort") == 0
                && let Some((.., node_port)) = before.iter().find(|p| same(p))
            {
                port["nodePort"] = json!(node_port);
            }
            let given = number(port, "nodePort");
            if given != 0 {
                self.request_port(n, given, held, claims)?;
            }
        }
        for port in ports.iter_mut().filter(|p| wants && number(p, "nodePort") == 0) {
            let free = self.free_port(taken, claims).ok_or(Refusal::Full("nodePort"))?;
            claims.taken.push(Claim { key: key::claim(PORTS, &free.to_string()), requested: None });
            port["nodePort"] = json!(free);
        }
        Ok(())
    }

    fn request_port(
        &self,
        index: usize,
        port: i64,
        held: &[Bytes],
        claims: &mut Claims,
    ) -> Result<(), Refusal> {
        let error = |why: String| FieldError {
            field: format!("spec.ports[{index}].nodePort"),
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {port}: {why}"),
        };
        let (first, last) = self.ports;
        if !(i64::from(first)..=i64::from(last)).contains(&port) {
            return Err(Refusal::Invalid(error(format!(
                "provided port is not in the valid range. The range of valid ports is {first}-{last}"
            ))));
        }
        let key = key::claim(PORTS, &port.to_string());
        // One number may serve two protocols of one Service.
        if !held.contains(&key) && !claims.taken.iter().any(|c| c.key == key) {
            let requested = Some(error("provided port is already allocated".into()));
            claims.taken.push(Claim { key, requested });
        }
        Ok(())
    }

    /// As upstream, the lower part of the range is left to those who ask for an address.
    fn free_ip(&self, taken: &Taken) -> Option<Ipv4Addr> {
        let low = (self.size / 16).clamp(16.min(self.size / 2), 256);
        let at = |n: u32| Ipv4Addr::from(self.base + n);
        let free = |n: &u32| !taken.contains(&key::claim(IPS, &at(*n).to_string()));
        choose(low + 1, self.size, free).or_else(|| choose(1, low, free)).map(at)
    }

    fn free_port(&self, taken: &Taken, claims: &Claims) -> Option<u16> {
        let free = |n: &u32| {
            let key = key::claim(PORTS, &n.to_string());
            !taken.contains(&key) && !claims.taken.iter().any(|c| c.key == key)
        };
        let (first, last) = self.ports;
        choose(first.into(), last.into(), free).and_then(|n| u16::try_from(n).ok())
    }

    fn contains(&self, ip: &str) -> bool {
        let ip: Option<Ipv4Addr> = ip.parse().ok();
        ip.is_some_and(|ip| (1..=self.size).contains(&u32::from(ip).wrapping_sub(self.base)))
    }

    fn outside(&self, ip: &str) -> String {
        format!(
            "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}",
            self.cidr
        )
    }

    fn ip_error(&self, ip: &str, why: &str) -> FieldError {
        FieldError {
            field: "spec.clusterIPs".into(),
            reason: "FieldValueInvalid",
            message: format!(
                "Invalid value: []string{{{ip:?}}}: failed to allocate IP {ip}: {why}"
            ),
        }
    }
}

/// A random free number of `first..=last`, or the next one behind it.
fn choose(first: u32, last: u32, free: impl Fn(&u32) -> bool) -> Option<u32> {
    if first > last {
        return None;
    }
    let start = rand::rng().random_range(first..=last);
    (start..=last).chain(first..start).find(free)
}

impl Claims {
    /// Everything a Service holds goes back with it.
    pub fn release(kind: &Kind, object: &Value) -> Self {
        let released = if is_service(kind) { held(object) } else { Vec::new() };
        Self { released, ..Self::default() }
    }

    pub fn guards(&self) -> impl Iterator<Item = Guard> {
        self.taken.iter().map(|claim| Guard { key: claim.key.clone(), revision: 0 })
    }

    pub fn beside(&self) -> Vec<Beside> {
        let owner = Bytes::from(self.owner.clone());
        let taken = self.taken.iter().map(|c| Beside::Put(c.key.clone(), owner.clone()));
        taken.chain(self.released.iter().cloned().map(Beside::Delete)).collect()
    }

    /// The write did not happen: `Invalid` if that is because somebody has what the user asked for.
    pub fn lost(&self, kind: &Kind, name: &str, found: &[Option<KeyValue>]) -> Result<(), Status> {
        let errors: Vec<FieldError> = self
            .taken
            .iter()
            .zip(found)
            .filter(|(_, found)| found.is_some())
            .filter_map(|(claim, _)| claim.requested.clone())
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(kind.invalid(name, &errors)) }
    }
}

impl Core {
    pub(super) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// All addresses that are taken.
    pub(super) async fn taken(&self) -> Result<Taken, Status> {
        let prefix = key::claim("", "").slice(..);
        // `ranges//` without the empty range's slash: both ranges lie below it.
        let prefix = prefix.slice(..prefix.len() - 1);
        let mut request = RangeRequest::new(KeyRange::Between(prefix.clone(), prefix_end(&prefix)));
        request.keys_only = true;
        let answer = self.kv.range(request).await.map_err(error::status)?;
        Ok(answer.kvs.into_iter().map(|kv| kv.key).collect())
    }
}

pub fn is_service(kind: &Kind) -> bool {
    kind.resource.plural == SERVICES.plural && kind.resource.group.is_empty()
}

/// Clears what only the old type could have, where the client left it as it was: so a change of
/// the type alone is enough. Upstream: `dropTypeDependentFields`.
pub fn drop_type_dependent(new: &mut Value, old: &Value) {
    let external = |service: &Value| matches!(type_of(service), "NodePort" | "LoadBalancer");
    let balanced = |service: &Value| type_of(service) == "LoadBalancer";
    let mut dropped: Vec<&str> = Vec::new();
    if external(old) && !external(new) {
        dropped.push("externalTrafficPolicy");
    }
    if balanced(old) && !balanced(new) {
        dropped.extend([
            "healthCheckNodePort",
            "allocateLoadBalancerNodePorts",
            "loadBalancerClass",
        ]);
    }
    let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for field in dropped {
        if spec.get(field) == old.pointer("/spec").and_then(|spec| spec.get(field)) {
            spec.remove(field);
        }
    }
}

/// The keys a Service holds.
fn held(service: &Value) -> Vec<Bytes> {
    let ip = cluster_ip(service);
    let ip = (!ip.is_empty() && ip != "None").then(|| key::claim(IPS, ip));
    let ports =
        node_ports(service).into_iter().map(|(.., port)| key::claim(PORTS, &port.to_string()));
    let mut keys: Vec<Bytes> = ip.into_iter().chain(ports).collect();
    keys.sort();
    keys.dedup();
    keys
}

/// Protocol, port and node port of those that have one.
fn node_ports(service: &Value) -> Vec<(String, i64, i64)> {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let ports = ports.map(Vec::as_slice).unwrap_or_default().iter();
    ports
        .map(|p| (protocol(p).to_owned(), number(p, "port"), number(p, "nodePort")))
        .filter(|(.., node_port)| *node_port != 0)
        .collect()
}

fn type_of(service: &Value) -> &str {
    service.pointer("/spec/type").and_then(Value::as_str).unwrap_or("ClusterIP")
}

fn cluster_ip(service: &Value) -> &str {
    service.pointer("/spec/clusterIP").and_then(Value::as_str).unwrap_or("")
}

fn protocol(port: &Value) -> &str {
    port.get("protocol").and_then(Value::as_str).unwrap_or("TCP")
}

fn number(port: &Value, key: &str) -> i64 {
    port.get(key).and_then(Value::as_i64).unwrap_or(0)
}

fn wants_node_ports(service: &Value) -> bool {
    match type_of(service) {
        "NodePort" => true,
        "LoadBalancer" => {
            service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        Addresses::new(&Config::default()).expect("a range")
    }

    fn keys(claims: &Claims) -> Vec<String> {
        claims.taken.iter().map(|c| String::from_utf8_lossy(&c.key).into_owned()).collect()
    }

    #[test]
    fn completes_and_claims() {
        let mut service = json!({"metadata": {"namespace": "d", "name": "s"}, "spec": {
            "type": "NodePort", "clusterIP": "10.43.0.10",
            "ports": [{"port": 53, "protocol": "UDP", "nodePort": 30053},
                      {"port": 53, "protocol": "TCP", "nodePort": 30053}, {"port": 80}]}});
        let claims = addresses().assign(&mut service, None, &Taken::new()).expect("assigns");
        let free = number(&service["spec"]["ports"][2], "nodePort");
        assert!((30000..=32767).contains(&free));
        assert_eq!(
            keys(&claims),
            [
                "/registry/ranges/serviceips/10.43.0.10".to_owned(),
                "/registry/ranges/servicenodeports/30053".to_owned(),
                format!("/registry/ranges/servicenodeports/{free}"),
            ]
        );
        assert_eq!(service["spec"]["clusterIPs"], json!(["10.43.0.10"]));
        assert_eq!(service["spec"]["ipFamilies"], json!(["IPv4"]));
    }

    #[test]
    fn an_update_keeps_what_it_does_not_name_and_gives_back_the_rest() {
        let old = json!({"metadata": {"namespace": "d", "name": "s"}, "spec": {
            "type": "NodePort", "clusterIP": "10.43.0.10", "clusterIPs": ["10.43.0.10"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080},
                      {"port": 81, "protocol": "TCP", "nodePort": 30081}]}});
        let mut new = json!({"metadata": {"namespace": "d", "name": "s"}, "spec": {
            "type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}});
        let claims = addresses().assign(&mut new, Some(&old), &Taken::new()).expect("assigns");
        assert_eq!(new["spec"]["clusterIP"], "10.43.0.10");
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30080);
        assert_eq!(keys(&claims), Vec::<String>::new());
        assert_eq!(claims.released, [key::claim(PORTS, "30081")]);
    }

    #[test]
    fn refuses_in_upstreams_words() {
        let mut service = json!({"spec": {"clusterIP": "10.9.0.1"}});
        let Err(Refusal::Invalid(error)) = addresses().assign(&mut service, None, &Taken::new())
        else {
            panic!("must be refused");
        };
        assert_eq!(
            error.message,
            r#"Invalid value: []string{"10.9.0.1"}: failed to allocate IP 10.9.0.1: the provided IP (10.9.0.1) is not in the valid range. The range of valid IPs is 10.43.0.0/16"#
        );
        let mut service = json!({"spec": {"type": "NodePort", "ports": [{"nodePort": 80}]}});
        let Err(Refusal::Invalid(error)) = addresses().assign(&mut service, None, &Taken::new())
        else {
            panic!("must be refused");
        };
        assert_eq!(
            error.message,
            "Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"
        );
    }

    #[test]
    fn a_change_of_the_type_alone_is_enough() {
        let old = json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Cluster",
                                  "loadBalancerClass": "a", "sessionAffinity": "None"}});
        let mut new = old.clone();
        new["spec"]["type"] = json!("ClusterIP");
        new["spec"]["loadBalancerClass"] = json!("b");
        drop_type_dependent(&mut new, &old);
        // What the client changed itself stays, for validation to refuse.
        assert_eq!(
            new["spec"],
            json!({"type": "ClusterIP", "loadBalancerClass": "b",
                                       "sessionAffinity": "None"})
        );
    }

    #[test]
    fn a_full_range_says_so() {
        let config = Config { node_port_range: (30000, 30000), ..Config::default() };
        let addresses = Addresses::new(&config).expect("a range");
        let taken = Taken::from([key::claim(PORTS, "30000")]);
        let mut service = json!({"spec": {"type": "NodePort", "ports": [{"port": 1}]}});
        assert_eq!(addresses.assign(&mut service, None, &taken), Err(Refusal::Full("nodePort")));
    }

    #[test]
    fn headless_and_external_take_nothing() {
        for spec in [json!({"clusterIP": "None"}), json!({"type": "ExternalName"})] {
            let mut service = json!({"spec": spec});
            let claims = addresses().assign(&mut service, None, &Taken::new()).expect("assigns");
            assert_eq!(keys(&claims), Vec::<String>::new());
        }
    }
}

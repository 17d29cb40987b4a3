//! The table as iptables chains. Pure: the same table gives the same text.
//!
//! ```text
//! nat   PREROUTING, OUTPUT -> SKIFF-SERVICES
//!         not from the cluster: mark
//!         cluster IP and port          -> SKIFF-SVC-x   one DNAT rule an endpoint
//!         external and balancer IPs    -> SKIFF-EXTERNAL   mark -> SKIFF-SVC-x
//!         an address of the node       -> SKIFF-NODEPORTS  mark -> SKIFF-SVC-x
//!         nothing of ours: unmark
//!       POSTROUTING -> SKIFF-POSTROUTING
//!         DNAT back to the sender      -> SKIFF-HAIRPIN   masquerade
//!         marked: unmark, masquerade
//! filter INPUT, FORWARD, OUTPUT, new connections -> SKIFF-REJECT   services that nobody serves
//!        INPUT -> SKIFF-FIREWALL    nobody on the wire talks to 127.0.0.1
//!        FORWARD -> SKIFF-FORWARD   what is ours passes a FORWARD policy of DROP
//! ```
//!
//! What costs in iptables is chains, and rules per endpoint. kube-proxy gives each endpoint a chain and three
//! rules; here an endpoint is one rule:
//! - The mark for masquerade depends on the source alone, so it is set once, before the service is looked up, and
//!   taken back at the end of SKIFF-SERVICES when no DNAT has ended the walk.
//! - A connection that comes back to its sender is seen after DNAT by its equal addresses. Only a pod of this node
//!   can be such a sender: one rule for each endpoint address on this node, not for each endpoint of the cluster.
//! - With session affinity the two rules (known client; new client) both remember and DNAT.
//! - A service's chain is there even when it has no endpoint: a Pod that becomes ready rewrites only that chain.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::iptables::{Family, Settings};
use crate::model::{Endpoint, Policy};
use crate::table::{ServicePort, Table};

/// The bit of the packet mark that means "masquerade". kube-proxy uses 0x4000; both may run side by side.
pub const MASQUERADE_MARK: &str = "0x2000";
const UNMARK: &str = "-j MARK --and-mark 0xffffdfff";

pub const SERVICES: &str = "SKIFF-SERVICES";
pub const EXTERNAL: &str = "SKIFF-EXTERNAL";
pub const NODEPORTS: &str = "SKIFF-NODEPORTS";
pub const POSTROUTING: &str = "SKIFF-POSTROUTING";
pub const HAIRPIN: &str = "SKIFF-HAIRPIN";
pub const REJECT: &str = "SKIFF-REJECT";
pub const FIREWALL: &str = "SKIFF-FIREWALL";
pub const FORWARD: &str = "SKIFF-FORWARD";

/// A chain's name and its rules, each without `-A CHAIN`.
pub type Chains = BTreeMap<String, Vec<String>>;

/// Every chain of ours, by table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    pub nat: Chains,
    pub filter: Chains,
}

/// A rule of ours in a chain that belongs to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    pub table: &'static str,
    pub base: &'static str,
    pub condition: &'static str,
    pub target: &'static str,
}

impl Jump {
    /// The rule without the chain it is in.
    pub fn rule(&self) -> String {
        format!("{}-m comment --comment \"skiff services\" -j {}", self.condition, self.target)
    }
}

const fn jump(table: &'static str, base: &'static str, target: &'static str) -> Jump {
    Jump { table, base, condition: "", target }
}

const fn jump_new(base: &'static str) -> Jump {
    Jump { table: "filter", base, condition: "-m conntrack --ctstate NEW ", target: REJECT }
}

/// How packets come to our chains.
pub const JUMPS: [Jump; 8] = [
    jump("nat", "PREROUTING", SERVICES),
    jump("nat", "OUTPUT", SERVICES),
    jump("nat", "POSTROUTING", POSTROUTING),
    jump_new("INPUT"),
    jump_new("FORWARD"),
    jump_new("OUTPUT"),
    jump("filter", "INPUT", FIREWALL),
    jump("filter", "FORWARD", FORWARD),
];

/// Renders the whole table for one address family.
pub fn render(table: &Table, settings: &Settings) -> Rendered {
    let mut rules = Rules { settings, rendered: Rendered::default() };
    let cidr = &settings.cluster_cidr;
    let mark = format!("-j MARK --or-mark {MASQUERADE_MARK}");
    rules
        .nat(SERVICES)
        .push(format!("! -s {cidr} -m comment --comment \"from outside the cluster\" {mark}"));
    rules.nat(NODEPORTS).push(mark.clone());
    if table.ports().any(|port| port.external_addresses().next().is_some()) {
        rules.nat(EXTERNAL).push(mark);
    }
    rules.filter(REJECT);
    for port in table.ports() {
        rules.service_port(&port);
    }
    rules.finish_services();
    rules.postrouting(table);
    rules.filter_chains();
    rules.rendered
}

/// The chain of a service port. The letters say which endpoints: SVC all, SVL this node's, EXT external traffic
/// under the policy Local.
pub fn service_chain(kind: &str, port: &ServicePort) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in format!("{}/{}", port.id(), port.port.protocol).bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("SKIFF-{kind}-{hash:016X}")
}

/// The list of `recent` that remembers who uses an endpoint: one a chain and endpoint.
fn affinity_list(chain: &str, target: SocketAddr) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in format!("{chain} {target}").bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("SKIFF-SEP-{hash:016X}")
}

struct Rules<'a> {
    settings: &'a Settings,
    rendered: Rendered,
}

impl Rules<'_> {
    fn nat(&mut self, chain: &str) -> &mut Vec<String> {
        self.rendered.nat.entry(chain.to_owned()).or_default()
    }

    fn filter(&mut self, chain: &str) -> &mut Vec<String> {
        self.rendered.filter.entry(chain.to_owned()).or_default()
    }

    fn service_port(&mut self, port: &ServicePort) {
        let family = self.settings.family;
        let of_family = |policy| -> Vec<Endpoint> {
            let endpoints = port.endpoints(policy).iter();
            endpoints.copied().filter(|endpoint| family.holds(endpoint.target.ip())).collect()
        };
        let (cluster, local) = (of_family(Policy::Cluster), of_family(Policy::Local));
        let service = port.service;
        let has_external = port.port.node_port != 0 || port.external_addresses().next().is_some();
        let all = service_chain("SVC", port);
        let here = service_chain("SVL", port);
        if service.internal == Policy::Cluster || has_external {
            self.endpoints_chain(&all, port, &cluster);
        }
        if service.internal == Policy::Local || (has_external && service.external == Policy::Local)
        {
            self.endpoints_chain(&here, port, &local);
        }
        let internal = if service.internal == Policy::Local { &here } else { &all };
        self.cluster_addresses(port, internal, &cluster, &local);
        if has_external {
            let external = match service.external {
                Policy::Cluster => all,
                Policy::Local => self.external_local_chain(port, &all, &here),
            };
            self.external_addresses(port, &external, &cluster, &local);
            self.node_port(port, &external, &cluster, &local);
        }
    }

    /// One rule an endpoint. The first of n is taken with probability 1/n, the next with 1/(n-1), the last always.
    fn endpoints_chain(&mut self, chain: &str, port: &ServicePort, endpoints: &[Endpoint]) {
        let protocol = port.port.protocol;
        let rules = self.nat(chain);
        for endpoint in endpoints.iter().filter(|_| port.service.affinity_seconds.is_some()) {
            let seconds = port.service.affinity_seconds.unwrap_or_default();
            let list = affinity_list(chain, endpoint.target);
            rules.push(format!(
                "-p {protocol} -m recent --name {list} --rcheck --seconds {seconds} --reap \
                 -m recent --name {list} --set -j DNAT --to-destination {}",
                endpoint.target
            ));
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            let mut rule = format!("-p {protocol}");
            let left = endpoints.len() - index;
            if left > 1 {
                rule +=
                    &format!(" -m statistic --mode random --probability {:.10}", 1.0 / left as f64);
            }
            if port.service.affinity_seconds.is_some() {
                rule +=
                    &format!(" -m recent --name {} --set", affinity_list(chain, endpoint.target));
            }
            rules.push(format!("{rule} -j DNAT --to-destination {}", endpoint.target));
        }
    }

    /// External traffic under the policy Local keeps its source, and goes to this node's endpoints. What comes from
    /// the cluster's pods or from the node itself is not external: it goes to every endpoint.
    fn external_local_chain(&mut self, port: &ServicePort, all: &str, here: &str) -> String {
        let chain = service_chain("EXT", port);
        let cidr = self.settings.cluster_cidr.clone();
        let rules = self.nat(&chain);
        rules.push(UNMARK.to_owned());
        rules.push(format!("-s {cidr} -j {all}"));
        rules.push(format!("-m addrtype --src-type LOCAL -j MARK --or-mark {MASQUERADE_MARK}"));
        rules.push(format!("-m addrtype --src-type LOCAL -j {all}"));
        rules.push(format!("-j {here}"));
        chain
    }

    fn cluster_addresses(
        &mut self,
        port: &ServicePort,
        chain: &str,
        cluster: &[Endpoint],
        local: &[Endpoint],
    ) {
        let family = self.settings.family;
        for address in port.service.cluster_ips.iter().filter(|address| family.holds(**address)) {
            let matched = format!("-d {address} {}", to_port(port, port.port.port));
            self.nat(SERVICES).push(format!("{matched} {} -j {chain}", comment(&port.id())));
            self.refuse(port, &matched, port.service.internal, cluster, local);
        }
    }

    fn external_addresses(
        &mut self,
        port: &ServicePort,
        chain: &str,
        cluster: &[Endpoint],
        local: &[Endpoint],
    ) {
        let family = self.settings.family;
        for (address, restricted) in
            port.external_addresses().filter(|(address, _)| family.holds(*address))
        {
            let matched = format!("-d {address} {}", to_port(port, port.port.port));
            let note = comment(&port.id());
            if restricted {
                let ranges = port.service.source_ranges.iter().filter(|range| {
                    range
                        .split('/')
                        .next()
                        .and_then(|ip| ip.parse().ok())
                        .is_some_and(|ip| family.holds(ip))
                });
                for range in ranges {
                    self.nat(EXTERNAL).push(format!("-s {range} {matched} {note} -j {chain}"));
                }
                // Whoever may use it has another destination by now; the rest still has this one.
                let note = comment(&format!("{} not from a source range", port.id()));
                self.filter(REJECT).push(format!("{matched} {note} -j DROP"));
            } else {
                self.nat(EXTERNAL).push(format!("{matched} {note} -j {chain}"));
            }
            self.refuse(port, &matched, port.service.external, cluster, local);
        }
    }

    fn node_port(
        &mut self,
        port: &ServicePort,
        chain: &str,
        cluster: &[Endpoint],
        local: &[Endpoint],
    ) {
        if port.port.node_port == 0 {
            return;
        }
        let matched = to_port(port, port.port.node_port);
        self.nat(NODEPORTS).push(format!("{matched} {} -j {chain}", comment(&port.id())));
        let matched = format!("-m addrtype --dst-type LOCAL {matched}");
        self.refuse(port, &matched, port.service.external, cluster, local);
    }

    /// A service that nobody serves is refused at once. One that is only not served here, under the policy Local,
    /// is dropped: a load balancer that probes nodes must not take an answer for an answer.
    fn refuse(
        &mut self,
        port: &ServicePort,
        matched: &str,
        policy: Policy,
        cluster: &[Endpoint],
        local: &[Endpoint],
    ) {
        let (what, target) = if cluster.is_empty() {
            ("has no endpoints", "REJECT")
        } else if policy == Policy::Local && local.is_empty() {
            ("has no local endpoints", "DROP")
        } else {
            return;
        };
        let note = comment(&format!("{} {what}", port.id()));
        self.filter(REJECT).push(format!("{matched} {note} -j {target}"));
    }

    fn finish_services(&mut self) {
        let settings = self.settings;
        let loopback = settings.family.loopback();
        let external = self.rendered.nat.contains_key(EXTERNAL);
        let services = self.nat(SERVICES);
        if external {
            services.push(format!("-j {EXTERNAL}"));
        }
        let node = "-m addrtype --dst-type LOCAL";
        if settings.node_port_cidrs.is_empty() {
            let not_loopback = if settings.localhost_node_ports {
                String::new()
            } else {
                format!("! -d {loopback} ")
            };
            services.push(format!("{not_loopback}{node} -j {NODEPORTS}"));
        }
        for cidr in &settings.node_port_cidrs {
            services.push(format!("-d {cidr} {node} -j {NODEPORTS}"));
        }
        services.push(format!("-m comment --comment \"not a service\" {UNMARK}"));
    }

    fn postrouting(&mut self, table: &Table) {
        let family = self.settings.family;
        let addresses =
            table.hairpin_addresses().into_iter().filter(|address| family.holds(*address));
        let hairpin = addresses
            .map(|address| format!("-s {address} -d {address} -j MASQUERADE --random-fully"));
        let hairpin: Vec<String> = hairpin.collect();
        *self.nat(HAIRPIN) = hairpin;
        let note = comment("back to the sender");
        let rules = self.nat(POSTROUTING);
        rules.push(format!("-m conntrack --ctstate DNAT {note} -j {HAIRPIN}"));
        rules.push(format!("-m mark ! --mark {MASQUERADE_MARK}/{MASQUERADE_MARK} -j RETURN"));
        // A packet that passes here again, out of a tunnel for example, must not be masqueraded twice.
        rules.push(format!("-j MARK --xor-mark {MASQUERADE_MARK}"));
        rules.push("-j MASQUERADE --random-fully".to_owned());
    }

    fn filter_chains(&mut self) {
        let settings = self.settings;
        let firewall = self.filter(FIREWALL);
        if settings.localhost_node_ports && settings.family == Family::Ipv4 {
            // route_localnet lets neighbours on the wire send to 127.0.0.1 (CVE-2020-8558).
            firewall.push(
                "! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
                    .to_owned(),
            );
        }
        let cidr = &settings.cluster_cidr;
        *self.filter(FORWARD) = vec![
            format!("-m mark --mark {MASQUERADE_MARK}/{MASQUERADE_MARK} -j ACCEPT"),
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".to_owned(),
            format!("-s {cidr} -j ACCEPT"),
            format!("-d {cidr} -j ACCEPT"),
        ];
    }
}

fn to_port(port: &ServicePort, number: u16) -> String {
    let protocol = port.port.protocol;
    format!("-p {protocol} -m {protocol} --dport {number}")
}

/// Names of objects are DNS labels: nothing in them needs escaping.
fn comment(text: &str) -> String {
    format!("-m comment --comment \"{text}\"")
}

//! How large and how fast the rules of many services are.
//!
//! `cargo run --release -p skiff-proxy --example scale -- SERVICES ENDPOINTS > rules` writes the text of a first
//! transaction and tells the time to render it; `ip netns exec SOME time iptables-restore --noflush < rules` tells
//! what the kernel's side takes. Nothing is written to the kernel by this program.

use std::sync::Arc;
use std::time::Instant;

use skiff_proto::ObjectKey;
use skiff_proxy::iptables::render::render;
use skiff_proxy::iptables::transaction::{Observed, full};
use skiff_proxy::iptables::{Family, Settings};
use skiff_proxy::model::{PortInfo, Protocol, ServiceInfo, SliceEndpoint, SliceInfo, SlicePort};
use skiff_proxy::table::Table;
use skiff_proxy::tracker::Changes;

fn changes(services: u32, endpoints: u32) -> Changes {
    let mut changes = Changes::default();
    for number in 0..services {
        let key = ObjectKey::new("default", format!("web{number}"));
        let service = ServiceInfo {
            cluster_ips: vec![std::net::Ipv4Addr::from_bits(0x0a2b_0000 + number).into()],
            ports: vec![PortInfo {
                name: "http".into(),
                protocol: Protocol::Tcp,
                port: 80,
                node_port: 0,
            }],
            ..ServiceInfo::default()
        };
        let endpoint = |index: u32| SliceEndpoint {
            address: std::net::Ipv4Addr::from_bits(
                0x0a2a_0000 + (number * endpoints + index) % 0xffff,
            )
            .into(),
            ready: true,
            serving: true,
            terminating: false,
            node: format!("n{}", (number + index) % 100),
        };
        let slice = SliceInfo {
            service: Some(key.clone()),
            ports: vec![SlicePort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
            endpoints: (0..endpoints).map(endpoint).collect(),
        };
        changes.services.push((key.clone(), Some(Arc::new(service))));
        changes.slices.push((key, Some(Arc::new(slice))));
    }
    changes
}

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|word| word.parse().ok());
    let (services, endpoints) = (numbers.next().unwrap_or(5000), numbers.next().unwrap_or(5));
    let mut table = Table::new("n1");
    table.apply(changes(services, endpoints));
    let settings = Settings {
        family: Family::Ipv4,
        cluster_cidr: "10.42.0.0/16".into(),
        node_port_cidrs: Vec::new(),
        localhost_node_ports: true,
    };
    let start = Instant::now();
    let rendered = render(&table, &settings);
    let text = full(&Observed::default(), &rendered);
    let took = start.elapsed();
    let rules: usize = rendered.nat.values().chain(rendered.filter.values()).map(Vec::len).sum();
    let chains = rendered.nat.len() + rendered.filter.len();
    eprintln!(
        "{services} services of {endpoints}: {chains} chains, {rules} rules, {took:?} to render"
    );
    print!("{text}");
}

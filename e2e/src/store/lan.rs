//! Hosts on a network of their own: a bridge in a namespace and a namespace for each host, so
//! that nothing of the machine's own network is touched, and links between hosts can be cut.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use skiff_kit::pki::{Ca, LEAF_LIFETIME, Request};

use super::{Member, Members};

static NEXT: AtomicU8 = AtomicU8::new(1);

/// Removed with everything in it when dropped.
pub struct Lan {
    switch: String,
    pub hosts: Vec<String>,
    prefix: String,
}

fn ip(args: &str) {
    let done = Command::new("ip").args(args.split(' ')).output();
    let done = done.expect("ip (package iproute2) does not start");
    assert!(done.status.success(), "ip {args}: {}", String::from_utf8_lossy(&done.stderr));
}

impl Lan {
    /// Addresses are of 198.18.0.0/15, which RFC 2544 sets aside for tests of network devices.
    pub fn new(count: usize) -> Self {
        let tag = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let switch = format!("skiff-lan-{tag}");
        ip(&format!("netns add {switch}"));
        let mut lan = Self { switch, hosts: Vec::new(), prefix: "198.19.77".into() };
        ip(&format!("-n {} link add br0 type bridge", lan.switch));
        ip(&format!("-n {} link set br0 up", lan.switch));
        for at in 0..count {
            let host = format!("skiff-lan-{tag}-{at}");
            ip(&format!("netns add {host}"));
            lan.hosts.push(host.clone());
            ip(&format!("-n {host} link add eth0 type veth peer name p{at} netns {}", lan.switch));
            ip(&format!("-n {host} addr add {}/24 dev eth0", lan.address(at)));
            ip(&format!("-n {host} link set lo up"));
            ip(&format!("-n {host} link set eth0 up"));
            ip(&format!("-n {} link set p{at} master br0 up", lan.switch));
        }
        lan
    }

    pub fn address(&self, at: usize) -> String {
        format!("{}.{}", self.prefix, at + 1)
    }

    /// What `from` sends no longer arrives at `to`.
    pub fn cut(&self, from: usize, to: usize) {
        let rules = format!(
            "table inet skiff_cut {{\nchain in {{\ntype filter hook input priority 0\n\
             ip saddr {} drop\n}}\n}}",
            self.address(from)
        );
        self.nft(to, &rules);
    }

    /// Neither hears the other.
    pub fn part(&self, one: usize, other: usize) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// Cuts a host off from all others, both ways.
    pub fn isolate(&self, host: usize) {
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            self.part(host, other);
        }
    }

    pub fn heal(&self) {
        for at in 0..self.hosts.len() {
            self.nft(at, "table inet skiff_cut { }\ndelete table inet skiff_cut");
        }
    }

    fn nft(&self, host: usize, rules: &str) {
        let mut nft = Command::new("ip");
        nft.args(["netns", "exec", &self.hosts[host], "nft", rules]);
        let done = nft.stdin(Stdio::null()).output().expect("nft (package nftables)");
        assert!(done.status.success(), "nft {rules}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// A member on each host. They talk over the network with mutual TLS; each serves its
    /// clients on its own loopback, so that a client always reaches its member.
    pub fn members(&self) -> Members {
        let dir = tempfile::Builder::new().prefix("skiff-store-").tempdir().expect("a folder");
        let ca = Ca::load_or_create(dir.path(), "peer-ca").expect("a CA");
        let mut list = Vec::new();
        for (at, host) in self.hosts.iter().enumerate() {
            let name = format!("m{}", at + 1);
            let request = Request {
                common_name: name.clone(),
                ips: vec![self.address(at).parse().expect("an address")],
                ..Default::default()
            };
            let identity = ca.issue(&request, LEAF_LIFETIME).expect("a certificate");
            let file = |what: &str| dir.path().join(format!("{name}.{what}"));
            std::fs::write(file("crt"), identity.cert_pem).expect("write");
            std::fs::write(file("key"), identity.key_pem).expect("write");
            let peer_url = format!("https://{}:2380", self.address(at));
            let mut member =
                Member::new(dir.path(), &name, "http://127.0.0.1:2379".into(), peer_url);
            member.namespace = Some(host.clone());
            let path = |path: std::path::PathBuf| path.display().to_string();
            member.args = vec![
                "--peer-cert-file".into(),
                path(file("crt")),
                "--peer-key-file".into(),
                path(file("key")),
                "--peer-trusted-ca-file".into(),
                path(dir.path().join("peer-ca.crt")),
            ];
            list.push(member);
        }
        let cluster = super::initial_cluster(&list);
        for member in &mut list {
            member.args.extend(["--initial-cluster".into(), cluster.clone()]);
            member.start();
        }
        for member in &list {
            member.wait_healthy();
        }
        Members { dir, list }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for namespace in self.hosts.iter().chain([&self.switch]) {
            let _ =
                Command::new("ip").args(["netns", "del", namespace]).stderr(Stdio::null()).status();
        }
    }
}

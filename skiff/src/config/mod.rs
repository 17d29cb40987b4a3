//! What a server is told: flags over the configuration file over defaults, checked as a whole.

mod args;
mod cidr;
mod datastore;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;
use skiff_proto::model::Taint;

pub use args::ServerArgs;
pub use cidr::Cidr;
pub use datastore::Datastore;

/// Parts that `--disable` can leave out.
pub const PARTS: [&str; 5] = ["controllers", "scheduler", "kubelet", "proxy", "ingress"];

/// Where a server keeps what must survive, unless it is told otherwise.
pub const DATA_DIR: &str = "/var/lib/skiff";

/// Where it writes the administrator's kubeconfig, unless it is told otherwise.
pub const KUBECONFIG: &str = "/etc/skiff/skiff.yaml";

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub data_dir: PathBuf,
    /// Gone after a reboot.
    pub run_dir: PathBuf,
    pub log_dir: PathBuf,
    pub node_name: String,
    pub node_ip: IpAddr,
    pub api: SocketAddr,
    pub store_client: SocketAddr,
    /// An etcd cluster instead of the embedded store.
    pub datastore: Option<Datastore>,
    pub kubelet: SocketAddr,
    pub ingress: Vec<SocketAddr>,
    pub tls_san: Vec<String>,
    pub cluster_cidr: Cidr,
    pub service_cidr: Cidr,
    pub node_ports: (u16, u16),
    pub cluster_domain: String,
    pub containerd_address: Option<PathBuf>,
    pub cni_conf_dir: Option<PathBuf>,
    pub proxy_mode: skiff_proxy::Mode,
    pub node_labels: BTreeMap<String, String>,
    pub node_taints: Vec<Taint>,
    pub write_kubeconfig: PathBuf,
    pub disabled: Vec<String>,
}

impl ServerConfig {
    /// Reads `--config`, lays the flags over it and reports every fault at once.
    pub fn from_args(flags: ServerArgs) -> anyhow::Result<Self> {
        let args = match &flags.config {
            None => flags,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("read the configuration {}", path.display()))?;
                let file: ServerArgs = serde_saphyr::from_str(&text).with_context(|| {
                    format!("the configuration {} does not read", path.display())
                })?;
                flags.over(file)
            }
        };
        Self::checked(args)
    }

    fn checked(args: ServerArgs) -> anyhow::Result<Self> {
        let mut faults = Faults::default();
        let bind =
            faults.parse("bind-address", args.bind_address, IpAddr::from(Ipv4Addr::UNSPECIFIED));
        let node_ip = match args.node_ip {
            Some(text) => faults.parse("node-ip", Some(text), IpAddr::from(Ipv4Addr::LOCALHOST)),
            None => node_address(),
        };
        let node_name = args.node_name.unwrap_or_else(host_name);
        if !is_subdomain(&node_name) {
            faults.add(
                "node-name",
                &node_name,
                "is no DNS subdomain: use lower case letters, digits, '-' and '.'",
            );
        }
        let data_dir = args.data_dir.unwrap_or_else(|| DATA_DIR.into());
        if !data_dir.is_absolute() {
            faults.add("data-dir", data_dir.display(), "is not an absolute path");
        }
        let cluster_cidr =
            faults.parse("cluster-cidr", args.cluster_cidr, Cidr::new([10, 42, 0, 0], 16));
        let service_cidr =
            faults.parse("service-cidr", args.service_cidr, Cidr::new([10, 43, 0, 0], 16));
        if cluster_cidr.overlaps(&service_cidr) {
            faults.add(
                "service-cidr",
                service_cidr,
                &format!("overlaps --cluster-cidr {cluster_cidr}"),
            );
        }
        let node_ports =
            faults.range(args.service_node_port_range.as_deref().unwrap_or("30000-32767"));
        let proxy_mode = faults.parse("proxy-mode", args.proxy_mode, skiff_proxy::Mode::default());
        let datastore = Datastore::checked(
            args.datastore_endpoint,
            [args.datastore_cafile, args.datastore_certfile, args.datastore_keyfile],
            &mut faults,
        );
        let mut disabled = args.disable;
        if args.disable_agent {
            disabled.extend(["kubelet", "proxy", "ingress"].map(str::to_owned));
        }
        for part in disabled.iter().filter(|part| !PARTS.contains(&part.as_str())) {
            faults.add("disable", part, &format!("is not a part: {}", PARTS.join(", ")));
        }
        let ingress_port = args.ingress_http_port.unwrap_or(80);
        let config = Self {
            run_dir: args.run_dir.unwrap_or_else(|| "/run/skiff".into()),
            log_dir: args.log_dir.unwrap_or_else(|| "/var/log/pods".into()),
            node_labels: faults.pairs(&args.node_label),
            node_taints: faults.taints(&args.node_taint),
            api: SocketAddr::new(bind, args.https_listen_port.unwrap_or(6443)),
            store_client: SocketAddr::from((
                Ipv4Addr::LOCALHOST,
                args.store_listen_port.unwrap_or(2379),
            )),
            kubelet: SocketAddr::new(bind, args.kubelet_port.unwrap_or(10250)),
            ingress: vec![SocketAddr::new(bind, ingress_port)],
            tls_san: args.tls_san,
            cluster_domain: args.cluster_domain.unwrap_or_else(|| "cluster.local".into()),
            containerd_address: args.containerd_address,
            cni_conf_dir: args.cni_conf_dir,
            write_kubeconfig: args.write_kubeconfig.unwrap_or_else(|| KUBECONFIG.into()),
            data_dir,
            node_name,
            node_ip,
            datastore,
            cluster_cidr,
            service_cidr,
            node_ports,
            proxy_mode,
            disabled,
        };
        faults.finish()?;
        Ok(config)
    }

    pub fn enabled(&self, part: &str) -> bool {
        !self.disabled.iter().any(|d| d == part)
    }

    /// Where a client on this machine reaches the API.
    pub fn local_api(&self) -> SocketAddr {
        let ip = if self.api.ip().is_unspecified() {
            IpAddr::from(Ipv4Addr::LOCALHOST)
        } else {
            self.api.ip()
        };
        SocketAddr::new(ip, self.api.port())
    }
}

/// Everything that is wrong, told together.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn add(&mut self, flag: &str, value: impl std::fmt::Display, why: &str) {
        self.0.push(format!("--{flag} {value} {why}"));
    }

    fn parse<T: FromStr>(&mut self, flag: &str, text: Option<String>, default: T) -> T
    where
        T::Err: std::fmt::Display,
    {
        let Some(text) = text else { return default };
        text.parse().unwrap_or_else(|error: T::Err| {
            self.add(flag, &text, &format!("does not read: {error}"));
            default
        })
    }

    fn range(&mut self, text: &str) -> (u16, u16) {
        let parsed =
            text.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        match parsed {
            Some((first, last)) if first > 0 && first <= last => (first, last),
            _ => {
                self.add("service-node-port-range", text, "is no range such as 30000-32767");
                (30000, 32767)
            }
        }
    }

    fn pairs(&mut self, texts: &[String]) -> BTreeMap<String, String> {
        let mut pairs = BTreeMap::new();
        for text in texts {
            match text.split_once('=') {
                Some((key, value)) if !key.is_empty() => {
                    drop(pairs.insert(key.to_owned(), value.to_owned()))
                }
                _ => self.add("node-label", text, "is no KEY=VALUE"),
            }
        }
        pairs
    }

    fn taints(&mut self, texts: &[String]) -> Vec<Taint> {
        let mut taints = Vec::new();
        for text in texts {
            let split = text.rsplit_once(':');
            match split {
                Some((head, effect @ ("NoSchedule" | "PreferNoSchedule" | "NoExecute"))) => {
                    let (key, value) = head.split_once('=').unwrap_or((head, ""));
                    taints.push(Taint {
                        key: key.into(),
                        value: value.into(),
                        effect: effect.into(),
                        time_added: None,
                    });
                }
                _ => self.add("node-taint", text, "is no KEY=VALUE:EFFECT"),
            }
        }
        taints
    }

    fn finish(self) -> anyhow::Result<()> {
        match self.0.len() {
            0 => Ok(()),
            _ => anyhow::bail!("the configuration cannot be used:\n  {}", self.0.join("\n  ")),
        }
    }
}

/// The address of the route to the outside; nothing is sent to find it.
fn node_address() -> IpAddr {
    let outside = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // An address for documentation (RFC 5737): connecting a UDP socket only asks for a route.
        socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    outside().unwrap_or(IpAddr::from(Ipv4Addr::LOCALHOST))
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim().to_ascii_lowercase();
    if name.is_empty() { "localhost".into() } else { name }
}

/// RFC 1123 subdomain, as names of nodes are.
fn is_subdomain(name: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("config.yaml");
        std::fs::write(
            &path,
            "node-name: from-file\ncluster-cidr: 10.1.0.0/16\ndisable: [ingress]\n",
        )
        .expect("writes");
        let flags = ServerArgs {
            config: Some(path),
            node_name: Some("from-flag".into()),
            ..Default::default()
        };
        let config = ServerConfig::from_args(flags).expect("reads");
        assert_eq!(config.node_name, "from-flag");
        assert_eq!(config.cluster_cidr.to_string(), "10.1.0.0/16");
        assert!(!config.enabled("ingress") && config.enabled("proxy"));
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let flags = ServerArgs {
            node_name: Some("Node_1".into()),
            cluster_cidr: Some("10.43.0.0/16".into()),
            service_node_port_range: Some("9-1".into()),
            node_taint: vec!["a=b".into()],
            disable: vec!["dns".into()],
            ..Default::default()
        };
        let text = ServerConfig::from_args(flags).expect_err("faults").to_string();
        for part in [
            "--node-name Node_1 is no DNS subdomain",
            "--service-cidr 10.43.0.0/16 overlaps --cluster-cidr 10.43.0.0/16",
            "--service-node-port-range 9-1 is no range",
            "--node-taint a=b is no KEY=VALUE:EFFECT",
            "--disable dns is not a part",
        ] {
            assert!(text.contains(part), "{part} not in {text}");
        }
    }

    #[test]
    fn an_unknown_key_in_the_file_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, "node-nam: x\n").expect("writes");
        let flags = ServerArgs { config: Some(path), ..Default::default() };
        let text = format!("{:#}", ServerConfig::from_args(flags).expect_err("unknown key"));
        assert!(text.contains("node-nam"), "{text}");
    }
}

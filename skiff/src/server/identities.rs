//! Who is who: the authorities of a cluster and the certificates of its parts.
//!
//! The store has an authority of its own: a certificate of the cluster, such as a node's,
//! must not open the store, where Secrets lie.

use std::net::{IpAddr, Ipv4Addr};

use skiff_kit::pki::{Ca, Identity, PkiError, Request};

use crate::config::ServerConfig;

/// As upstream names the group that may do everything.
const MASTERS: &str = "system:masters";
const NODES: &str = "system:nodes";

pub struct Identities {
    pub cluster_ca_pem: String,
    pub store_ca_pem: String,
    /// Serves the API, and calls kubelets.
    pub apiserver: Identity,
    pub kubelet: Identity,
    /// Of the kubeconfig.
    pub admin: Identity,
    pub store_server: Identity,
}

impl Identities {
    pub fn load_or_create(config: &ServerConfig) -> Result<Self, PkiError> {
        let dir = config.data_dir.join("tls");
        let cluster = Ca::load_or_create(&dir, "cluster-ca")?;
        let store = Ca::load_or_create(&dir, "store-ca")?;
        let local = [IpAddr::from(Ipv4Addr::LOCALHOST), config.node_ip];
        let identity = |ca: &Ca, file: &str, name: &str, group: Option<&str>| {
            let request = Request {
                common_name: name.into(),
                organization: group.map(str::to_owned),
                dns_names: vec!["localhost".into(), config.node_name.clone()],
                ips: local.to_vec(),
            };
            ca.load_or_issue(&dir, file, &request)
        };
        // For etcd's clients on this machine.
        identity(&store, "store-client", "skiff-store-client", None)?;
        Ok(Self {
            apiserver: cluster.load_or_issue(&dir, "apiserver", &apiserver(config, &local))?,
            kubelet: identity(
                &cluster,
                "kubelet",
                &format!("system:node:{}", config.node_name),
                Some(NODES),
            )?,
            admin: identity(&cluster, "admin", "skiff-admin", Some(MASTERS))?,
            store_server: identity(&store, "store-server", "skiff-store", None)?,
            cluster_ca_pem: cluster.cert_pem,
            store_ca_pem: store.cert_pem,
        })
    }
}

fn apiserver(config: &ServerConfig, local: &[IpAddr]) -> Request {
    let domain = &config.cluster_domain;
    let mut request = Request {
        common_name: "skiff-apiserver".into(),
        organization: None,
        dns_names: ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
            .map(str::to_owned)
            .to_vec(),
        ips: local.to_vec(),
    };
    request.dns_names.push(format!("kubernetes.default.svc.{domain}"));
    request.dns_names.push(config.node_name.clone());
    // The `kubernetes` service has the range's first address.
    request.ips.push(config.service_cidr.address(1).into());
    for name in &config.tls_san {
        match name.parse() {
            Ok(ip) => request.ips.push(ip),
            Err(_) => request.dns_names.push(name.clone()),
        }
    }
    request
}

//! The flags of `skiff server`, which are also the keys of its configuration file.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct ServerArgs {
    /// YAML file with these flags as keys; flags win
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Where state is kept [default: /var/lib/skiff]
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// Where sockets and mounts are, gone after a reboot [default: /run/skiff]
    #[arg(long)]
    pub run_dir: Option<PathBuf>,
    /// Container logs [default: /var/log/pods]
    #[arg(long)]
    pub log_dir: Option<PathBuf>,
    /// [default: the host's name]
    #[arg(long)]
    pub node_name: Option<String>,
    /// [default: the address of the default route]
    #[arg(long)]
    pub node_ip: Option<String>,
    /// [default: 0.0.0.0]
    #[arg(long)]
    pub bind_address: Option<String>,
    /// gRPC and HTTPS API [default: 6443]
    #[arg(long)]
    pub https_listen_port: Option<u16>,
    /// etcd API of the store, on loopback, by client certificate [default: 2379]
    #[arg(long)]
    pub store_listen_port: Option<u16>,
    /// Use this etcd cluster instead of the embedded store: https://HOST:2379,...
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub datastore_endpoint: Vec<String>,
    /// CA of that cluster's certificates
    #[arg(long, value_name = "FILE")]
    pub datastore_cafile: Option<PathBuf>,
    /// Client certificate for that cluster
    #[arg(long, value_name = "FILE")]
    pub datastore_certfile: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE")]
    pub datastore_keyfile: Option<PathBuf>,
    /// The node's own API [default: 10250]
    #[arg(long)]
    pub kubelet_port: Option<u16>,
    /// [default: 80]
    #[arg(long)]
    pub ingress_http_port: Option<u16>,
    /// More names and addresses for the API's certificate
    #[arg(long)]
    pub tls_san: Vec<String>,
    /// Addresses of pods [default: 10.42.0.0/16]
    #[arg(long)]
    pub cluster_cidr: Option<String>,
    /// Addresses of services [default: 10.43.0.0/16]
    #[arg(long)]
    pub service_cidr: Option<String>,
    /// [default: 30000-32767]
    #[arg(long)]
    pub service_node_port_range: Option<String>,
    /// [default: cluster.local]
    #[arg(long)]
    pub cluster_domain: Option<String>,
    /// Use this containerd instead of starting one
    #[arg(long, value_name = "SOCKET")]
    pub containerd_address: Option<PathBuf>,
    /// Use this folder's CNI configuration instead of skiff's own bridge
    #[arg(long, value_name = "DIR")]
    pub cni_conf_dir: Option<PathBuf>,
    /// iptables
    #[arg(long)]
    pub proxy_mode: Option<String>,
    /// KEY=VALUE, repeatable
    #[arg(long)]
    pub node_label: Vec<String>,
    /// KEY=VALUE:EFFECT, repeatable
    #[arg(long)]
    pub node_taint: Vec<String>,
    /// [default: /etc/skiff/skiff.yaml]
    #[arg(long, value_name = "FILE")]
    pub write_kubeconfig: Option<PathBuf>,
    /// Leave a part out: controllers, scheduler, kubelet, proxy, ingress
    #[arg(long, value_name = "PART")]
    pub disable: Vec<String>,
    /// Control plane only
    #[arg(long)]
    pub disable_agent: bool,
}

impl ServerArgs {
    /// These, and where they say nothing, `file`'s.
    pub fn over(self, file: Self) -> Self {
        let list =
            |ours: Vec<String>, theirs: Vec<String>| if ours.is_empty() { theirs } else { ours };
        Self {
            config: self.config,
            data_dir: self.data_dir.or(file.data_dir),
            run_dir: self.run_dir.or(file.run_dir),
            log_dir: self.log_dir.or(file.log_dir),
            node_name: self.node_name.or(file.node_name),
            node_ip: self.node_ip.or(file.node_ip),
            bind_address: self.bind_address.or(file.bind_address),
            https_listen_port: self.https_listen_port.or(file.https_listen_port),
            store_listen_port: self.store_listen_port.or(file.store_listen_port),
            datastore_endpoint: list(self.datastore_endpoint, file.datastore_endpoint),
            datastore_cafile: self.datastore_cafile.or(file.datastore_cafile),
            datastore_certfile: self.datastore_certfile.or(file.datastore_certfile),
            datastore_keyfile: self.datastore_keyfile.or(file.datastore_keyfile),
            kubelet_port: self.kubelet_port.or(file.kubelet_port),
            ingress_http_port: self.ingress_http_port.or(file.ingress_http_port),
            tls_san: list(self.tls_san, file.tls_san),
            cluster_cidr: self.cluster_cidr.or(file.cluster_cidr),
            service_cidr: self.service_cidr.or(file.service_cidr),
            service_node_port_range: self.service_node_port_range.or(file.service_node_port_range),
            cluster_domain: self.cluster_domain.or(file.cluster_domain),
            containerd_address: self.containerd_address.or(file.containerd_address),
            cni_conf_dir: self.cni_conf_dir.or(file.cni_conf_dir),
            proxy_mode: self.proxy_mode.or(file.proxy_mode),
            node_label: list(self.node_label, file.node_label),
            node_taint: list(self.node_taint, file.node_taint),
            write_kubeconfig: self.write_kubeconfig.or(file.write_kubeconfig),
            disable: list(self.disable, file.disable),
            disable_agent: self.disable_agent || file.disable_agent,
        }
    }
}

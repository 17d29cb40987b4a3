//! The kubeconfig that `skiff server` writes for the cluster's administrator.

use anyhow::Context;
use skiff_client::grpc::Server;
use skiff_client::kubeconfig::Kubeconfig;

use crate::config::ServerConfig;
use crate::server::Identities;

pub fn write(config: &ServerConfig, identities: &Identities) -> anyhow::Result<()> {
    let path = &config.write_kubeconfig;
    let server = Server {
        url: format!("https://{}", config.local_api()),
        ca_pem: identities.cluster_ca_pem.clone(),
        cert_pem: identities.admin.cert_pem.clone(),
        key_pem: identities.admin.key_pem.clone(),
        tls_name: String::new(),
    };
    let kubeconfig = Kubeconfig::single("skiff", &server);
    kubeconfig.write(path).with_context(|| {
        format!(
            "write the kubeconfig {}: choose another place with --write-kubeconfig",
            path.display()
        )
    })
}

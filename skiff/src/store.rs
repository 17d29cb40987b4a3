//! `skiff store`: the store alone, as its own process, with etcd's flag names.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use skiff_kit::pki::Identity;
use skiff_kit::tls::{ClientAuth, server_config};
use skiff_store::Store;
use tokio_util::sync::CancellationToken;

use crate::server::parts::bind;

#[derive(Debug, Args)]
pub struct StoreArgs {
    /// This member's name
    #[arg(long, default_value = "default")]
    name: String,
    #[arg(long, default_value = "default.etcd")]
    data_dir: PathBuf,
    /// Where clients connect; plain http only on loopback
    #[arg(long, default_value = "http://127.0.0.1:2379", value_delimiter = ',')]
    listen_client_urls: Vec<String>,
    /// Server certificate for https
    #[arg(long)]
    cert_file: Option<PathBuf>,
    #[arg(long)]
    key_file: Option<PathBuf>,
    /// CA of client certificates
    #[arg(long)]
    trusted_ca_file: Option<PathBuf>,
}

pub async fn run(args: StoreArgs) -> anyhow::Result<()> {
    skiff_kit::telemetry::init("info,openraft=warn,sled=warn,h2=warn");
    let tls = args.tls()?;
    let mut config = skiff_store::Config::new(&args.name, &args.data_dir);
    config.client_urls.clone_from(&args.listen_client_urls);
    let mut listeners = Vec::new();
    for url in &args.listen_client_urls {
        let (address, secure) = address(url)?;
        if secure && tls.is_none() {
            anyhow::bail!(
                "--listen-client-urls {url} needs --cert-file, --key-file and --trusted-ca-file"
            );
        }
        let listener = bind(address, "--listen-client-urls").await?;
        listeners.push((listener, if secure { tls.clone() } else { None }));
    }
    let store = Store::open(config).await?;
    let shutdown = CancellationToken::new();
    tokio::spawn(crate::server::stop_on_signal(shutdown.clone()));
    let mut serving = tokio::task::JoinSet::new();
    for (listener, tls) in listeners {
        tracing::info!(address = ?listener.local_addr().ok(), "serving clients");
        serving.spawn(skiff_store::etcd::serve(store.clone(), listener, tls, shutdown.clone()));
    }
    while let Some(served) = serving.join_next().await {
        served??;
    }
    store.shutdown().await;
    Ok(())
}

impl StoreArgs {
    fn tls(&self) -> anyhow::Result<Option<Arc<rustls::ServerConfig>>> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
        };
        match (&self.cert_file, &self.key_file, &self.trusted_ca_file) {
            (Some(cert), Some(key), Some(ca)) => {
                let identity = Identity { cert_pem: read(cert)?, key_pem: read(key)? };
                Ok(Some(Arc::new(server_config(&identity, &read(ca)?, ClientAuth::Required)?)))
            }
            (None, None, None) => Ok(None),
            _ => anyhow::bail!("--cert-file, --key-file and --trusted-ca-file go together"),
        }
    }
}

/// The address of a URL, and whether it is https.
fn address(url: &str) -> anyhow::Result<(SocketAddr, bool)> {
    let parse = |rest: &str| -> anyhow::Result<SocketAddr> {
        let rest = rest.trim_end_matches('/').replace("localhost", "127.0.0.1");
        rest.parse().with_context(|| format!("{url} is no URL of an IP address and a port"))
    };
    if let Some(rest) = url.strip_prefix("https://") {
        return Ok((parse(rest)?, true));
    }
    let Some(rest) = url.strip_prefix("http://") else {
        anyhow::bail!("{url} must begin with http:// or https://");
    };
    let address = parse(rest)?;
    if !address.ip().is_loopback() {
        anyhow::bail!("{url}: plain http is for loopback only; use https:// with certificates");
    }
    Ok((address, false))
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn plain_http_stays_on_loopback() {
        assert!(!address("http://127.0.0.1:2379").expect("loopback").1);
        assert!(address("https://10.0.0.1:2379").expect("secure").1);
        let text = address("http://10.0.0.1:2379").expect_err("refused").to_string();
        assert!(text.contains("loopback only"), "{text}");
        assert!(address("127.0.0.1:2379").is_err());
    }
}

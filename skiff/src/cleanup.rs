//! `skiff cleanup`: takes off this host what a stopped server has left on purpose, so that
//! containers outlive it: containers, their containerd, rules, links, mounts, namespaces.

use std::io::Write;
use std::sync::Arc;

use clap::Args;
use skiff_kubelet::containerd_supervisor;

use crate::config::{KUBECONFIG, ServerArgs, ServerConfig};
use crate::server::{network, parts};

#[derive(Debug, Args)]
pub struct CleanupArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The data folder, too: all objects, images and keys
    #[arg(long)]
    data: bool,
}

/// Every step is tried; the first failure decides the exit code.
pub async fn run(args: &CleanupArgs) -> anyhow::Result<i32> {
    skiff_kit::telemetry::init("warn");
    let config = ServerConfig::from_args(args.server.clone())?;
    let mut failures = Vec::new();
    let mut step = |what: &str, result: anyhow::Result<()>| match result {
        Ok(()) => say(format_args!("removed  {what}")),
        Err(error) => {
            say(format_args!("failed   {what}: {error:#}"));
            failures.push(what.to_owned());
        }
    };
    step("containers, pod networks, volumes, cgroups", pods(&config).await);
    step("service rules", skiff_proxy::cleanup().map(drop).map_err(Into::into));
    let paths = network::Paths::new(&config.data_dir);
    let removed = skiff_cni::remove_network(network::NETWORK, network::BRIDGE, &paths.leases);
    step("bridge and masquerade rules", removed.map(drop).map_err(Into::into));
    step("run folder", remove_dir(&config.run_dir));
    if args.data {
        step("data folder", remove_dir(&config.data_dir));
        step("container logs", remove_dir(&config.log_dir));
        step("kubeconfig", remove_kubeconfig(&config.write_kubeconfig));
    }
    Ok(i32::from(!failures.is_empty()))
}

/// A reader that has gone away is no reason to leave things behind.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Needs containerd: one that is gone is started for the time of the cleaning.
async fn pods(config: &ServerConfig) -> anyhow::Result<()> {
    let own = containerd_supervisor::Config::new(
        config.data_dir.join("containerd"),
        config.run_dir.join("containerd"),
    );
    if config.containerd_address.is_none() && !own.root.exists() {
        return Ok(());
    }
    let supervisor = match &config.containerd_address {
        Some(_) => None,
        None => Some(containerd_supervisor::Supervisor::start(own.clone()).await?),
    };
    let address = config.containerd_address.clone().unwrap_or_else(|| own.socket());
    let runtime = Arc::new(parts::connect_containerd(config, &address).await?);
    let cni = Arc::new(skiff_kubelet::network::Cni::new(parts::network_config(config)));
    let removed =
        skiff_kubelet::remove_everything(runtime, cni, &parts::kubelet_config(config)).await;
    if let Some(supervisor) = supervisor {
        supervisor.stop().await;
    }
    Ok(removed?)
}

fn remove_dir(dir: &std::path::Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(anyhow::anyhow!("remove {}: {error}", dir.display()))
        }
        _ => Ok(()),
    }
}

fn remove_kubeconfig(file: &std::path::Path) -> anyhow::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(anyhow::anyhow!("remove {}: {error}", file.display()));
        }
        _ => {}
    }
    if file == std::path::Path::new(KUBECONFIG) {
        // The server made the folder; it stays if something else is in it.
        let _ = file.parent().map(std::fs::remove_dir);
    }
    Ok(())
}

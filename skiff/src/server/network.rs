//! The node's own pod network: the CNI configuration for the bridge plugin, and the plugin
//! itself, which is this binary under another name.

use std::path::{Path, PathBuf};

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use skiff_kubelet::network::BuiltIn;
use skiff_proxy::monitor::Monitor;
use tokio_util::sync::CancellationToken;

use crate::config::ServerConfig;

pub const NETWORK: &str = "skiff";
pub const BRIDGE: &str = "skiff0";

/// Where things of the pod network are, below the data folder.
pub struct Paths {
    pub conf: PathBuf,
    pub bin: PathBuf,
    pub leases: PathBuf,
    pub results: PathBuf,
}

impl Paths {
    pub fn new(data_dir: &Path) -> Self {
        let cni = data_dir.join("cni");
        Self {
            conf: cni.join("net.d"),
            bin: cni.join("bin"),
            leases: cni.join("networks"),
            results: cni.join("results"),
        }
    }
}

/// The bridge plugin, called without a process: starting this binary costs more than the call.
pub fn built_in() -> BuiltIn {
    BuiltIn {
        kind: skiff_cni::PLUGIN_TYPE,
        answer: |environment, input| {
            let of = |name: &str| {
                let found = environment.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| value.clone())
            };
            skiff_cni::answer(&of, input).map_err(|error| {
                let version = skiff_cni::request::answer_version(input);
                skiff_cni::reply::render_error(&error, &version)
            })
        },
    }
}

/// Writes the configuration for the node's range of pod addresses.
pub fn write(config: &ServerConfig, pod_cidr: &str) -> anyhow::Result<()> {
    let paths = Paths::new(&config.data_dir);
    for dir in [&paths.conf, &paths.bin, &paths.leases] {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("make the folder {}", dir.display()))?;
    }
    link_plugin(&paths.bin)?;
    let list = json!({
        "cniVersion": "1.0.0",
        "name": NETWORK,
        "plugins": [{
            "type": skiff_cni::PLUGIN_TYPE,
            "bridge": BRIDGE,
            "isDefaultGateway": true,
            "hairpinMode": true,
            "ipMasq": true,
            "capabilities": {"portMappings": true},
            "nonMasqueradeCIDRs": [config.cluster_cidr.to_string()],
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": pod_cidr}]],
                "dataDir": paths.leases,
            },
        }],
    });
    let path = conf_path(&config.data_dir);
    let text = serde_json::to_string_pretty(&list)?;
    // Renamed into place: a plugin call never sees half a file.
    let temp = path.with_extension("tmp");
    std::fs::write(&temp, text)
        .and_then(|()| std::fs::rename(&temp, &path))
        .with_context(|| format!("write the pod network's configuration {}", path.display()))
}

/// A flush is announced rule by rule: this long after the first announcement it is looked at once.
const SETTLE: Duration = Duration::from_millis(100);

/// Puts masquerade and host ports back when another program has flushed them; the proxy does the
/// same for the rules of Services. The kernel announces it, so nothing is looked at meanwhile.
pub async fn keep_rules(data_dir: PathBuf, shutdown: CancellationToken) {
    let mut monitor = match Monitor::of_pod_network() {
        Ok(monitor) => monitor,
        Err(error) => {
            tracing::warn!(%error, "changes of nftables cannot be followed: after a flush, pods reach the outside again with the next pod that starts");
            return;
        }
    };
    let path = conf_path(&data_dir);
    while let Some(Ok(())) = shutdown.run_until_cancelled(monitor.disturbed()).await {
        tokio::time::sleep(SETTLE).await;
        let path = path.clone();
        match tokio::task::spawn_blocking(move || repair(&path)).await {
            Ok(Ok(false)) | Err(_) => {}
            Ok(Ok(true)) => tracing::info!(
                "another program had removed rules of the pod network; they are back"
            ),
            Ok(Err(error)) => tracing::warn!("rules of the pod network not repaired: {error:#}"),
        }
    }
}

fn repair(path: &Path) -> anyhow::Result<bool> {
    let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let list: Value = serde_json::from_slice(&text)?;
    let mut conf = list["plugins"][0].clone();
    conf["name"] = list["name"].clone();
    conf["cniVersion"] = list["cniVersion"].clone();
    Ok(skiff_cni::repair_rules(&conf)?)
}

fn conf_path(data_dir: &Path) -> PathBuf {
    Paths::new(data_dir).conf.join("10-skiff.conflist")
}

/// A plugin is found by its type's name; this binary answers to it. The link is made anew at
/// each start, since the binary may have moved.
fn link_plugin(dir: &Path) -> anyhow::Result<()> {
    let link = dir.join(skiff_cni::PLUGIN_TYPE);
    let program = std::env::current_exe().context("find this program's own path")?;
    let temp = dir.join(".plugin.tmp");
    let _ = std::fs::remove_file(&temp);
    std::os::unix::fs::symlink(&program, &temp)
        .and_then(|()| std::fs::rename(&temp, &link))
        .with_context(|| format!("link the network plugin {}", link.display()))
}

//! The node's own pod network: the CNI configuration for the bridge plugin, and the plugin
//! itself, which is this binary under another name.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

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
            "nonMasqueradeCIDRs": [config.cluster_cidr.to_string()],
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": pod_cidr}]],
                "dataDir": paths.leases,
            },
        }],
    });
    let path = paths.conf.join("10-skiff.conflist");
    let text = serde_json::to_string_pretty(&list)?;
    // Renamed into place: a plugin call never sees half a file.
    let temp = path.with_extension("tmp");
    std::fs::write(&temp, text)
        .and_then(|()| std::fs::rename(&temp, &path))
        .with_context(|| format!("write the pod network's configuration {}", path.display()))
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

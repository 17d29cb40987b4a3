//! A pod's volumes: folders and files on the node that its containers get mounted.
//!
//! ```text
//! <root>/pods/<uid>/
//!   volumes/<kind>/<name>/     content; a tmpfs where it must not touch the disk
//!   subpaths/<volume>/<n>/     bind mounts of checked sub paths
//!   containers/<name>/         termination messages
//!   hosts, hostname, resolv.conf
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use skiff_proto::model::{Pod, Volume};

use crate::downward::Facts;
use crate::env::Lookups;

pub mod atomic;
pub mod content;
pub mod etc;
pub mod hostpath;
pub mod mounts;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {why}")]
pub struct VolumeError {
    pub volume: String,
    pub why: String,
}

/// Where each volume lies on the node.
pub type Places = BTreeMap<String, PathBuf>;

/// Makes every volume of the pod, or brings it up to date. Repeating it changes nothing that
/// is right. Blocking.
pub fn set_up(
    pod_dir: &Path,
    pod: &Pod,
    lookups: &Lookups,
    facts: &Facts,
) -> Result<Places, VolumeError> {
    let mut places = Places::new();
    for volume in &pod.spec.volumes {
        let place = one(pod_dir, pod, volume, lookups, facts)
            .map_err(|why| VolumeError { volume: volume.name.clone(), why })?;
        places.insert(volume.name.clone(), place);
    }
    Ok(places)
}

fn one(
    pod_dir: &Path,
    pod: &Pod,
    volume: &Volume,
    lookups: &Lookups,
    facts: &Facts,
) -> Result<PathBuf, String> {
    let group = pod.spec.security_context.as_ref().and_then(|s| s.fs_group);
    if let Some(host_path) = &volume.host_path {
        hostpath::check(host_path)?;
        return Ok(host_path.path.clone().into());
    }
    if volume.persistent_volume_claim.is_some() {
        return Err("persistent volume claims are not served by this node".into());
    }
    let place = pod_dir.join("volumes").join(plugin(volume)).join(&volume.name);
    if let Some(empty) = &volume.empty_dir {
        let fresh = !place.exists();
        make_dir(&place, 0o777)?;
        if empty.medium == "Memory" {
            let limit = empty.size_limit.as_ref().map(|q| q.value());
            mounts::tmpfs(&place, limit, 0o1777).map_err(failed("mount tmpfs on", &place))?;
        }
        if fresh && let Some(group) = group {
            own(&place, group).map_err(failed("change the group of", &place))?;
        }
        return Ok(place);
    }
    let payload = content::payload(pod, volume, lookups, facts)?
        .ok_or("no volume plugin matched: this kind of volume is not served by this node")?;
    make_dir(&place, 0o755)?;
    if volume.secret.is_some() || content::holds_secrets(volume) {
        mounts::tmpfs(&place, None, 0o755).map_err(failed("mount tmpfs on", &place))?;
    }
    let group = group.and_then(|g| u32::try_from(g).ok());
    atomic::write(&place, &payload, group).map_err(failed("write", &place))?;
    Ok(place)
}

fn failed<'a>(operation: &'a str, path: &'a Path) -> impl Fn(io::Error) -> String + 'a {
    move |why| format!("{operation} {}: {why}", path.display())
}

/// Upstream's folder names, which tools that look for a pod's data know.
fn plugin(volume: &Volume) -> &'static str {
    if volume.empty_dir.is_some() {
        "kubernetes.io~empty-dir"
    } else if volume.config_map.is_some() {
        "kubernetes.io~configmap"
    } else if volume.secret.is_some() {
        "kubernetes.io~secret"
    } else if volume.downward_api.is_some() {
        "kubernetes.io~downward-api"
    } else {
        "kubernetes.io~projected"
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(failed("create", path))?;
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, mode).map_err(failed("set the mode of", path))
}

/// An empty directory for a group: writable by it, and inherited.
fn own(path: &Path, group: i64) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let group = u32::try_from(group).map_err(io::Error::other)?;
    std::os::unix::fs::chown(path, None, Some(group))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o2777))
}

/// Unmounts and removes everything of a pod. Nothing there is success. Blocking.
pub fn tear_down(pod_dir: &Path) -> io::Result<()> {
    mounts::unmount_below(pod_dir)?;
    match std::fs::remove_dir_all(pod_dir) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;

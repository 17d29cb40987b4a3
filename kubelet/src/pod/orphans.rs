//! What is on the node and not in the API: sandboxes, containers, folders of pods that were
//! deleted while nobody looked. Looked for only after the API has been read completely.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::context::{Context, network_key};
use super::pods::Pods;
use super::prepare::{NETWORK_NOTE, POD_NOTE};
use super::terminate::remove_dir;
use crate::cgroup::Cgroups;
use crate::config::Config;
use crate::ports::{Network, PodRef, Runtime, RuntimeError, SandboxState};
use crate::volume;

/// Strangers get no more: their pod, and its wish for time, is gone.
const RETRY: Duration = Duration::from_secs(60);

/// Sweeps at the start and whenever a stranger is heard of.
pub async fn sweep_forever(ctx: Arc<Context>, pods: Arc<Pods>) {
    loop {
        let clean = sweep(&ctx, &|uid| pods.has(uid)).await;
        if clean {
            pods.strangers.notified().await;
        } else {
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Returns whether nothing is left of strangers. One that cannot be removed stops no other.
pub async fn sweep(ctx: &Context, known: &(dyn Fn(&str) -> bool + Send + Sync)) -> bool {
    let (sandboxes, containers) = match ctx.runtime.state().await {
        Ok(state) => state,
        Err(why) => {
            tracing::warn!("orphans not looked for: {why}");
            return false;
        }
    };
    let mut strange: BTreeMap<String, Vec<SandboxState>> = BTreeMap::new();
    for sandbox in sandboxes {
        strange.entry(sandbox.pod.uid.clone()).or_default().push(sandbox);
    }
    let in_sandboxes: BTreeSet<String> = strange.values().flatten().map(|s| s.id.clone()).collect();
    let mut clean = true;
    for container in containers {
        // A container whose sandbox has no record goes on its own.
        if !known(&container.pod.uid) && !in_sandboxes.contains(&container.sandbox_id) {
            tracing::info!(
                container = container.id,
                pod = container.pod.name,
                "removing an orphaned container"
            );
            let stopped = ctx.runtime.stop_container(&container.id, Duration::ZERO).await;
            let removed = ctx.runtime.remove_container(&container.id).await;
            clean &= stopped.is_ok() && removed.is_ok();
        }
    }
    for (_, sandboxes) in strange.into_iter().filter(|(uid, _)| !known(uid)) {
        for sandbox in sandboxes {
            tracing::info!(
                sandbox = sandbox.id,
                pod = sandbox.pod.name,
                "removing an orphaned pod"
            );
            if let Err(why) = remove_sandbox(&*ctx.runtime, &*ctx.network, &sandbox).await {
                tracing::warn!(sandbox = sandbox.id, "orphan not removed yet: {why}");
                clean = false;
            }
        }
    }
    clean & sweep_folders(ctx, known).await
}

async fn remove_sandbox(
    runtime: &dyn Runtime,
    network: &dyn Network,
    sandbox: &SandboxState,
) -> Result<(), String> {
    let text = |why: &dyn std::fmt::Display| why.to_string();
    runtime.stop_sandbox(&sandbox.id).await.map_err(|why| text(&why))?;
    let key = network_key(&sandbox.pod, sandbox.attempt);
    network.tear_down(&sandbox.pod, &key).await.map_err(|why| text(&why))?;
    runtime.remove_sandbox(&sandbox.id).await.map_err(|why| text(&why))
}

/// Everything of ours on this node, known to the API or not; returns what is left and why.
pub async fn remove_all(
    runtime: &dyn Runtime,
    network: &dyn Network,
    config: &Config,
) -> Vec<String> {
    let mut left = Vec::new();
    match runtime.state().await {
        Ok((sandboxes, containers)) => {
            let removals = sandboxes.iter().map(|s| async move {
                remove_sandbox(runtime, network, s)
                    .await
                    .map_err(|why| format!("sandbox {}: {why}", s.id))
            });
            let done = futures_util::future::join_all(removals).await;
            left.extend(done.into_iter().filter_map(Result::err));
            for container in containers {
                match runtime.remove_container(&container.id).await {
                    Ok(()) | Err(RuntimeError::NotFound { .. }) => {}
                    Err(why) => left.push(format!("container {}: {why}", container.id)),
                }
            }
        }
        Err(why) => left.push(why.to_string()),
    }
    let cgroups = Cgroups::of_host();
    let root = config.root_dir.join("pods");
    if let Ok(mut entries) = tokio::fs::read_dir(&root).await {
        while let Ok(Some(entry)) = entries.next_entry().await {
            let uid = entry.file_name().to_string_lossy().into_owned();
            let swept = sweep_folder(network, &cgroups, config, &uid, &entry.path()).await;
            left.extend(swept.err().map(|why| format!("{}: {why}", entry.path().display())));
        }
    }
    let removed = cgroups.remove(&config.cgroup_root);
    left.extend(removed.err().map(|why| why.to_string()));
    left
}

/// Folders of pods that nobody knows: their volumes, networks and cgroups.
async fn sweep_folders(ctx: &Context, known: &(dyn Fn(&str) -> bool + Send + Sync)) -> bool {
    let root = ctx.config.root_dir.join("pods");
    let Ok(mut entries) = tokio::fs::read_dir(&root).await else { return true };
    let mut clean = true;
    while let Ok(Some(entry)) = entries.next_entry().await {
        let uid = entry.file_name().to_string_lossy().into_owned();
        if known(&uid) {
            continue;
        }
        if let Err(why) =
            sweep_folder(&*ctx.network, &ctx.cgroups, &ctx.config, &uid, &entry.path()).await
        {
            tracing::warn!(folder = %entry.path().display(), "orphan not removed yet: {why}");
            clean = false;
        }
    }
    clean
}

async fn sweep_folder(
    network: &dyn Network,
    cgroups: &Cgroups,
    config: &Config,
    uid: &str,
    dir: &Path,
) -> Result<(), String> {
    let note = tokio::fs::read(dir.join(POD_NOTE)).await.unwrap_or_default();
    let note: serde_json::Value = serde_json::from_slice(&note).unwrap_or_default();
    let text = |field: &str| note[field].as_str().unwrap_or_default().to_owned();
    let pod = PodRef { namespace: text("namespace"), name: text("name"), uid: uid.to_owned() };
    if let Ok(key) = tokio::fs::read_to_string(dir.join(NETWORK_NOTE)).await {
        network.tear_down(&pod, &key).await.map_err(|why| why.to_string())?;
    }
    let (cgroups, group) = (cgroups.clone(), text("cgroup"));
    let (dir, logs) = (dir.to_path_buf(), config.pod_log_dir(&pod));
    let removed = tokio::task::spawn_blocking(move || {
        if !group.is_empty()
            && let Err(why) = cgroups.remove(&group)
        {
            tracing::warn!(group, "cgroup left behind: {why}");
        }
        remove_dir(&logs)?;
        volume::tear_down(&dir)
    });
    removed.await.map_err(|why| why.to_string())?.map_err(|why| why.to_string())
}

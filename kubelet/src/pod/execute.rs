//! Executes a plan. No choices here beyond order: what has to go goes first; then sandbox,
//! volumes and then images are made ready side by side; then containers start one after another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skiff_proto::model::Pod;

use super::context::{about_container, about_pod, find_container, host_ports, network_key};
use super::plan::{Action, Kill, KillPod};
use super::worker::{Seen, Worker};
use crate::cgroup::CgroupError;
use crate::image::ImageFailure;
use crate::objects::NotSynced;
use crate::ports::{ContainerState, Image, NetworkError, Phase, RuntimeError, SandboxConfig};
use crate::resources;
use crate::turns::Rank;
use crate::volume::VolumeError;
use crate::volume::etc;

/// What stops work on a pod for now; all of it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("read the pod's state: {0}")]
    Look(RuntimeError),
    #[error("Failed to create pod sandbox: {0}")]
    Sandbox(RuntimeError),
    #[error("Failed to create pod sandbox: {0}")]
    Network(NetworkError),
    #[error(transparent)]
    Volume(VolumeError),
    #[error(transparent)]
    Objects(NotSynced),
    #[error("{0}: {1}")]
    Cgroup(CgroupError, std::io::Error),
    #[error("{operation} {what}: {why}")]
    Files { operation: &'static str, what: String, why: std::io::Error },
    #[error("end container {name}: {why}")]
    Stop { name: String, why: RuntimeError },
    #[error("remove {what}: {why}")]
    Remove { what: String, why: RuntimeError },
}

type Prefetched = BTreeMap<String, Result<Image, ImageFailure>>;

impl Worker {
    pub async fn execute(
        &self,
        pod: &Arc<Pod>,
        seen: &Seen,
        actions: Vec<Action>,
    ) -> Result<(), Trouble> {
        let mut sandbox_attempt = None;
        let mut starts = Vec::new();
        for action in actions {
            match action {
                Action::KillPod { why } => self.execute_kill_pod(pod, seen, why).await?,
                Action::RemoveSandbox { id } => self.remove_sandbox(seen, &id).await?,
                Action::RemoveContainer { id } => self.remove_container(seen, &id).await?,
                Action::Kill { id, name, why } => self.kill(pod, &id, &name, why).await?,
                Action::CreateSandbox { attempt } => sandbox_attempt = Some(attempt),
                Action::Start { name, attempt, backoff, .. } => {
                    starts.push((name, attempt, backoff));
                }
                Action::WaitUntil(_) => {}
            }
        }
        let names: Vec<&str> = starts.iter().map(|(name, ..)| name.as_str()).collect();
        // No image is looked for, and told of, while a volume is missing.
        let prepared = async {
            self.prepare(pod, !names.is_empty() || sandbox_attempt.is_some()).await?;
            Ok(self.prefetch(pod, &names).await)
        };
        let sandbox = self.ensure_sandbox(pod, seen, sandbox_attempt);
        let (sandbox, images) = tokio::join!(sandbox, prepared);
        let Some(sandbox) = sandbox? else { return Ok(()) };
        let mut images = images?;
        for (name, attempt, backoff) in starts {
            if self.ending.is_cancelled() {
                return Ok(());
            }
            if let Some(image) = images.remove(&name) {
                self.start(pod, &sandbox, &name, attempt, backoff, image).await;
            }
        }
        Ok(())
    }

    /// Images of all containers about to start, side by side; a pod that is to go waits for none.
    async fn prefetch(&self, pod: &Pod, names: &[&str]) -> Prefetched {
        if names.is_empty() {
            return Prefetched::new();
        }
        let secrets = self.pull_secrets(pod).await;
        let each = names.iter().filter_map(|name| {
            let container = find_container(pod, name)?;
            let about = about_container(pod, container);
            let secrets = &secrets;
            Some(async move {
                let image = self.ctx.images.ensure(&about, container, secrets).await;
                (container.name.clone(), image)
            })
        });
        let all = futures_util::future::join_all(each);
        let ended = self.ending.run_until_cancelled(all).await;
        ended.unwrap_or_default().into_iter().collect()
    }

    /// The id of the sandbox that containers start in.
    async fn ensure_sandbox(
        &self,
        pod: &Pod,
        seen: &Seen,
        attempt: Option<u32>,
    ) -> Result<Option<String>, Trouble> {
        let Some(attempt) = attempt else {
            return Ok(seen.live_sandbox().map(|s| s.id.clone()));
        };
        let created = self.create_sandbox(pod, attempt).await;
        if let Err(why) = &created {
            let reason = match why {
                Trouble::Network(NetworkError::NotReady(_)) => "NetworkNotReady",
                _ => "FailedCreatePodSandBox",
            };
            self.ctx.recorder.warning(&about_pod(pod), reason, why.to_string());
        }
        created.map(Some)
    }

    async fn create_sandbox(&self, pod: &Pod, attempt: u32) -> Result<String, Trouble> {
        // Pods that have their sandbox go first: of many pods at once the first run while the last still wait.
        let _turn = self.ctx.starts.wait(Rank::Second).await;
        let cgroup_parent = self.cgroup_parent(pod);
        self.ctx
            .cgroups
            .create(&cgroup_parent, &resources::pod(&pod.spec))
            .map_err(Trouble::cgroup)?;
        let mut network_namespace = None;
        if !pod.spec.host_network {
            let key = network_key(&self.pod_ref, attempt);
            self.note_network(&key).await?;
            let made = self.ctx.network.set_up(&self.pod_ref, &key, &host_ports(pod)).await;
            let network = made.map_err(Trouble::Network)?;
            network_namespace = Some(network.namespace_path);
            let mut memory = self.memory();
            memory.pod_ips = network.ips;
            memory.network_of = Some(attempt);
        }
        let config = &self.ctx.config;
        let (hostname, _) = etc::names(pod, &config.node_name, &config.cluster_domain);
        let sysctls = pod.spec.security_context.iter().flat_map(|s| &s.sysctls);
        let config = SandboxConfig {
            pod: self.pod_ref.clone(),
            attempt,
            hostname,
            network_namespace,
            host_pid: pod.spec.host_pid,
            host_ipc: pod.spec.host_ipc,
            share_process_namespace: pod.spec.share_process_namespace.unwrap_or(false),
            cgroup_parent,
            sysctls: sysctls.map(|s| (s.name.clone(), s.value.clone())).collect(),
        };
        self.ctx.runtime.run_sandbox(&config).await.map_err(Trouble::Sandbox)
    }

    pub fn cgroup_parent(&self, pod: &Pod) -> String {
        resources::cgroup_parent(&self.ctx.config.cgroup_root, &pod.spec, &self.pod_ref.uid)
    }

    async fn execute_kill_pod(
        &self,
        pod: &Arc<Pod>,
        seen: &Seen,
        why: KillPod,
    ) -> Result<(), Trouble> {
        let recorder = &self.ctx.recorder;
        match why {
            KillPod::SandboxChanged => {
                let text = "Pod sandbox changed, it will be killed and re-created.";
                recorder.normal(&about_pod(pod), "SandboxChanged", text);
            }
            KillPod::DeadlineExceeded => {
                let text = "Pod was active on the node longer than the specified deadline";
                recorder.normal(&about_pod(pod), "DeadlineExceeded", text);
            }
            KillPod::Finished | KillPod::InitFailed => {}
        }
        let grace = pod.spec.termination_grace_period_seconds.unwrap_or(30).max(0) as u64;
        // Containers of a dead sandbox have nothing to say goodbye to.
        let alive = seen.live_sandbox().is_some();
        let grace = if alive { Duration::from_secs(grace) } else { Duration::ZERO };
        let killed = self.kill_containers(pod, seen, grace);
        if let Some(result) = self.ending.run_until_cancelled(killed).await {
            result?;
            self.stop_sandboxes(seen).await?;
        }
        Ok(())
    }

    /// Ends what is left in the pod's sandboxes, and their networks.
    pub async fn stop_sandboxes(&self, seen: &Seen) -> Result<(), Trouble> {
        for sandbox in &seen.sandboxes {
            let what = || format!("sandbox {}", sandbox.id);
            self.ctx
                .runtime
                .stop_sandbox(&sandbox.id)
                .await
                .map_err(|why| Trouble::Remove { what: what(), why })?;
            let key = network_key(&self.pod_ref, sandbox.attempt);
            self.ctx.network.tear_down(&self.pod_ref, &key).await.map_err(Trouble::Network)?;
        }
        Ok(())
    }

    async fn remove_sandbox(&self, seen: &Seen, id: &str) -> Result<(), Trouble> {
        let inside: Vec<ContainerState> =
            seen.containers.iter().filter(|c| c.sandbox_id == id).cloned().collect();
        self.remember(&inside);
        let failed = |why| Trouble::Remove { what: format!("sandbox {id}"), why };
        if let Some(sandbox) = seen.sandboxes.iter().find(|s| s.id == id) {
            let only = Seen { sandboxes: vec![sandbox.clone()], containers: Vec::new() };
            self.stop_sandboxes(&only).await?;
        }
        self.ctx.runtime.remove_sandbox(id).await.map_err(failed)
    }

    async fn remove_container(&self, seen: &Seen, id: &str) -> Result<(), Trouble> {
        let state = seen.containers.iter().find(|c| c.id == id);
        if state.is_some_and(|s| s.phase != Phase::Exited) {
            let stopped = self.ctx.runtime.stop_container(id, Duration::ZERO).await;
            if let Err(why) = stopped {
                tracing::debug!(container = id, "not stopped before its removal: {why}");
            }
        }
        match self.ctx.runtime.remove_container(id).await {
            Ok(()) | Err(RuntimeError::NotFound { .. }) => {}
            Err(why) => return Err(Trouble::Remove { what: format!("container {id}"), why }),
        }
        if let Some(log) = state.map(|s| &s.log_path) {
            // Gone already is as good.
            let _ = tokio::fs::remove_file(log).await;
        }
        Ok(())
    }

    async fn kill(&self, pod: &Arc<Pod>, id: &str, name: &str, why: Kill) -> Result<(), Trouble> {
        let Some(container) = find_container(pod, name) else { return Ok(()) };
        let restarts = pod.spec.restart_policy != "Never";
        let probe = match why {
            Kill::Liveness => container.liveness_probe.as_ref(),
            Kill::Startup => container.startup_probe.as_ref(),
            Kill::ImageChanged => None,
        };
        let grace = probe
            .and_then(|p| p.termination_grace_period_seconds)
            .or(pod.spec.termination_grace_period_seconds)
            .unwrap_or(30);
        let grace = Duration::from_secs(grace.max(0) as u64);
        let text = why.message(name, restarts);
        let ended = self.end_container(pod, container, id, &text, grace);
        self.ending.run_until_cancelled(ended).await.unwrap_or(Ok(()))
    }

    /// Says why a container does not start, and when it is tried again.
    pub fn hold_back(&self, name: &str, waiting: crate::status::Waiting, retry: Duration) {
        let mut memory = self.memory();
        memory.waiting.insert(name.to_owned(), waiting);
        memory.retries.insert(name.to_owned(), SystemTime::now() + retry);
    }
}

impl Trouble {
    fn cgroup(why: CgroupError) -> Self {
        let source = std::error::Error::source(&why).map(ToString::to_string).unwrap_or_default();
        Self::Cgroup(why, std::io::Error::other(source))
    }
}

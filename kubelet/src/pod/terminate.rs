//! The end of a pod: preStop hooks and stop signals within its grace period, sidecars last;
//! then sandbox and network, the API object, and everything on disk. Every step may be
//! repeated, and a shorter grace period asked for meanwhile counts at once.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use skiff_client::{DeleteOptions, Target};
use skiff_kit::backoff::Backoff;
use skiff_proto::model::{Container, Pod};
use skiff_proto::resource;
use tokio::sync::watch;
use tokio::time::Instant;

use super::context::{about_container, find_container};
use super::execute::Trouble;
use super::plan::{Role, role};
use super::worker::{Seen, Wish, Worker};
use crate::ports::{ContainerState, Phase, RuntimeError};

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// Upstream leaves a container this long after its preStop hook, whatever the hook took.
const AFTER_HOOK: Duration = Duration::from_secs(2);
const DEFAULT_GRACE_SECS: i64 = 30;

/// How long the pod may take from now on.
fn grace(wish: &Wish) -> Duration {
    let spec = wish.pod.spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECS);
    let seconds = wish.pod.metadata.deletion_grace_period_seconds.unwrap_or(spec);
    // Deleted by force: nobody waits for it any more.
    let seconds = if wish.removed { seconds.min(1) } else { seconds };
    Duration::from_secs(seconds.max(0) as u64)
}

impl Worker {
    /// Returns when nothing of the pod is left.
    pub async fn terminate(&self, mut wishes: watch::Receiver<Wish>) {
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        loop {
            let wish = wishes.borrow_and_update().clone();
            let ended = self.terminate_once(&wish);
            let again = tokio::select! {
                biased;
                changed = shorter(&mut wishes, grace(&wish)) => {
                    tracing::debug!(pod = %self.pod_ref.name, changed, "grace period shortened");
                    continue;
                }
                result = ended => result,
            };
            match again {
                Ok(()) => return,
                Err(why) => {
                    let wait = backoff.next();
                    tracing::warn!(pod = %self.pod_ref.name, ?wait, "not ended yet, trying again: {why}");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    async fn terminate_once(&self, wish: &Wish) -> Result<(), Trouble> {
        let pod = &wish.pod;
        let seen = self.look_quietly().await.map_err(Trouble::Look)?;
        self.prober.only_readiness();
        self.write_status(pod, &seen, SystemTime::now());
        self.kill_containers(pod, &seen, grace(wish)).await?;
        self.prober.stop();
        let seen = self.look(pod).await?;
        self.prober.stop();
        self.stop_sandboxes(&seen).await?;
        self.memory().terminated = true;
        let seen = self.look_quietly().await.map_err(Trouble::Look)?;
        self.write_status(pod, &seen, SystemTime::now());
        for sandbox in &seen.sandboxes {
            let removed = self.ctx.runtime.remove_sandbox(&sandbox.id).await;
            removed
                .map_err(|why| Trouble::Remove { what: format!("sandbox {}", sandbox.id), why })?;
        }
        self.sweep_network().await?;
        // Before the object goes: who comes in its place may be here at once, and wants the same port.
        self.ctx.admission.release(&self.pod_ref.uid);
        if !wish.removed {
            self.writer.flush().await;
            self.delete_object(pod).await;
        }
        self.clean_disk(pod).await
    }

    /// The last delete; finalizers may keep the object longer, which is not ours to wait for.
    async fn delete_object(&self, pod: &Pod) {
        let target = Target::one(&resource::PODS, &pod.metadata.namespace, &pod.metadata.name);
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        };
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        loop {
            match self.ctx.api.delete(&target, &options).await {
                Ok(_) => return,
                Err(status) if status.is_not_found() || status.is_conflict() => return,
                Err(status) => {
                    let wait = backoff.next();
                    tracing::warn!(pod = %self.pod_ref.name, ?wait, "not deleted from the API, trying again: {status}");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Ends all running containers: the pod's own side by side, then sidecars, the last first.
    pub async fn kill_containers(
        &self,
        pod: &Arc<Pod>,
        seen: &Seen,
        grace: Duration,
    ) -> Result<(), Trouble> {
        let running: Vec<&ContainerState> =
            seen.containers.iter().filter(|c| c.phase == Phase::Running).collect();
        let deadline = Instant::now() + grace;
        let (sidecars, others): (Vec<_>, Vec<_>) =
            running.into_iter().partition(|c| role(pod, &c.name) == Role::Sidecar);
        let ends = others.into_iter().map(|state| self.kill_one(pod, state, deadline));
        join_all(ends).await.into_iter().collect::<Result<(), _>>()?;
        let place = |state: &&ContainerState| {
            pod.spec.init_containers.iter().position(|c| c.name == state.name)
        };
        let mut sidecars = sidecars;
        sidecars.sort_by_key(|state| std::cmp::Reverse(place(state)));
        for state in sidecars {
            self.kill_one(pod, state, deadline).await?;
        }
        Ok(())
    }

    async fn kill_one(
        &self,
        pod: &Arc<Pod>,
        state: &ContainerState,
        deadline: Instant,
    ) -> Result<(), Trouble> {
        let left = deadline.saturating_duration_since(Instant::now());
        match find_container(pod, &state.name) {
            Some(container) => {
                let text = format!("Stopping container {}", state.name);
                self.end_container(pod, container, &state.id, &text, left).await
            }
            None => self.stop(&state.name, &state.id, left).await,
        }
    }

    /// Hook first, then the stop signal, all within `grace`.
    pub async fn end_container(
        &self,
        pod: &Pod,
        container: &Container,
        id: &str,
        message: &str,
        grace: Duration,
    ) -> Result<(), Trouble> {
        let about = about_container(pod, container);
        self.ctx.recorder.normal(&about, "Killing", message);
        let begun = Instant::now();
        let has_hook = container.lifecycle.as_ref().is_some_and(|l| l.pre_stop.is_some());
        let mut left = grace;
        let first = self.memory().hooked.insert(id.to_owned());
        if has_hook && first && !grace.is_zero() {
            self.pre_stop(pod, container, id, grace).await;
            left = grace.saturating_sub(begun.elapsed()).max(AFTER_HOOK);
        }
        self.stop(&container.name, id, left).await
    }

    async fn stop(&self, name: &str, id: &str, grace: Duration) -> Result<(), Trouble> {
        match self.ctx.runtime.stop_container(id, grace).await {
            Ok(()) | Err(RuntimeError::NotFound { .. }) => Ok(()),
            Err(why) => Err(Trouble::Stop { name: name.to_owned(), why }),
        }
    }

    /// Takes down a network that was made but never got its sandbox.
    async fn sweep_network(&self) -> Result<(), Trouble> {
        let note = self.ctx.config.pod_dir(&self.pod_ref.uid).join(super::prepare::NETWORK_NOTE);
        let Ok(key) = tokio::fs::read_to_string(note).await else { return Ok(()) };
        self.ctx.network.tear_down(&self.pod_ref, &key).await.map_err(Trouble::Network)
    }

    async fn clean_disk(&self, pod: &Pod) -> Result<(), Trouble> {
        let dirs = (
            self.ctx.config.pod_dir(&self.pod_ref.uid),
            self.ctx.config.pod_log_dir(&self.pod_ref),
        );
        let (cgroups, group) = (self.ctx.cgroups.clone(), self.cgroup_parent(pod));
        let name = self.pod_ref.name.clone();
        let cleaned = tokio::task::spawn_blocking(move || {
            if let Err(why) = cgroups.remove(&group) {
                tracing::warn!(group, "cgroup left behind: {why}");
            }
            remove_dir(&dirs.1)?;
            crate::volume::tear_down(&dirs.0)
        })
        .await;
        cleaned.map_err(std::io::Error::other).flatten().map_err(|why| Trouble::Files {
            operation: "clean up after",
            what: name,
            why,
        })
    }
}

pub fn remove_dir(path: &std::path::Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(why),
        _ => Ok(()),
    }
}

/// Returns when the pod is to end sooner than `grace` allowed.
async fn shorter(wishes: &mut watch::Receiver<Wish>, grace_now: Duration) -> bool {
    loop {
        if wishes.changed().await.is_err() {
            return std::future::pending().await;
        }
        if grace(&wishes.borrow()) < grace_now {
            return true;
        }
    }
}

//! One task a pod. It is woken by a change of the pod, of an object it refers to, of the
//! runtime, of a probe, or by a timer; it reads everything again, plans, executes, and looks
//! once more until nothing is left to do. Nothing is carried by the wake-up itself.
//!
//! ```text
//!          ┌──────────── woken ────────────┐
//!          ▼                               │
//!   look ─▶ status ─▶ plan ─▶ execute ─▶ (look)   nothing to do: sleep
//!          deleted ─▶ terminate ─▶ gone
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use skiff_kit::backoff::Backoff;
use skiff_proto::model::Pod;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::context::{
    Context, about_container, find_container, full_name, host_ports, network_key, pod_ref,
};
use super::execute::Trouble;
use super::history::{Exit, History, latest};
use super::plan::{self, Action};
use crate::ports::{ContainerState, Phase, PodRef, RuntimeError, SandboxState};
use crate::probe::prober::Prober;
use crate::status::writer::Writer;
use crate::status::{self, Waiting};
use crate::volume::Places;

/// After a failure of the runtime, the network or a volume.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// A pull that failed says so for a moment before it says that it waits.
const SHOW_FAILURE: Duration = Duration::from_secs(2);
/// Looks in a row without sleeping; a plan that never settles is a bug, not a reason to spin.
const MAX_LOOKS: usize = 64;

/// What the pod should be, from the API.
#[derive(Clone)]
pub struct Wish {
    pub pod: Arc<Pod>,
    /// It is no longer in the API.
    pub removed: bool,
}

/// What a worker learns from others.
pub struct Slot {
    pub wake: Arc<Notify>,
    pub wish: watch::Sender<Wish>,
}

/// The pod as the runtime has it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub sandboxes: Vec<SandboxState>,
    pub containers: Vec<ContainerState>,
}

impl Seen {
    pub fn live_sandbox(&self) -> Option<&SandboxState> {
        let live = self.sandboxes.iter().filter(|s| s.phase == Phase::Running);
        live.max_by_key(|s| (s.attempt, s.created_at))
    }
}

/// What a worker remembers between looks. Everything here can be lost: it is read again or
/// only shortens a wait.
#[derive(Default)]
pub struct Memory {
    pub history: History,
    pub waiting: BTreeMap<String, Waiting>,
    pub retries: BTreeMap<String, SystemTime>,
    /// Termination messages by container id.
    pub messages: BTreeMap<String, String>,
    pub pod_ips: Vec<IpAddr>,
    /// The network of this sandbox attempt has been asked for its addresses.
    pub network_of: Option<u32>,
    pub failed: Option<Waiting>,
    /// The node has decided whether it takes the pod.
    pub admitted: bool,
    pub terminated: bool,
    /// Ends for which a back-off was announced.
    pub announced: BTreeMap<String, u32>,
    /// Containers whose preStop hook has run: it runs once.
    pub hooked: BTreeSet<String>,
    pub places: Places,
    /// Versions of what the volumes were made from.
    pub volumes_of: Option<Vec<String>>,
}

pub struct Worker {
    pub ctx: Arc<Context>,
    pub slot: Arc<Slot>,
    pub pod_ref: PodRef,
    pub memory: Mutex<Memory>,
    pub writer: Writer,
    pub prober: Prober,
    /// Ends waits that make no sense once the pod is to go.
    pub ending: CancellationToken,
}

impl Worker {
    pub fn new(ctx: Arc<Context>, slot: Arc<Slot>) -> Self {
        let pod = slot.wish.borrow().pod.clone();
        let writer = Writer::start(ctx.api.clone(), &pod);
        let prober = Prober::new(ctx.clone(), slot.wake.clone());
        prober.inherit(&pod.status);
        let history = History::from_status(&pod.status, SystemTime::now());
        let pod_ips = pod.status.pod_ips.iter().filter_map(|ip| ip.ip.parse().ok()).collect();
        let memory = Mutex::new(Memory { history, pod_ips, ..Default::default() });
        let ending = CancellationToken::new();
        Self { pod_ref: pod_ref(&pod), ctx, slot, memory, writer, prober, ending }
    }

    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Works until the pod is gone, or until shutdown, which leaves its containers running.
    pub async fn run(self) {
        let ended = self.ctx.shutdown.clone();
        ended.run_until_cancelled(self.work()).await;
    }

    async fn work(&self) {
        let mut wishes = self.slot.wish.subscribe();
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        loop {
            let wish = wishes.borrow_and_update().clone();
            if wish.removed || wish.pod.metadata.deletion_timestamp.is_some() {
                self.ending.cancel();
                return self.terminate(wishes).await;
            }
            let wait = match self.sync(&wish.pod, &mut wishes).await {
                Ok(wait) => {
                    backoff.reset();
                    wait
                }
                Err(trouble) => {
                    let retry = backoff.next();
                    tracing::warn!(pod = %self.pod_ref.name, namespace = %self.pod_ref.namespace, ?retry, "{trouble}");
                    Some(SystemTime::now() + retry)
                }
            };
            tokio::select! {
                () = self.slot.wake.notified() => {}
                _ = wishes.changed() => {}
                () = sleep_until(wait) => {}
            }
        }
    }

    /// Brings the pod where it should be; returns when to look again even if nothing happens.
    async fn sync(
        &self,
        pod: &Arc<Pod>,
        wishes: &mut watch::Receiver<Wish>,
    ) -> Result<Option<SystemTime>, Trouble> {
        for _ in 0..MAX_LOOKS {
            if wishes.has_changed().unwrap_or(false) {
                return Ok(Some(SystemTime::now()));
            }
            let seen = self.look(pod).await?;
            self.admit(pod, &seen).await;
            self.refresh_volumes(pod, &seen).await?;
            let now = SystemTime::now();
            let actions = self.plan(pod, &seen, now);
            self.write_status(pod, &seen, now);
            let wait = match actions.last() {
                Some(Action::WaitUntil(at)) => Some(*at),
                _ => None,
            };
            if actions.iter().all(|action| matches!(action, Action::WaitUntil(_))) {
                self.announce_back_off(pod, &seen, now);
                return Ok(earliest(wait, self.soften_failures()));
            }
            self.execute_watching(pod, &seen, actions, wishes).await?;
        }
        tracing::error!(pod = %self.pod_ref.name, "the plan does not settle; looking again later");
        Ok(Some(SystemTime::now() + LAST_RETRY))
    }

    /// Executes, and keeps the status true meanwhile: pulls and hooks can take long.
    async fn execute_watching(
        &self,
        pod: &Arc<Pod>,
        seen: &Seen,
        actions: Vec<Action>,
        wishes: &mut watch::Receiver<Wish>,
    ) -> Result<(), Trouble> {
        let executed = self.execute(pod, seen, actions);
        tokio::pin!(executed);
        loop {
            tokio::select! {
                biased;
                result = &mut executed => return result,
                _ = wishes.changed() => {
                    // Seen again by the caller.
                    wishes.mark_changed();
                    if is_ending(&wishes.borrow()) {
                        self.ending.cancel();
                    }
                    // What runs now is finished first; the end of long waits was just asked for.
                    return executed.await;
                }
                () = self.slot.wake.notified() => {
                    if let Ok(seen) = self.look(pod).await {
                        self.write_status(pod, &seen, SystemTime::now());
                    }
                }
            }
        }
    }

    /// Reads the pod's state from the runtime, and what follows from it.
    pub async fn look(&self, pod: &Pod) -> Result<Seen, Trouble> {
        let (sandboxes, containers) =
            self.ctx.runtime.pod_state(&self.pod_ref.uid).await.map_err(Trouble::Look)?;
        let seen = Seen { sandboxes, containers };
        self.learn_addresses(pod, &seen).await;
        self.read_messages(pod, &seen).await;
        let ips = self.memory().pod_ips.clone();
        self.prober.reconcile(pod, &seen.containers, &ips);
        Ok(seen)
    }

    pub fn plan(&self, pod: &Pod, seen: &Seen, now: SystemTime) -> Vec<Action> {
        let results = self.prober.results();
        let mut memory = self.memory();
        let actions = plan::plan(&plan::Input {
            pod,
            sandboxes: &seen.sandboxes,
            containers: &seen.containers,
            history: &memory.history,
            probes: &results,
            retries: &memory.retries,
            ended: memory.failed.is_some() || is_over(&self.writer),
            begun: self.writer.last().start_time.map(|t| t.system_time()),
            now,
        });
        let deadline = Action::KillPod { why: plan::KillPod::DeadlineExceeded };
        if actions.contains(&deadline) {
            let text = "Pod was active on the node longer than the specified deadline";
            memory.failed = Some(Waiting::new("DeadlineExceeded", text));
        }
        actions
    }

    pub fn write_status(&self, pod: &Pod, seen: &Seen, now: SystemTime) {
        let results = self.prober.results();
        let previous = self.writer.last();
        let memory = self.memory();
        let host_network = [self.ctx.config.node_ip];
        let ips: &[IpAddr] = if pod.spec.host_network { &host_network } else { &memory.pod_ips };
        let status = status::pod_status(&status::Input {
            pod,
            previous: &previous,
            sandboxes: &seen.sandboxes,
            containers: &seen.containers,
            history: &memory.history,
            probes: &results,
            waiting: &memory.waiting,
            messages: &memory.messages,
            pod_ips: ips,
            host_ip: self.ctx.config.node_ip,
            failed: memory.failed.as_ref(),
            terminated: memory.terminated,
            now,
        });
        self.writer.write(status);
    }

    /// After a restart of the kubelet the addresses of a running pod are asked for once.
    async fn learn_addresses(&self, pod: &Pod, seen: &Seen) {
        let Some(sandbox) = seen.live_sandbox() else { return };
        let known = self.memory().network_of == Some(sandbox.attempt);
        if known || pod.spec.host_network || sandbox.network_namespace.is_none() {
            return;
        }
        let key = network_key(&self.pod_ref, sandbox.attempt);
        match self.ctx.network.set_up(&self.pod_ref, &key, &host_ports(pod)).await {
            Ok(network) => {
                let mut memory = self.memory();
                memory.pod_ips = network.ips;
                memory.network_of = Some(sandbox.attempt);
            }
            Err(why) => tracing::warn!(pod = %self.pod_ref.name, "addresses not learnt: {why}"),
        }
    }

    /// Reads each ended container's message once.
    async fn read_messages(&self, pod: &Pod, seen: &Seen) {
        for state in seen.containers.iter().filter(|c| c.phase == Phase::Exited) {
            if self.memory().messages.contains_key(&state.id) {
                continue;
            }
            let container = find_container(pod, &state.name);
            let policy = container.map_or("", |c| c.termination_message_policy.as_str());
            let message = super::start::termination_message(state, policy).await;
            self.memory().messages.insert(state.id.clone(), message);
        }
        let mut memory = self.memory();
        memory.messages.retain(|id, _| seen.containers.iter().any(|c| c.id == *id));
    }

    /// One event for each end that is waited out.
    fn announce_back_off(&self, pod: &Pod, seen: &Seen, now: SystemTime) {
        let mut memory = self.memory();
        for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
            let name = &container.name;
            let running = latest(&seen.containers, name).is_some_and(|c| c.phase == Phase::Running);
            let exit = plan::last_exit(&seen.containers, &memory.history, name);
            let Some(exit) = exit.filter(|_| !running) else { continue };
            let starts = plan::should_start(pod, plan::role(pod, name), Some(&exit));
            let waits = plan::not_before(&seen.containers, &exit, &container.image) > now;
            if !starts || !waits || memory.announced.get(name) == Some(&exit.attempt) {
                continue;
            }
            memory.announced.insert(name.clone(), exit.attempt);
            let text = format!(
                "Back-off restarting failed container {name} in pod {}",
                full_name(&self.pod_ref)
            );
            self.ctx.recorder.warning(&about_container(pod, container), "BackOff", text);
        }
    }

    /// `ErrImagePull` becomes `ImagePullBackOff` after a moment; returns when.
    fn soften_failures(&self) -> Option<SystemTime> {
        let now = SystemTime::now();
        let mut memory = self.memory();
        let mut soonest = None;
        let pod = self.slot.wish.borrow().pod.clone();
        let Memory { waiting, retries, .. } = &mut *memory;
        for (name, why) in waiting.iter_mut().filter(|(_, why)| why.reason == "ErrImagePull") {
            let Some(retry) = retries.get(name).filter(|retry| **retry > now) else { continue };
            let image = find_container(&pod, name).map_or("", |c| c.image.as_str());
            let text = format!("Back-off pulling image {image:?}: ErrImagePull: {}", why.message);
            *why = Waiting::new("ImagePullBackOff", text);
            soonest = earliest(soonest, Some((now + SHOW_FAILURE).min(*retry)));
        }
        soonest
    }

    /// Keeps what matters of containers whose records are about to go.
    pub fn remember(&self, containers: &[ContainerState]) {
        let mut memory = self.memory();
        for state in containers {
            let message = memory.messages.get(&state.id).cloned().unwrap_or_default();
            let exit = Exit::of(state, &message).or_else(|| killed(state));
            if let Some(exit) = exit {
                memory.history.remember(&state.name, exit);
            }
        }
    }

    /// The runtime's records, after an error only logged.
    pub async fn look_quietly(&self) -> Result<Seen, RuntimeError> {
        let (sandboxes, containers) = self.ctx.runtime.pod_state(&self.pod_ref.uid).await?;
        Ok(Seen { sandboxes, containers })
    }
}

/// A container that went together with its sandbox.
fn killed(state: &ContainerState) -> Option<Exit> {
    if state.phase == Phase::Created {
        return None;
    }
    let mut gone = state.clone();
    gone.phase = Phase::Exited;
    gone.finished_at = Some(state.finished_at.unwrap_or_else(SystemTime::now));
    Exit::of(&gone, "")
}

pub fn is_ending(wish: &Wish) -> bool {
    wish.removed || wish.pod.metadata.deletion_timestamp.is_some()
}

/// Whether the pod will never run again.
pub fn is_over(writer: &Writer) -> bool {
    matches!(writer.last().phase.as_str(), "Succeeded" | "Failed")
}

pub fn earliest(a: Option<SystemTime>, b: Option<SystemTime>) -> Option<SystemTime> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

async fn sleep_until(at: Option<SystemTime>) {
    match at {
        // A little later than asked for, so that the wait is surely over.
        Some(at) => {
            let left = at.duration_since(SystemTime::now()).unwrap_or_default();
            tokio::time::sleep(left + Duration::from_millis(1)).await;
        }
        None => std::future::pending().await,
    }
}

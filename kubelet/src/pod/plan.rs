//! What is to be done next for one pod, decided from its spec, what the runtime has, and
//! what happened before. Pure; the order of actions is the order of execution.
//!
//! Follows upstream's `computePodActions`: the sandbox first; init containers one after
//! another, sidecars (init containers that restart always) staying behind them; then all
//! containers. A look that finds nothing to do yields nothing, so looking too often is free.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use skiff_proto::model::{Container, Pod};

use super::history::{Exit, History, IMAGE_ANNOTATION, latest};
use crate::ports::{ContainerState, Phase, SandboxState};
use crate::probe::Results;

/// Dead containers kept for each name: the last one, and the one before for `--previous`.
const KEPT_CONTAINERS: usize = 2;

pub struct Input<'a> {
    pub pod: &'a Pod,
    pub sandboxes: &'a [SandboxState],
    pub containers: &'a [ContainerState],
    pub history: &'a History,
    pub probes: &'a Results,
    /// Containers whose image or configuration failed, and when to try again.
    pub retries: &'a BTreeMap<String, SystemTime>,
    /// Decided before: the pod has failed for good (deadline, eviction).
    pub ended: bool,
    /// When the kubelet took the pod up.
    pub begun: Option<SystemTime>,
    pub now: SystemTime,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ends all containers, the sandbox and its network.
    KillPod {
        why: KillPod,
    },
    /// Forgets a dead sandbox together with its containers.
    RemoveSandbox {
        id: String,
    },
    CreateSandbox {
        attempt: u32,
    },
    /// `backoff` is what the container after this one will have to wait for.
    Start {
        name: String,
        role: Role,
        attempt: u32,
        backoff: Duration,
    },
    Kill {
        id: String,
        name: String,
        why: Kill,
    },
    RemoveContainer {
        id: String,
    },
    /// Nothing more until then.
    WaitUntil(SystemTime),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Init,
    Sidecar,
    Main,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillPod {
    SandboxChanged,
    /// Everything it had to do is done, or it may not be restarted.
    Finished,
    InitFailed,
    DeadlineExceeded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    Liveness,
    Startup,
    ImageChanged,
}

impl Kill {
    /// Upstream's words in the `Killing` event.
    pub fn message(self, name: &str, restarts: bool) -> String {
        let tail = if restarts { ", will be restarted" } else { "" };
        match self {
            Self::Liveness => format!("Container {name} failed liveness probe{tail}"),
            Self::Startup => format!("Container {name} failed startup probe{tail}"),
            Self::ImageChanged => format!("Container {name} definition changed{tail}"),
        }
    }
}

pub fn role(pod: &Pod, name: &str) -> Role {
    match pod.spec.init_containers.iter().find(|c| c.name == name) {
        Some(c) if is_sidecar(c) => Role::Sidecar,
        Some(_) => Role::Init,
        None => Role::Main,
    }
}

pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy == "Always"
}

/// Whether a pod's own status says that it will never run again.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
}

/// When `activeDeadlineSeconds` is over.
pub fn deadline(pod: &Pod, begun: Option<SystemTime>) -> Option<SystemTime> {
    let seconds = u64::try_from(pod.spec.active_deadline_seconds?).ok()?;
    Some(begun? + Duration::from_secs(seconds))
}

pub fn plan(input: &Input<'_>) -> Vec<Action> {
    Planner { input, restart_policy: policy(input.pod) }.plan()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    Always,
    OnFailure,
    Never,
}

fn policy(pod: &Pod) -> Policy {
    match pod.spec.restart_policy.as_str() {
        "Never" => Policy::Never,
        "OnFailure" => Policy::OnFailure,
        _ => Policy::Always,
    }
}

/// The end of this container that counts: the runtime's newest, else what is remembered.
pub fn last_exit(containers: &[ContainerState], history: &History, name: &str) -> Option<Exit> {
    let seen = containers.iter().filter(|c| c.name == name).filter_map(|c| Exit::of(c, ""));
    let known = history.exits.get(name).cloned();
    // Of equals the remembered one wins: it may know more (a start that failed).
    seen.chain(known).max_by_key(|exit| exit.attempt)
}

/// Whether a container that is not running should run (again).
pub fn should_start(pod: &Pod, role: Role, exit: Option<&Exit>) -> bool {
    let Some(exit) = exit else { return true };
    match (role, policy(pod)) {
        (Role::Sidecar, _) => true,
        (Role::Init, Policy::Never) | (Role::Main, Policy::Never) => false,
        (Role::Init, _) | (Role::Main, Policy::OnFailure) => !exit.succeeded(),
        (Role::Main, Policy::Always) => true,
    }
}

/// When it may start: not before its back-off is over. A new image owes nothing to the old one.
pub fn not_before(containers: &[ContainerState], exit: &Exit, image: &str) -> SystemTime {
    let ended = containers.iter().find(|c| c.id == exit.id);
    let other_image =
        ended.and_then(|c| c.annotations.get(IMAGE_ANNOTATION)).is_some_and(|i| i != image);
    if other_image { exit.finished_at } else { exit.next_start() }
}

struct Planner<'a> {
    input: &'a Input<'a>,
    restart_policy: Policy,
}

impl Planner<'_> {
    fn plan(&self) -> Vec<Action> {
        let Input { pod, now, .. } = *self.input;
        if is_terminal(pod) || self.input.ended {
            return self.kill_all(KillPod::Finished);
        }
        let deadline = deadline(pod, self.input.begun);
        if deadline.is_some_and(|at| at <= now) {
            return vec![Action::KillPod { why: KillPod::DeadlineExceeded }];
        }
        let newest = self.input.sandboxes.iter().max_by_key(|s| (s.attempt, s.created_at));
        let mut actions = match newest {
            Some(sandbox) if sandbox.phase == Phase::Running => self.in_sandbox(sandbox),
            other => self.new_sandbox(other),
        };
        actions.extend(deadline.map(Action::WaitUntil));
        one_wait(actions)
    }

    /// Nothing to do once nothing runs.
    fn kill_all(&self, why: KillPod) -> Vec<Action> {
        let runs = |phase| matches!(phase, Phase::Running | Phase::Unknown | Phase::Created);
        let alive = self.input.sandboxes.iter().any(|s| runs(s.phase))
            || self.input.containers.iter().any(|c| c.phase == Phase::Running);
        if alive { vec![Action::KillPod { why }] } else { Vec::new() }
    }

    fn exit(&self, name: &str) -> Option<Exit> {
        last_exit(self.input.containers, self.input.history, name)
    }

    fn new_sandbox(&self, newest: Option<&SandboxState>) -> Vec<Action> {
        let spec = &self.input.pod.spec;
        let created_before = spec.containers.iter().any(|c| {
            self.exit(&c.name).is_some() || latest(self.input.containers, &c.name).is_some()
        });
        if self.restart_policy == Policy::Never && created_before {
            return self.kill_all(KillPod::Finished);
        }
        let mains: Vec<&Container> = spec
            .containers
            .iter()
            .filter(|c| {
                let done = self.exit(&c.name).is_some_and(|e| e.succeeded());
                !(self.restart_policy == Policy::OnFailure && done)
            })
            .collect();
        if mains.is_empty() {
            return self.kill_all(KillPod::Finished);
        }
        let mut actions = Vec::new();
        if !self.input.sandboxes.is_empty() {
            actions.push(Action::KillPod { why: KillPod::SandboxChanged });
        }
        let olds = self.input.sandboxes.iter();
        actions.extend(olds.map(|s| Action::RemoveSandbox { id: s.id.clone() }));
        actions.push(Action::CreateSandbox { attempt: newest.map_or(0, |s| s.attempt + 1) });
        match spec.init_containers.first() {
            Some(first) => actions.extend(self.start(first)),
            None => actions.extend(mains.into_iter().flat_map(|c| self.start(c))),
        }
        actions
    }

    fn in_sandbox(&self, sandbox: &SandboxState) -> Vec<Action> {
        let here: Vec<ContainerState> =
            self.input.containers.iter().filter(|c| c.sandbox_id == sandbox.id).cloned().collect();
        let olds = self.input.sandboxes.iter().filter(|s| s.id != sandbox.id);
        let mut actions: Vec<Action> =
            olds.map(|s| Action::RemoveSandbox { id: s.id.clone() }).collect();
        actions.extend(self.leftovers());
        let spec = &self.input.pod.spec;
        let initialized = spec
            .containers
            .iter()
            .any(|c| latest(&here, &c.name).is_some_and(|s| s.phase != Phase::Created));

        let mains = self.mains(&here);
        if initialized && mains.is_empty() && !self.any_main_runs(&here) {
            return self.kill_all(KillPod::Finished);
        }
        match self.init(&here, initialized) {
            Init::Failed => return vec![Action::KillPod { why: KillPod::InitFailed }],
            Init::Pending(more) => actions.extend(more),
            Init::Done(more) => {
                actions.extend(more);
                actions.extend(mains);
            }
        }
        actions
    }

    fn any_main_runs(&self, here: &[ContainerState]) -> bool {
        let mut mains = self.input.pod.spec.containers.iter();
        mains.any(|c| latest(here, &c.name).is_some_and(|s| s.phase == Phase::Running))
    }

    fn mains(&self, here: &[ContainerState]) -> Vec<Action> {
        let mut actions = Vec::new();
        for container in &self.input.pod.spec.containers {
            match latest(here, &container.name) {
                Some(state) if state.phase == Phase::Running => {
                    actions.extend(self.unhealthy(container, state));
                }
                _ if should_start(
                    self.input.pod,
                    Role::Main,
                    self.exit(&container.name).as_ref(),
                ) =>
                {
                    actions.extend(self.start(container));
                }
                _ => {}
            }
        }
        actions
    }

    /// Why a running container has to end, if it has to.
    fn unhealthy(&self, container: &Container, state: &ContainerState) -> Option<Action> {
        let image = state.annotations.get(IMAGE_ANNOTATION);
        let why = if image.is_some_and(|image| *image != container.image) {
            Kill::ImageChanged
        } else if self.input.probes.startup_failed(&state.id) {
            Kill::Startup
        } else if self.input.probes.liveness_failed(&state.id) {
            Kill::Liveness
        } else {
            return None;
        };
        Some(Action::Kill { id: state.id.clone(), name: container.name.clone(), why })
    }

    fn init(&self, here: &[ContainerState], initialized: bool) -> Init {
        let mut actions = Vec::new();
        for container in &self.input.pod.spec.init_containers {
            let state = latest(here, &container.name);
            let running = state.filter(|s| s.phase == Phase::Running);
            if is_sidecar(container) {
                match running {
                    Some(state) => actions.extend(self.unhealthy(container, state)),
                    None => actions.extend(self.start(container)),
                }
                let up = running.is_some_and(|s| self.input.probes.started(container, &s.id));
                // Later containers wait for a sidecar's start, not for its restarts.
                if !up && !initialized {
                    return Init::Pending(actions);
                }
            } else if !initialized {
                let exited = state.filter(|s| s.phase == Phase::Exited);
                match exited {
                    Some(s) if s.exit_code == Some(0) => {}
                    Some(_) if self.restart_policy == Policy::Never => return Init::Failed,
                    _ if running.is_some() => return Init::Pending(actions),
                    _ if self.never_again(container, here) => return Init::Failed,
                    _ => {
                        actions.extend(self.start(container));
                        return Init::Pending(actions);
                    }
                }
            }
        }
        Init::Done(actions)
    }

    /// An init container whose start failed left no record in the runtime, only in the history.
    fn never_again(&self, container: &Container, here: &[ContainerState]) -> bool {
        let history = self.input.history.exits.get(&container.name);
        self.restart_policy == Policy::Never
            && latest(here, &container.name).is_none()
            && history.is_some_and(|exit| exit.reason == "StartError")
    }

    fn start(&self, container: &Container) -> Option<Action> {
        let exit = self.exit(&container.name);
        let image = &container.image;
        let backoff_ends = exit.as_ref().map(|e| not_before(self.input.containers, e, image));
        let retry = self.input.retries.get(&container.name).copied();
        let wait = backoff_ends.into_iter().chain(retry).max();
        if let Some(at) = wait.filter(|at| *at > self.input.now) {
            return Some(Action::WaitUntil(at));
        }
        // A start that was cut short is done again under its own number.
        let unstarted = latest(self.input.containers, &container.name)
            .filter(|c| c.phase == Phase::Created)
            .map(|c| c.attempt);
        let attempt = unstarted.or(exit.as_ref().map(|e| e.attempt + 1)).unwrap_or(0);
        Some(Action::Start {
            name: container.name.clone(),
            role: role(self.input.pod, &container.name),
            attempt,
            backoff: exit.map_or(Duration::ZERO, |e| e.next_backoff()),
        })
    }

    /// Records that nobody needs any more: unstarted ones, and all but the newest dead.
    fn leftovers(&self) -> Vec<Action> {
        let mut by_name: BTreeMap<&str, Vec<&ContainerState>> = BTreeMap::new();
        for container in self.input.containers {
            by_name.entry(&container.name).or_default().push(container);
        }
        let mut actions = Vec::new();
        for group in by_name.values_mut() {
            group.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
            for (place, container) in group.iter().enumerate() {
                let old = place >= KEPT_CONTAINERS && container.phase != Phase::Running;
                let unusable = matches!(container.phase, Phase::Created | Phase::Unknown);
                if old || unusable {
                    actions.push(Action::RemoveContainer { id: container.id.clone() });
                }
            }
        }
        actions
    }
}

enum Init {
    Failed,
    Pending(Vec<Action>),
    Done(Vec<Action>),
}

/// The nearest of all waits, at the end.
fn one_wait(actions: Vec<Action>) -> Vec<Action> {
    let mut wait: Option<SystemTime> = None;
    let mut kept: Vec<Action> = Vec::new();
    for action in actions {
        match action {
            Action::WaitUntil(at) => wait = Some(wait.map_or(at, |w| w.min(at))),
            other => kept.push(other),
        }
    }
    kept.extend(wait.map(Action::WaitUntil));
    kept
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

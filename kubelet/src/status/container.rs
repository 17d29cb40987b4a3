//! The state of one container, and the phase of a pod that follows from all of them. Pure.

use std::time::Duration;

use skiff_proto::Timestamp;
use skiff_proto::model::{
    Container, ContainerStateRunning, ContainerStateStatus, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, PodStatus,
};

use super::{Input, Waiting};
use crate::pod::history::{Exit, latest};
use crate::pod::plan::{self, Role};
use crate::ports::{ContainerState, Phase};

pub fn status(input: &Input<'_>, container: &Container) -> ContainerStatus {
    let role = plan::role(input.pod, &container.name);
    let newest = latest(input.containers, &container.name);
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone(),
        started: Some(false),
        ..Default::default()
    };
    if let Some(state) = newest {
        status.container_id = format!("containerd://{}", state.id);
        status.image = state.image.clone();
        status.image_id = state.image_id.clone();
        status.restart_count = i32::try_from(state.attempt).unwrap_or(i32::MAX);
    }
    let exits = exits(input, &container.name);
    match newest {
        Some(state) if state.phase == Phase::Running => {
            running(input, container, role, state, &mut status);
            status.last_state = exits.first().map(terminated).unwrap_or_default();
        }
        _ => stopped(input, container, role, &exits, &mut status),
    }
    status
}

/// Ends of containers of this name, the newest first.
fn exits(input: &Input<'_>, name: &str) -> Vec<Exit> {
    let message = |c: &ContainerState| input.messages.get(&c.id).map_or("", String::as_str);
    let mut exits: Vec<Exit> = input
        .containers
        .iter()
        .filter(|c| c.name == name)
        .filter_map(|c| Exit::of(c, message(c)))
        .collect();
    if let Some(known) = input.history.exits.get(name)
        && !exits.iter().any(|e| e.attempt == known.attempt)
    {
        exits.push(known.clone());
    }
    exits.sort_by_key(|e| std::cmp::Reverse(e.attempt));
    exits
}

fn running(
    input: &Input<'_>,
    container: &Container,
    role: Role,
    state: &ContainerState,
    status: &mut ContainerStatus,
) {
    let started_at = state.started_at.unwrap_or(state.created_at);
    status.state.running =
        Some(ContainerStateRunning { started_at: Some(Timestamp::seconds(started_at)) });
    let started = input.probes.started(container, &state.id);
    status.started = Some(started);
    // An init container is ready when it is done, a sidecar like any other.
    status.ready = role != Role::Init && input.probes.ready(container, &state.id);
}

fn stopped(
    input: &Input<'_>,
    container: &Container,
    role: Role,
    exits: &[Exit],
    status: &mut ContainerStatus,
) {
    let Some(exit) = exits.first() else {
        status.state = waiting(why_waiting(input, container));
        return;
    };
    status.restart_count = i32::try_from(exit.attempt).unwrap_or(i32::MAX);
    if !exit.id.is_empty() {
        status.container_id = format!("containerd://{}", exit.id);
    }
    let ended = terminated(exit);
    let held_back = will_start(input, role, exit).then(|| restart_wait(input, container, exit));
    match held_back.flatten() {
        Some(why) => {
            status.state = waiting(why);
            status.last_state = ended;
        }
        None => {
            status.state = ended;
            status.last_state = exits.get(1).map(terminated).unwrap_or_default();
            status.ready = role == Role::Init && exit.succeeded();
        }
    }
}

fn will_start(input: &Input<'_>, role: Role, exit: &Exit) -> bool {
    let ending = input.pod.metadata.deletion_timestamp.is_some()
        || input.failed.is_some()
        || input.terminated
        || matches!(input.previous.phase.as_str(), "Succeeded" | "Failed");
    let initialized = || {
        let mut mains = input.pod.spec.containers.iter();
        mains.any(|c| latest(input.containers, &c.name).is_some())
    };
    !ending
        && plan::should_start(input.pod, role, Some(exit))
        && !(role == Role::Init && initialized())
}

/// Why an ended container has not started again. Nothing: it is about to.
fn restart_wait(input: &Input<'_>, container: &Container, exit: &Exit) -> Option<Waiting> {
    let until = plan::not_before(input.containers, exit, &container.image);
    if until > input.now {
        return Some(crash_loop(input, container, exit));
    }
    if let Some(why) = input.waiting.get(&container.name) {
        return Some(why.clone());
    }
    // Only the memory of it is left: a new sandbox is being made.
    let forgotten = !input.containers.iter().any(|c| c.id == exit.id);
    forgotten.then(|| default_waiting(input))
}

pub fn crash_loop(input: &Input<'_>, container: &Container, exit: &Exit) -> Waiting {
    let meta = &input.pod.metadata;
    Waiting::new(
        "CrashLoopBackOff",
        format!(
            "back-off {} restarting failed container={} pod={}_{}({})",
            go_duration(exit.backoff),
            container.name,
            meta.name,
            meta.namespace,
            meta.uid
        ),
    )
}

fn why_waiting(input: &Input<'_>, container: &Container) -> Waiting {
    input.waiting.get(&container.name).cloned().unwrap_or_else(|| default_waiting(input))
}

fn default_waiting(input: &Input<'_>) -> Waiting {
    let none = input.pod.spec.init_containers.is_empty();
    Waiting::new(if none { "ContainerCreating" } else { "PodInitializing" }, "")
}

fn waiting(why: Waiting) -> ContainerStateStatus {
    ContainerStateStatus {
        waiting: Some(ContainerStateWaiting { reason: why.reason, message: why.message }),
        ..Default::default()
    }
}

fn terminated(exit: &Exit) -> ContainerStateStatus {
    let id = &exit.id;
    ContainerStateStatus {
        terminated: Some(ContainerStateTerminated {
            exit_code: exit.exit_code,
            signal: exit.signal,
            reason: exit.reason.clone(),
            message: exit.message.clone(),
            started_at: exit.started_at.map(Timestamp::seconds),
            finished_at: Some(Timestamp::seconds(exit.finished_at)),
            container_id: if id.is_empty() { String::new() } else { format!("containerd://{id}") },
        }),
        ..Default::default()
    }
}

/// As Go prints whole seconds: `10s`, `1m20s`, `5m0s`.
pub fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

/// The end of a container that counts as such for the phase: also one that waits to be restarted.
fn ended(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    match &status.state {
        ContainerStateStatus { running: Some(_), .. } => None,
        ContainerStateStatus { terminated: Some(ended), .. } => Some(ended),
        _ => status.last_state.terminated.as_ref(),
    }
}

/// Upstream's `getPhase`.
pub fn phase(input: &Input<'_>, status: &PodStatus) -> &'static str {
    let spec = &input.pod.spec;
    let never = spec.restart_policy == "Never";
    let mut initializing = false;
    for (container, status) in spec.init_containers.iter().zip(&status.init_container_statuses) {
        if plan::is_sidecar(container) {
            initializing |= status.started != Some(true) && status.last_state.terminated.is_none();
            continue;
        }
        match &status.state.terminated {
            Some(ended) if ended.exit_code == 0 => {}
            Some(_) if never => return "Failed",
            _ => initializing = true,
        }
    }
    let (mut running, mut stopped, mut succeeded, mut waiting) = (0, 0, 0, 0);
    for status in &status.container_statuses {
        match ended(status) {
            _ if status.state.running.is_some() => running += 1,
            Some(ended) => {
                stopped += 1;
                succeeded += usize::from(ended.exit_code == 0);
            }
            None => waiting += 1,
        }
    }
    let restarts = spec.restart_policy.is_empty() || spec.restart_policy == "Always";
    if initializing && running == 0 && stopped == 0 || waiting > 0 {
        "Pending"
    } else if running > 0 {
        "Running"
    } else if input.terminated {
        if stopped == succeeded { "Succeeded" } else { "Failed" }
    } else if restarts {
        "Running"
    } else if stopped == succeeded {
        "Succeeded"
    } else if never {
        "Failed"
    } else {
        "Running"
    }
}

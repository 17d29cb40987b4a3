//! The conditions of a pod's status. Pure.

use skiff_proto::model::{ContainerStatus, PodStatus};
use skiff_proto::{Condition, Timestamp};

use super::Input;
use crate::pod::plan;

struct Verdict {
    status: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn yes() -> Self {
        Self { status: true, reason: "", message: String::new() }
    }

    fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: false, reason, message: message.into() }
    }
}

/// Sets the kubelet's conditions; those of others stay. `network`: sandbox and addresses are there.
pub fn update(status: &mut PodStatus, input: &Input<'_>, network: bool) {
    let ready = containers_ready(status, input);
    let verdicts = [
        ("PodReadyToStartContainers", Verdict { status: network, ..Verdict::yes() }),
        ("Initialized", initialized(status, input)),
        ("Ready", Verdict { message: ready.message.clone(), ..ready }),
        ("ContainersReady", ready),
        ("PodScheduled", Verdict::yes()),
    ];
    let mut conditions = Vec::with_capacity(verdicts.len());
    for (type_, verdict) in verdicts {
        conditions.push(condition(status, input, type_, verdict));
    }
    let ours = |c: &Condition| conditions.iter().any(|mine| mine.type_ == c.type_);
    let others: Vec<Condition> = status.conditions.iter().filter(|c| !ours(c)).cloned().collect();
    conditions.extend(others);
    status.conditions = conditions;
}

fn condition(status: &PodStatus, input: &Input<'_>, type_: &str, verdict: Verdict) -> Condition {
    let known = status.conditions.iter().find(|c| c.type_ == type_);
    let word = if verdict.status { "True" } else { "False" };
    let since = known
        .filter(|c| c.status == word)
        .and_then(|c| c.last_transition_time)
        .unwrap_or_else(|| Timestamp::seconds(input.now));
    Condition {
        type_: type_.into(),
        status: word.into(),
        reason: verdict.reason.into(),
        message: verdict.message,
        last_transition_time: Some(since),
        observed_generation: known.and_then(|c| c.observed_generation),
        ..Default::default()
    }
}

fn initialized(status: &PodStatus, input: &Input<'_>) -> Verdict {
    let done = |(container, state): &(&_, &ContainerStatus)| {
        if plan::is_sidecar(container) { state.started == Some(true) } else { state.ready }
    };
    let containers = input.pod.spec.init_containers.iter();
    let incomplete: Vec<&str> = containers
        .zip(&status.init_container_statuses)
        .filter(|pair| !done(pair))
        .map(|(c, _)| c.name.as_str())
        .collect();
    let begun = status
        .container_statuses
        .iter()
        .any(|c| c.state.running.is_some() || c.started == Some(true));
    if status.phase == "Succeeded" {
        return Verdict { status: true, reason: "PodCompleted", message: String::new() };
    }
    if incomplete.is_empty() || begun {
        return Verdict::yes();
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    Verdict::no("ContainersNotInitialized", message)
}

fn containers_ready(status: &PodStatus, input: &Input<'_>) -> Verdict {
    match status.phase.as_str() {
        "Succeeded" => return Verdict::no("PodCompleted", ""),
        "Failed" => return Verdict::no("PodFailed", ""),
        _ => {}
    }
    let sidecars = input
        .pod
        .spec
        .init_containers
        .iter()
        .zip(&status.init_container_statuses)
        .filter(|(container, _)| plan::is_sidecar(container))
        .map(|(_, state)| state);
    let unready: Vec<&str> = sidecars
        .chain(&status.container_statuses)
        .filter(|c| !c.ready)
        .map(|c| c.name.as_str())
        .collect();
    if unready.is_empty() {
        return Verdict::yes();
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    Verdict::no("ContainersNotReady", message)
}

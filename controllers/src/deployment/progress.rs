//! Whether a rollout moves, is done, or has stalled, in upstream's reasons and words. Pure.

use std::time::Duration;

use skiff_proto::model::DeploymentStatus;
use skiff_proto::{Condition, Timestamp};

use super::plan::Rollout;
use crate::conditions;

const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// A Deployment's condition carries the time of its last update, too.
pub fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Condition {
    Condition {
        last_update_time: Some(now),
        ..conditions::condition(type_, status, reason, message, now)
    }
}

fn now(rollout: &Rollout<'_>) -> Timestamp {
    Timestamp::seconds(rollout.now)
}

fn deadline_seconds(rollout: &Rollout<'_>) -> Option<u64> {
    let seconds = rollout.deployment.value.spec.progress_deadline_seconds;
    seconds.filter(|s| *s != i32::MAX).and_then(|s| u64::try_from(s).ok())
}

fn set_progressing(rollout: &mut Rollout<'_>, status: &str, reason: &str, message: &str) {
    let condition = condition(PROGRESSING, status, reason, message, now(rollout));
    conditions::set(&mut rollout.status.conditions, condition);
}

/// A paused rollout does not run into its deadline; one that resumes starts over.
pub fn note_pause(rollout: &mut Rollout<'_>) {
    if deadline_seconds(rollout).is_none() {
        return;
    }
    let reason =
        conditions::find(&rollout.status.conditions, PROGRESSING).map(|c| c.reason.clone());
    if reason.as_deref() == Some(TIMED_OUT) {
        return;
    }
    let was_paused = reason.as_deref() == Some(PAUSED);
    let paused = rollout.deployment.value.spec.paused;
    if paused && !was_paused {
        set_progressing(rollout, "Unknown", PAUSED, "Deployment is paused");
    } else if !paused && was_paused {
        set_progressing(rollout, "Unknown", "DeploymentResumed", "Deployment is resumed");
    }
}

/// There is a set for the template already.
pub fn note_found(rollout: &mut Rollout<'_>) {
    let unknown = conditions::find(&rollout.status.conditions, PROGRESSING).is_none();
    if let (true, Some(_), Some(new)) = (unknown, deadline_seconds(rollout), &rollout.new) {
        let message = format!("Found new replica set {:?}", new.name);
        set_progressing(rollout, "True", "FoundNewReplicaSet", &message);
    }
}

pub fn note_created(rollout: &mut Rollout<'_>) {
    if let (Some(_), Some(new)) = (deadline_seconds(rollout), &rollout.new) {
        let message = format!("Created new replica set {:?}", new.name);
        set_progressing(rollout, "True", "NewReplicaSetCreated", &message);
    }
}

/// The status after the server refused to create the new set.
pub fn creation_failed(
    mut status: DeploymentStatus,
    name: &str,
    why: &str,
    now: Timestamp,
) -> DeploymentStatus {
    let message = format!("Failed to create new replica set {name:?}: {why}");
    let failed = condition(PROGRESSING, "False", "ReplicaSetCreateError", &message, now);
    conditions::set(&mut status.conditions, failed);
    status
}

pub fn is_complete(rollout: &Rollout<'_>, status: &DeploymentStatus) -> bool {
    let replicas = rollout.sizes.replicas;
    status.updated_replicas == replicas
        && status.replicas == replicas
        && status.available_replicas == replicas
        && status.observed_generation >= rollout.deployment.object.index.metadata.generation
}

fn is_progressing(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    new.updated_replicas > old.updated_replicas
        || new.replicas - new.updated_replicas < old.replicas - old.updated_replicas
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
}

/// The time left until the rollout counts as stalled.
fn left(rollout: &Rollout<'_>, status: &DeploymentStatus) -> Option<Duration> {
    let condition = conditions::find(&status.conditions, PROGRESSING)?;
    if condition.reason == AVAILABLE || condition.reason == TIMED_OUT {
        return None;
    }
    let limit = Duration::from_secs(deadline_seconds(rollout)?);
    let since = condition.last_update_time.or(condition.last_transition_time)?;
    Some(limit.saturating_sub(since.elapsed_at(rollout.now)))
}

/// When to look again whether the deadline has passed; a second late, as times are whole seconds.
pub fn deadline(rollout: &Rollout<'_>) -> Option<Duration> {
    if rollout.deployment.value.spec.paused {
        return None;
    }
    Some(left(rollout, &rollout.status)? + Duration::from_secs(1))
}

/// Counts, and tells how the rollout goes.
pub fn conclude(rollout: &mut Rollout<'_>) {
    let mut status = rollout.counted();
    if deadline_seconds(rollout).is_none() {
        conditions::remove(&mut status.conditions, PROGRESSING);
    } else {
        judge(rollout, &mut status);
    }
    match replica_failure(rollout) {
        Some(failure) => conditions::set(&mut status.conditions, failure),
        None => conditions::remove(&mut status.conditions, REPLICA_FAILURE),
    }
    rollout.status = status;
}

fn judge(rollout: &Rollout<'_>, status: &mut DeploymentStatus) {
    let current = conditions::find(&status.conditions, PROGRESSING).cloned();
    let was_complete = status.replicas == status.updated_replicas
        && current.as_ref().is_some_and(|c| c.reason == AVAILABLE);
    if was_complete {
        return;
    }
    let subject = match &rollout.new {
        Some(new) => format!("ReplicaSet {:?}", new.name),
        None => format!("Deployment {:?}", rollout.deployment.object.name()),
    };
    let now = now(rollout);
    if is_complete(rollout, status) {
        let message = format!("{subject} has successfully progressed.");
        let done = condition(PROGRESSING, "True", AVAILABLE, &message, now);
        conditions::set(&mut status.conditions, done);
    } else if is_progressing(&rollout.deployment.value.status, status) {
        let message = format!("{subject} is progressing.");
        let mut moving = condition(PROGRESSING, "True", "ReplicaSetUpdated", &message, now);
        if let Some(current) = current.filter(|c| c.status == "True") {
            moving.last_transition_time = current.last_transition_time;
        }
        // Replaced even if only the time of its update changes: the deadline counts from there.
        conditions::remove(&mut status.conditions, PROGRESSING);
        status.conditions.push(moving);
    } else if is_timed_out(rollout, status) {
        let message = format!("{subject} has timed out progressing.");
        let stalled = condition(PROGRESSING, "False", TIMED_OUT, &message, now);
        conditions::set(&mut status.conditions, stalled);
    }
}

fn is_timed_out(rollout: &Rollout<'_>, status: &DeploymentStatus) -> bool {
    let known = conditions::find(&status.conditions, PROGRESSING);
    known.is_some_and(|c| c.reason == TIMED_OUT)
        || left(rollout, status).is_some_and(|left| left.is_zero())
}

/// A set that cannot make its pods says so in its status: the new one first.
fn replica_failure(rollout: &Rollout<'_>) -> Option<Condition> {
    let sets = rollout.new.iter().chain(&rollout.old);
    let failure = sets
        .filter_map(|set| conditions::find(&set.status.conditions, REPLICA_FAILURE))
        .find(|c| c.status == "True")?;
    Some(condition(
        REPLICA_FAILURE,
        &failure.status,
        &failure.reason,
        &failure.message,
        now(rollout),
    ))
}

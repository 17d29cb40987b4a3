//! What to do for one Deployment. Pure: the observed state in, exact actions out.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use skiff_client::cache::Entry;
use skiff_proto::model::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet};
use skiff_proto::{Selector, Timestamp};

use super::set::{self, DESIRED_REPLICAS, REVISION, Set};
use super::sizes::{Sizes, is_recreate};
use super::{progress, rolling, template};
use crate::conditions;
use crate::ownership::{Claim, Owner};

pub struct Observed<'a> {
    pub deployment: &'a Entry<Deployment>,
    pub selector: &'a Selector,
    /// ReplicaSets that name this Deployment as their controller, and those without any.
    pub candidates: Vec<Entry<ReplicaSet>>,
    /// Uids of sets with a pod that has not ended; only asked for when recreating.
    pub running_sets: Vec<String>,
    pub now: SystemTime,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Names of ReplicaSets.
    Adopt(String),
    Release(String),
    CreateSet {
        name: String,
        replicas: i32,
        object: Value,
    },
    UpdateSet(SetUpdate),
    DeleteSet(String),
    /// The Deployment's own revision annotation.
    SetRevision(String),
    Warn {
        reason: &'static str,
        message: &'static str,
    },
    UpdateStatus(DeploymentStatus),
}

#[derive(Debug, Clone, PartialEq)]
pub struct SetUpdate {
    pub name: String,
    pub from: i32,
    pub to: i32,
    pub min_ready_seconds: Option<i32>,
    /// Those that change.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// When the progress deadline runs out.
    pub recheck: Option<Duration>,
}

/// The working state of one plan.
pub struct Rollout<'a> {
    pub deployment: &'a Entry<Deployment>,
    pub sizes: Sizes,
    /// All but the new one, oldest first.
    pub old: Vec<Set>,
    /// The set with the Deployment's template.
    pub new: Option<Set>,
    /// The Deployment's conditions, as far as this plan has changed them.
    pub status: DeploymentStatus,
    pub removed: Vec<String>,
    pub revision: Option<String>,
    pub now: SystemTime,
}

pub fn plan(observed: Observed<'_>) -> Plan {
    let Observed { deployment, selector, candidates, running_sets, now } = observed;
    if selector.is_empty() {
        return selecting_all(deployment);
    }
    let terminating = deployment.object.is_terminating();
    let owner = Owner { uid: deployment.object.uid(), selector, terminating };
    let (mut actions, mut sets) = (Vec::new(), Vec::new());
    for set in candidates {
        let name = set.object.name().to_owned();
        match owner.claim(&set.object) {
            Claim::Owned => sets.push(set),
            Claim::Adopt => {
                actions.push(Action::Adopt(name));
                sets.push(set);
            }
            Claim::Release => actions.push(Action::Release(name)),
            Claim::Foreign => {}
        }
    }
    let mut rollout = Rollout::new(deployment, sets, now);
    let recheck = rollout.run(&running_sets);
    actions.extend(rollout.actions());
    Plan { actions, recheck }
}

/// A Deployment without a selector would take over every ReplicaSet of its namespace.
fn selecting_all(deployment: &Entry<Deployment>) -> Plan {
    let message = "This deployment is selecting all pods. A non-empty selector is required.";
    let mut actions = vec![Action::Warn { reason: "SelectingAll", message }];
    let mut status = deployment.value.status.clone();
    status.observed_generation = deployment.object.index.metadata.generation;
    if status != deployment.value.status {
        actions.push(Action::UpdateStatus(status));
    }
    Plan { actions, recheck: None }
}

impl<'a> Rollout<'a> {
    pub fn new(
        deployment: &'a Entry<Deployment>,
        sets: Vec<Entry<ReplicaSet>>,
        now: SystemTime,
    ) -> Self {
        let wanted = &deployment.value.spec.template;
        let mut sets: Vec<(bool, Set)> = sets
            .iter()
            .map(|entry| {
                let same = template::equal_but_hash(&entry.value.spec.template, wanted);
                (same, Set::observed(entry))
            })
            .collect();
        sets.sort_by(|(_, a), (_, b)| (a.created, &a.name).cmp(&(b.created, &b.name)));
        // Should two sets have the template, the older one is the new set, for everybody.
        let new_at = sets.iter().position(|(same, _)| *same);
        let new = new_at.map(|at| sets.remove(at).1);
        Self {
            deployment,
            sizes: Sizes::of(&deployment.value.spec),
            old: sets.into_iter().map(|(_, set)| set).collect(),
            new,
            status: deployment.value.status.clone(),
            removed: Vec::new(),
            revision: None,
            now,
        }
    }

    fn spec(&self) -> &'a DeploymentSpec {
        &self.deployment.value.spec
    }

    fn run(&mut self, running_sets: &[String]) -> Option<Duration> {
        if self.deployment.object.is_terminating() {
            self.sync_revision(false);
            self.status = self.counted();
            return None;
        }
        progress::note_pause(self);
        if self.spec().paused || self.is_scaling() {
            self.sync_revision(false);
            rolling::scale(self);
            if self.spec().paused {
                self.clean_up();
            }
            self.status = self.counted();
            return progress::deadline(self);
        }
        if is_recreate(self.spec()) {
            self.recreate(running_sets);
        } else {
            self.roll();
        }
        progress::conclude(self);
        progress::deadline(self)
    }

    /// Whether somebody changed `replicas` since the sets were last sized.
    fn is_scaling(&self) -> bool {
        let wanted = i64::from(self.sizes.replicas);
        let active = self.old.iter().chain(&self.new).filter(|set| set.replicas > 0);
        active.filter_map(|set| set.number(DESIRED_REPLICAS)).any(|desired| desired != wanted)
    }

    /// Finds or makes the new set, and gives it the highest revision.
    pub fn sync_revision(&mut self, create: bool) {
        let revision = self.old.iter().map(Set::revision).max().unwrap_or(0) + 1;
        if let Some(new) = &mut self.new {
            new.annotate(self.deployment, revision);
            new.min_ready_seconds = self.deployment.value.spec.min_ready_seconds;
            self.revision = new.annotations.get(REVISION).cloned();
            progress::note_found(self);
        } else if create {
            let mut new = Set::new(self.deployment);
            new.annotate(self.deployment, revision);
            let size = rolling::new_size(self, 0);
            new.scale(size, &self.sizes);
            self.revision = Some(revision.to_string());
            self.new = Some(new);
            progress::note_created(self);
        }
    }

    fn roll(&mut self) {
        self.sync_revision(true);
        if rolling::resize_new(self) || rolling::shrink_old(self) {
            return;
        }
        self.clean_up_if_complete();
    }

    fn recreate(&mut self, running_sets: &[String]) {
        self.sync_revision(false);
        if set::replicas(&self.old) > 0 {
            for old in self.old.iter_mut().filter(|set| set.replicas > 0) {
                old.scale(0, &self.sizes);
            }
            return;
        }
        let new_uid = self.new.as_ref().map(|set| set.uid.as_str());
        let old_runs = self.old.iter().any(|set| set.status.replicas > 0)
            || running_sets.iter().any(|uid| Some(uid.as_str()) != new_uid);
        if old_runs {
            return;
        }
        if self.new.is_none() {
            self.sync_revision(true);
        }
        rolling::resize_new(self);
        self.clean_up_if_complete();
    }

    fn clean_up_if_complete(&mut self) {
        if progress::is_complete(self, &self.deployment.value.status) {
            self.clean_up();
        }
    }

    /// Removes the oldest sets beyond the history limit that are long empty.
    fn clean_up(&mut self) {
        let limit = match self.spec().revision_history_limit {
            None | Some(i32::MAX) => return,
            Some(limit) => usize::try_from(limit).unwrap_or(0),
        };
        let mut cleanable: Vec<&Set> = self.old.iter().filter(|set| !set.terminating).collect();
        cleanable.sort_by_key(|set| set.revision());
        let surplus = cleanable.len().saturating_sub(limit);
        let empty = |set: &&&Set| {
            set.status.replicas == 0
                && set.replicas == 0
                && set.generation <= set.status.observed_generation
        };
        let removed = cleanable.iter().take(surplus).filter(empty).map(|set| set.name.clone());
        self.removed = removed.collect();
    }

    /// The status that the sets' own statuses add up to.
    pub fn counted(&self) -> DeploymentStatus {
        let sum = |count: fn(&Set) -> i32| self.old.iter().chain(&self.new).map(count).sum::<i32>();
        let available = sum(|set| set.status.available_replicas);
        let mut status = DeploymentStatus {
            observed_generation: self.deployment.object.index.metadata.generation,
            replicas: sum(|set| set.status.replicas),
            updated_replicas: self.new.as_ref().map_or(0, |set| set.status.replicas),
            ready_replicas: sum(|set| set.status.ready_replicas),
            available_replicas: available,
            unavailable_replicas: (sum(|set| set.replicas) - available).max(0),
            conditions: self.status.conditions.clone(),
            collision_count: self.status.collision_count,
        };
        let condition = if available >= self.sizes.min_available() {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            (
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.",
            )
        };
        let (state, reason, message) = condition;
        let now = Timestamp::seconds(self.now);
        let condition = progress::condition("Available", state, reason, message, now);
        conditions::set(&mut status.conditions, condition);
        status
    }

    fn actions(self) -> Vec<Action> {
        let mut actions: Vec<Action> = Vec::new();
        let observed = &self.deployment.value;
        actions.extend(self.new.and_then(Set::action));
        actions.extend(self.old.into_iter().filter_map(Set::action));
        actions.extend(self.removed.into_iter().map(Action::DeleteSet));
        let known = observed.metadata.annotations.get(REVISION);
        if let Some(revision) = self.revision.filter(|revision| known != Some(revision)) {
            actions.push(Action::SetRevision(revision));
        }
        if self.status != observed.status {
            actions.push(Action::UpdateStatus(self.status));
        }
        actions
    }
}

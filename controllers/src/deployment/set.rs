//! A ReplicaSet as a rollout plan sees and changes it. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::{Value, json};
use skiff_client::cache::Entry;
use skiff_proto::Timestamp;
use skiff_proto::model::{Deployment, ReplicaSet, ReplicaSetStatus};

use super::plan::{Action, SetUpdate};
use super::sizes::Sizes;
use super::template;
use crate::ownership::controller_reference;

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that its ReplicaSets do not take over.
const OWN_ANNOTATIONS: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];
/// Upstream's limit on the revision-history annotation.
const HISTORY_MAX_CHARS: usize = 2000;

#[derive(Debug, Clone)]
pub struct Set {
    pub name: String,
    pub uid: String,
    pub created: Option<Timestamp>,
    pub terminating: bool,
    pub generation: i64,
    pub status: ReplicaSetStatus,
    pub replicas: i32,
    pub min_ready_seconds: i32,
    pub annotations: BTreeMap<String, String>,
    /// Replicas, minReadySeconds and annotations as observed; `None`: to be created.
    before: Option<(i32, i32, BTreeMap<String, String>)>,
    object: Value,
}

impl Set {
    pub fn observed(entry: &Entry<ReplicaSet>) -> Self {
        let value = &*entry.value;
        let replicas = value.spec.replicas.unwrap_or(1);
        let annotations = value.metadata.annotations.clone();
        Self {
            name: entry.object.name().to_owned(),
            uid: entry.object.uid().to_owned(),
            created: entry.object.index.metadata.creation_timestamp,
            terminating: entry.object.is_terminating(),
            generation: entry.object.index.metadata.generation,
            status: value.status.clone(),
            replicas,
            min_ready_seconds: value.spec.min_ready_seconds,
            before: Some((replicas, value.spec.min_ready_seconds, annotations.clone())),
            annotations,
            object: Value::Null,
        }
    }

    /// The set for the Deployment's present template, with no replicas yet.
    pub fn new(deployment: &Entry<Deployment>) -> Self {
        let spec = &deployment.value.spec;
        let hash = template::hash(&spec.template, deployment.value.status.collision_count);
        let name = format!("{}-{hash}", deployment.object.name());
        let mut template = spec.template.clone();
        template["metadata"]["labels"][template::HASH_LABEL] = Value::from(&*hash);
        if let Some(metadata) = template["metadata"].as_object_mut() {
            metadata.retain(|_, value| !value.is_null());
        }
        let mut selector = spec.selector.clone();
        selector.match_labels.insert(template::HASH_LABEL.into(), hash);
        let object = json!({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": name,
                "namespace": deployment.object.namespace(),
                "labels": template["metadata"]["labels"],
                "ownerReferences": [controller_reference(&deployment.object)],
            },
            "spec": {"selector": selector, "template": template},
        });
        Self {
            name,
            uid: String::new(),
            created: None,
            terminating: false,
            generation: 0,
            status: ReplicaSetStatus::default(),
            replicas: 0,
            min_ready_seconds: spec.min_ready_seconds,
            annotations: BTreeMap::new(),
            before: None,
            object,
        }
    }

    pub fn revision(&self) -> i64 {
        self.number(REVISION).unwrap_or(0)
    }

    pub fn number(&self, annotation: &str) -> Option<i64> {
        self.annotations.get(annotation)?.parse().ok()
    }

    /// Sets the size and, since the next scaling in proportion starts from them, the
    /// Deployment's sizes at this time.
    pub fn scale(&mut self, to: i32, sizes: &Sizes) {
        self.replicas = to.max(0);
        self.annotations.insert(DESIRED_REPLICAS.into(), sizes.replicas.to_string());
        self.annotations.insert(MAX_REPLICAS.into(), sizes.max_total().to_string());
    }

    /// Takes over the Deployment's annotations and the revision, remembering earlier ones.
    pub fn annotate(&mut self, deployment: &Entry<Deployment>, revision: i64) {
        for (key, value) in &deployment.value.metadata.annotations {
            if !OWN_ANNOTATIONS.contains(&key.as_str()) {
                self.annotations.insert(key.clone(), value.clone());
            }
        }
        let old = self.annotations.get(REVISION).cloned();
        if self.revision() >= revision {
            return;
        }
        self.annotations.insert(REVISION.into(), revision.to_string());
        if let Some(old) = old {
            let history = self.annotations.entry(REVISION_HISTORY.into()).or_default();
            *history = history_with(history, &old);
        }
    }

    /// What has to be written for the changes made here.
    pub fn action(self) -> Option<Action> {
        let Some((replicas, min_ready_seconds, annotations)) = self.before else {
            let mut object = self.object;
            object["metadata"]["annotations"] = json!(self.annotations);
            object["spec"]["replicas"] = self.replicas.into();
            if self.min_ready_seconds != 0 {
                object["spec"]["minReadySeconds"] = self.min_ready_seconds.into();
            }
            return Some(Action::CreateSet { name: self.name, replicas: self.replicas, object });
        };
        let changed: BTreeMap<String, String> = self
            .annotations
            .into_iter()
            .filter(|(key, value)| annotations.get(key) != Some(value))
            .collect();
        let update = SetUpdate {
            name: self.name,
            from: replicas,
            to: self.replicas,
            min_ready_seconds: (self.min_ready_seconds != min_ready_seconds)
                .then_some(self.min_ready_seconds),
            annotations: changed,
        };
        let idle = update.from == update.to
            && update.annotations.is_empty()
            && update.min_ready_seconds.is_none();
        (!idle).then_some(Action::UpdateSet(update))
    }
}

/// Appends to a comma-separated list; the oldest fall out when it grows too long.
fn history_with(history: &str, revision: &str) -> String {
    let mut all: Vec<&str> = history.split(',').filter(|r| !r.is_empty()).collect();
    all.push(revision);
    while all.iter().map(|r| r.len() + 1).sum::<usize>() > HISTORY_MAX_CHARS {
        all.remove(0);
    }
    all.join(",")
}

pub fn replicas(sets: &[Set]) -> i32 {
    sets.iter().map(|set| set.replicas).sum()
}

/// Those to be created are newest.
fn age_key(set: &Set) -> (bool, Option<Timestamp>, &str) {
    (set.created.is_none(), set.created, &set.name)
}

/// Larger first; among equals the newer first if `newer_first`, else the older.
pub fn order_by_size(sets: &[&Set], newer_first: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sets.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (sets[a], sets[b]);
        let size = Reverse(a.replicas).cmp(&Reverse(b.replicas));
        let age = age_key(a).cmp(&age_key(b));
        size.then(if newer_first { age.reverse() } else { age })
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::entry;

    fn deployment() -> Entry<Deployment> {
        entry(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "shop", "uid": "d", "annotations": {
                "team": "red", REVISION: "9", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {
                "replicas": 2, "minReadySeconds": 5,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}, "creationTimestamp": null},
                    "spec": {"containers": [{"name": "c", "x-unknown": 1}]}}
            }
        }))
    }

    #[test]
    fn a_new_set_is_labelled_owned_and_complete() {
        let deployment = deployment();
        let hash = template::hash(&deployment.value.spec.template, None);
        let mut set = Set::new(&deployment);
        set.annotate(&deployment, 1);
        set.scale(2, &Sizes { replicas: 2, max_surge: 1, max_unavailable: 0 });
        let name = format!("web-{hash}");
        let labels = json!({"app": "web", "pod-template-hash": hash});
        let object = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": name, "namespace": "shop", "labels": labels,
                "annotations": {"team": "red", REVISION: "1", DESIRED_REPLICAS: "2", MAX_REPLICAS: "3"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d",
                    "controller": true, "blockOwnerDeletion": true}]
            },
            "spec": {
                "replicas": 2, "minReadySeconds": 5, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "x-unknown": 1}]}}
            }
        });
        assert_eq!(set.action(), Some(Action::CreateSet { name, replicas: 2, object }));
    }

    #[test]
    fn a_set_that_returns_remembers_its_revisions() {
        let mut set = Set::observed(&entry(json!({
            "metadata": {"name": "web-1", "annotations": {REVISION: "2", REVISION_HISTORY: "1", "team": "red"}},
            "spec": {"replicas": 1, "minReadySeconds": 5}
        })));
        set.annotate(&deployment(), 4);
        let annotations = [(REVISION, "4"), (REVISION_HISTORY, "1,2")];
        let expected = SetUpdate {
            name: "web-1".into(),
            from: 1,
            to: 1,
            min_ready_seconds: None,
            annotations: annotations.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        };
        assert_eq!(set.action(), Some(Action::UpdateSet(expected)));
    }

    #[test]
    fn an_unchanged_set_needs_nothing() {
        let set =
            Set::observed(&entry(json!({"metadata": {"name": "web-1"}, "spec": {"replicas": 1}})));
        assert_eq!(set.action(), None);
    }
}

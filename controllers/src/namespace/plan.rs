//! How far the removal of a namespace has come, in upstream's conditions, and whether it
//! is done. Pure.

use std::collections::BTreeMap;
use std::time::SystemTime;

use skiff_proto::model::{Namespace, NamespaceStatus};
use skiff_proto::{Condition, Timestamp};

use crate::conditions;

/// The finalizer in `spec.finalizers` that this controller stands for.
pub const FINALIZER: &str = "kubernetes";

/// What a pass over the namespace's contents found.
#[derive(Debug, Default)]
pub struct Contents {
    /// By `pods.` or `deployments.apps`: how many are left.
    pub remaining: BTreeMap<String, usize>,
    /// Objects that wait for a finalizer.
    pub finalizers: BTreeMap<String, usize>,
    /// Requests that failed.
    pub failures: Vec<String>,
    pub discovery_failure: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    UpdateStatus(NamespaceStatus),
    /// Take the finalizer away: the server then removes the namespace.
    Finalize,
}

pub fn plan(namespace: &Namespace, contents: &Contents, now: SystemTime) -> Vec<Action> {
    let mut status = namespace.status.clone();
    status.phase = "Terminating".into();
    for condition in conditions(contents, Timestamp::seconds(now)) {
        let known = conditions::find(&status.conditions, &condition.type_);
        // What is left may change in words alone, and the words are what people read.
        let told = known.is_some_and(|k| {
            k.status == condition.status
                && k.reason == condition.reason
                && k.message == condition.message
        });
        if !told {
            let mut condition = condition;
            if let Some(known) = known.filter(|k| k.status == condition.status) {
                condition.last_transition_time = known.last_transition_time;
            }
            conditions::remove(&mut status.conditions, &condition.type_);
            status.conditions.push(condition);
        }
    }
    let done = contents.remaining.is_empty()
        && contents.failures.is_empty()
        && contents.discovery_failure.is_none();
    if done {
        return vec![Action::Finalize];
    }
    status.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    if status == namespace.status { vec![] } else { vec![Action::UpdateStatus(status)] }
}

fn conditions(contents: &Contents, now: Timestamp) -> Vec<Condition> {
    let condition =
        |type_: &str, bad: Option<(&str, String)>, reason: &str, message: &str| match bad {
            Some((reason, message)) => conditions::condition(type_, "True", reason, &message, now),
            None => conditions::condition(type_, "False", reason, message, now),
        };
    let joined = |counts: &BTreeMap<String, usize>, words: &str| {
        let each = counts.iter().map(|(what, n)| format!("{what} {words} {n} resource instances"));
        each.collect::<Vec<_>>().join(", ")
    };
    let failed = (!contents.failures.is_empty()).then(|| {
        format!(
            "Failed to delete all resource types, {} remaining: {}",
            contents.failures.len(),
            contents.failures.join(", ")
        )
    });
    let remaining = (!contents.remaining.is_empty())
        .then(|| format!("Some resources are remaining: {}", joined(&contents.remaining, "has")));
    let finalizing = (!contents.finalizers.is_empty()).then(|| {
        format!(
            "Some content in the namespace has finalizers remaining: {}",
            joined(&contents.finalizers, "in")
        )
    });
    vec![
        condition(
            "NamespaceDeletionDiscoveryFailure",
            contents.discovery_failure.clone().map(|m| ("DiscoveryFailed", m)),
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        condition(
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        condition(
            "NamespaceDeletionContentFailure",
            failed.map(|m| ("ContentDeletionFailed", m)),
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        condition(
            "NamespaceContentRemaining",
            remaining.map(|m| ("SomeResourcesRemain", m)),
            "ContentRemoved",
            "All content successfully removed",
        ),
        condition(
            "NamespaceFinalizersRemaining",
            finalizing.map(|m| ("SomeFinalizersRemain", m)),
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(pods: usize, finalizers: usize) -> Contents {
        let some = |what: &str, n: usize| {
            if n == 0 { BTreeMap::new() } else { BTreeMap::from([(what.to_owned(), n)]) }
        };
        Contents {
            remaining: some("pods.", pods),
            finalizers: some("example.com/keep", finalizers),
            ..Contents::default()
        }
    }

    #[test]
    fn an_empty_namespace_is_finalized() {
        let now = SystemTime::UNIX_EPOCH;
        assert_eq!(plan(&Namespace::default(), &Contents::default(), now), [Action::Finalize]);
    }

    #[test]
    fn what_is_left_is_told_in_upstreams_words() {
        let now = SystemTime::UNIX_EPOCH;
        let mut namespace = Namespace::default();
        let actions = plan(&namespace, &contents(2, 1), now);
        let [Action::UpdateStatus(status)] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(status.phase, "Terminating");
        let told: Vec<(&str, &str, &str)> =
            status.conditions.iter().map(|c| (&*c.type_, &*c.status, &*c.message)).collect();
        assert_eq!(
            told,
            [
                (
                    "NamespaceContentRemaining",
                    "True",
                    "Some resources are remaining: pods. has 2 resource instances"
                ),
                (
                    "NamespaceDeletionContentFailure",
                    "False",
                    "All content successfully deleted, may be waiting on finalization"
                ),
                (
                    "NamespaceDeletionDiscoveryFailure",
                    "False",
                    "All resources successfully discovered"
                ),
                (
                    "NamespaceDeletionGroupVersionParsingFailure",
                    "False",
                    "All legacy kube types successfully parsed"
                ),
                (
                    "NamespaceFinalizersRemaining",
                    "True",
                    "Some content in the namespace has finalizers remaining: example.com/keep in 1 resource instances"
                ),
            ]
        );
        namespace.status = status.clone();
        assert_eq!(plan(&namespace, &contents(2, 1), now), [], "nothing new to tell");
        assert!(matches!(plan(&namespace, &contents(1, 1), now)[..], [Action::UpdateStatus(_)]));
    }

    #[test]
    fn failures_keep_the_namespace() {
        let failing = Contents { failures: vec!["pods.: denied".into()], ..Contents::default() };
        let actions = plan(&Namespace::default(), &failing, SystemTime::UNIX_EPOCH);
        assert!(matches!(actions[..], [Action::UpdateStatus(_)]));
    }
}

//! What to do for one ReplicaSet: claim pods, make or remove some, report. Pure.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use skiff_client::cache::Entry;
use skiff_proto::model::{ReplicaSet, ReplicaSetStatus};
use skiff_proto::{ObjectKey, Selector};

use super::{rank, status};
use crate::caches::pod::{Pod, is_active};
use crate::ownership::{Claim, Owner, controller_reference};

/// Pods made or removed in one pass; the next pass brings the rest. Upstream's BurstReplicas.
pub const BURST_PODS: usize = 500;

pub struct Observed<'a> {
    pub set: &'a Entry<ReplicaSet>,
    pub selector: &'a Selector,
    /// Pods that name this set as their controller, and those without any.
    pub candidates: Vec<Pod>,
    /// Whether the cache shows all that was made and removed before.
    pub settled: bool,
    pub now: SystemTime,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Adopt(ObjectKey),
    Release(ObjectKey),
    /// Make that many pods.
    Create(usize),
    Delete(Vec<ObjectKey>),
}

#[derive(Debug)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub status: ReplicaSetStatus,
    /// When a ready pod becomes available by the mere passing of time.
    pub recheck: Option<Duration>,
}

/// `related` are the pods of all sets with the same controller: it is asked for only when
/// pods have to be chosen for removal.
pub fn plan(observed: Observed<'_>, related: impl FnOnce() -> Vec<Pod>) -> Plan {
    let Observed { set, selector, candidates, settled, now } = observed;
    let terminating = set.object.is_terminating();
    let owner = Owner { uid: set.object.uid(), selector, terminating };
    let (mut actions, mut pods) = (Vec::new(), Vec::new());
    for pod in candidates {
        match owner.claim(&pod.object) {
            Claim::Owned => {}
            Claim::Adopt if is_active(&pod) => actions.push(Action::Adopt(pod.object.key())),
            Claim::Release => {
                actions.push(Action::Release(pod.object.key()));
                continue;
            }
            Claim::Adopt | Claim::Foreign => continue,
        }
        if is_active(&pod) {
            pods.push(pod);
        }
    }
    let status = status::observed(set, &pods, now);
    let recheck = status::next_availability(set, &pods, now);
    if settled && !terminating {
        actions.extend(scale(set, pods, now, related));
    }
    Plan { actions, status, recheck }
}

fn scale(
    set: &Entry<ReplicaSet>,
    pods: Vec<Pod>,
    now: SystemTime,
    related: impl FnOnce() -> Vec<Pod>,
) -> Option<Action> {
    let wanted = usize::try_from(set.value.spec.replicas.unwrap_or(1)).unwrap_or(0);
    if pods.len() < wanted {
        return Some(Action::Create((wanted - pods.len()).min(BURST_PODS)));
    }
    let surplus = (pods.len() - wanted).min(BURST_PODS);
    if surplus == 0 {
        return None;
    }
    // When all go, their order does not matter.
    let chosen = if surplus < pods.len() {
        rank::first_to_go(pods, &related(), now).into_iter().take(surplus).collect()
    } else {
        pods
    };
    Some(Action::Delete(chosen.iter().map(|pod| pod.object.key()).collect()))
}

/// A new pod of the set's template.
pub fn new_pod(set: &Entry<ReplicaSet>) -> Value {
    let template = &set.value.spec.template;
    let mut metadata = json!({
        "generateName": format!("{}-", set.object.name()),
        "namespace": set.object.namespace(),
        "ownerReferences": [controller_reference(&set.object)],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(field).filter(|v| !v.is_null()) {
            metadata[field] = value.clone();
        }
    }
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": template["spec"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{entry, pod};

    fn set(replicas: i32, extra: Value) -> Entry<ReplicaSet> {
        let mut json = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": "web", "namespace": "shop", "uid": "rs", "generation": 3},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}, "creationTimestamp": null},
                    "spec": {"containers": [{"name": "c", "image": "i", "x-unknown": {"kept": true}}]}
                }
            }
        });
        if let (Some(meta), Some(extra)) = (json["metadata"].as_object_mut(), extra.as_object()) {
            meta.extend(extra.clone());
        }
        entry(json)
    }

    fn member(name: &str, owner: Option<&str>, app: &str, phase: &str) -> Pod {
        let mut json = json!({
            "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"app": app}},
            "spec": {"nodeName": "n"},
            "status": {"phase": phase}
        });
        if let Some(uid) = owner {
            json["metadata"]["ownerReferences"] = json!([{"uid": uid, "controller": true}]);
        }
        pod(json)
    }

    fn actions(set: &Entry<ReplicaSet>, candidates: Vec<Pod>, settled: bool) -> Vec<Action> {
        let selector = set.value.spec.selector.compile().expect("compiles");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_704_067_200);
        let observed = Observed { set, selector: &selector, candidates, settled, now };
        plan(observed, Vec::new).actions
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    #[test]
    fn makes_what_is_missing_in_bursts() {
        assert_eq!(actions(&set(3, json!({})), vec![], true), [Action::Create(3)]);
        assert_eq!(actions(&set(1200, json!({})), vec![], true), [Action::Create(500)]);
        let two = vec![
            member("a", Some("rs"), "web", "Running"),
            member("b", Some("rs"), "web", "Pending"),
        ];
        assert_eq!(actions(&set(3, json!({})), two.clone(), true), [Action::Create(1)]);
        assert_eq!(actions(&set(2, json!({})), two, true), []);
    }

    #[test]
    fn an_unsettled_cache_makes_and_removes_nothing() {
        assert_eq!(actions(&set(3, json!({})), vec![], false), []);
        let one = vec![member("a", Some("rs"), "web", "Running")];
        assert_eq!(actions(&set(0, json!({})), one, false), []);
    }

    #[test]
    fn finished_and_leaving_pods_are_replaced() {
        let mut leaving = member("gone", Some("rs"), "web", "Running");
        let mut object = (*leaving.object).clone();
        object.index.metadata.deletion_timestamp = skiff_proto::Timestamp::from_unix(1);
        leaving.object = object.into();
        let pods = vec![
            leaving,
            member("failed", Some("rs"), "web", "Failed"),
            member("done", Some("rs"), "web", "Succeeded"),
        ];
        assert_eq!(actions(&set(1, json!({})), pods, true), [Action::Create(1)]);
    }

    #[test]
    fn claims_come_first_and_count() {
        let pods = vec![
            member("orphan", None, "web", "Running"),
            member("relabelled", Some("rs"), "debug", "Running"),
            member("foreign", Some("other"), "web", "Running"),
            member("stranger", None, "db", "Running"),
        ];
        assert_eq!(
            actions(&set(2, json!({})), pods, true),
            [Action::Adopt(key("orphan")), Action::Release(key("relabelled")), Action::Create(1)]
        );
    }

    #[test]
    fn the_least_useful_pod_goes() {
        let pods = vec![
            member("a-running", Some("rs"), "web", "Running"),
            member("b-pending", Some("rs"), "web", "Pending"),
        ];
        assert_eq!(
            actions(&set(1, json!({})), pods.clone(), true),
            [Action::Delete(vec![key("b-pending")])]
        );
        assert_eq!(
            actions(&set(0, json!({})), pods, true),
            [Action::Delete(vec![key("a-running"), key("b-pending")])]
        );
    }

    #[test]
    fn a_set_that_goes_away_makes_nothing() {
        let going = set(3, json!({"deletionTimestamp": "2024-01-01T00:00:00Z"}));
        assert_eq!(actions(&going, vec![member("o", None, "web", "Running")], true), []);
    }

    #[test]
    fn a_new_pod_keeps_every_field_of_the_template() {
        assert_eq!(
            new_pod(&set(1, json!({}))),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "generateName": "web-", "namespace": "shop", "labels": {"app": "web"},
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web",
                        "uid": "rs", "controller": true, "blockOwnerDeletion": true}]
                },
                "spec": {"containers": [{"name": "c", "image": "i", "x-unknown": {"kept": true}}]}
            })
        );
    }
}

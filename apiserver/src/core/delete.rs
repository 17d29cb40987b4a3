//! Deleting: at once, after a grace period, or once the finalizers are done.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use skiff_client::{DeleteOptions, Deleted, Propagation};
use skiff_proto::resource::NAMESPACES;
use skiff_proto::{Status, Timestamp};

use super::service::Claims;
use super::stored::{Next, Place, Seen};
use super::update::wrong_uid;
use super::{Core, meta};
use crate::registry::Kind;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// Namespaces that the cluster cannot be without.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

impl Core {
    pub(super) async fn delete(
        &self,
        place: Place<'_>,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        if place.kind.resource == NAMESPACES && IMMORTAL.contains(&place.name) {
            let why = "this namespace may not be deleted";
            return Err(Status::forbidden(&NAMESPACES, place.name, why));
        }
        let changed = self.change(place, options.dry_run, |seen| {
            check_preconditions(place, options, seen)?;
            Ok(match plan(place.kind, &seen.value, options, SystemTime::now()) {
                Plan::Remove => Next::Remove,
                Plan::Keep => Next::Keep,
                Plan::Mark(value) => Next::Put(value, Claims::default()),
            })
        });
        let changed = changed.await?;
        Ok(if changed.gone {
            Deleted::Gone(changed.object)
        } else {
            Deleted::Terminating(changed.object)
        })
    }
}

fn check_preconditions(
    place: Place<'_>,
    options: &DeleteOptions,
    seen: &Seen,
) -> Result<(), Status> {
    let (uid, version) = (seen.entry.object.uid(), seen.entry.object.resource_version());
    if !options.uid.is_empty() && options.uid != uid {
        return Err(wrong_uid(place.kind, place.name, &options.uid, uid));
    }
    if !options.resource_version.is_empty() && options.resource_version != version {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {}, ResourceVersion in object meta: {version}",
            options.resource_version
        );
        return Err(Status::conflict(&place.kind.resource, place.name, &why));
    }
    Ok(())
}

#[derive(Debug, PartialEq)]
pub enum Plan {
    Remove,
    /// It is on its way already, and this request changes nothing about that.
    Keep,
    Mark(Value),
}

/// What a delete does to the object, by upstream's `BeforeDelete`.
pub fn plan(kind: &Kind, old: &Value, options: &DeleteOptions, now: SystemTime) -> Plan {
    let mut new = old.clone();
    set_finalizers(&mut new, options.propagation);
    let grace = kind.strategy.deletion_grace_seconds(old, options.grace_period_seconds);
    let grace = grace.unwrap_or(0).max(0);
    let held = !meta::finalizers(&new).is_empty()
        || kind.resource == NAMESPACES && meta::spec_finalizers(&new);
    if grace == 0 && !held {
        return Plan::Remove;
    }
    if meta::has(old, "deletionTimestamp") {
        let before = meta::number(old, "deletionGracePeriodSeconds").unwrap_or(0);
        // A later request can only shorten the wait, and only if it says how long.
        if options.grace_period_seconds.is_some() && grace < before {
            mark(&mut new, grace, shorten(old, before, grace, now));
        }
    } else {
        mark(&mut new, grace, now + Duration::from_secs(grace.unsigned_abs()));
        if let Some(generation) = meta::number(old, "generation").filter(|g| *g > 0) {
            meta::set(&mut new, "generation", generation + 1);
        }
        if kind.resource == NAMESPACES {
            new["status"]["phase"] = "Terminating".into();
        }
    }
    if new == *old { Plan::Keep } else { Plan::Mark(new) }
}

fn mark(object: &mut Value, grace: i64, at: SystemTime) {
    meta::set(object, "deletionTimestamp", Timestamp::seconds(at).to_string());
    meta::set(object, "deletionGracePeriodSeconds", grace);
}

/// The new end: counted from when the first request came, but not in the past.
fn shorten(old: &Value, before: i64, grace: i64, now: SystemTime) -> SystemTime {
    let end = Timestamp::parse(meta::text(old, "deletionTimestamp"));
    let asked = end.map(|end| end.unix() - before + grace).and_then(Timestamp::from_unix);
    asked.map_or(now, |at| at.system_time()).max(now)
}

/// Puts down who deals with the dependents. Nobody asked: as the object says already.
fn set_finalizers(object: &mut Value, propagation: Propagation) {
    let add = match propagation {
        Propagation::Default => return,
        Propagation::Background => None,
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Orphan => Some(ORPHAN),
    };
    let before = meta::finalizers(object);
    let kept = before.iter().filter(|f| Some(**f) == add || ![FOREGROUND, ORPHAN].contains(f));
    let mut after: Vec<String> = kept.map(|f| (*f).to_owned()).collect();
    after.extend(add.filter(|add| !before.contains(add)).map(str::to_owned));
    if after.is_empty() {
        meta::remove(object, "finalizers");
    } else {
        meta::set(object, "finalizers", after);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use skiff_proto::resource::{CONFIG_MAPS, PODS};

    use super::*;
    use crate::registry;

    fn kind(resource: &skiff_proto::Resource) -> &'static Kind {
        registry::find(&resource.group, &resource.version, &resource.plural).expect("served")
    }

    fn noon() -> SystemTime {
        Timestamp::parse("2024-05-01T12:00:00Z").expect("a time").system_time()
    }

    fn pod(metadata: Value) -> Value {
        json!({"metadata": metadata, "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 30},
               "status": {"phase": "Running"}})
    }

    fn metadata(plan: Plan) -> Value {
        match plan {
            Plan::Mark(mut value) => value["metadata"].take(),
            other => panic!("not marked: {other:?}"),
        }
    }

    fn grace(seconds: i64) -> DeleteOptions {
        DeleteOptions { grace_period_seconds: Some(seconds), ..DeleteOptions::default() }
    }

    #[test]
    fn a_running_pod_gets_its_grace_period() {
        let options = DeleteOptions::default();
        let marked =
            plan(kind(&PODS), &pod(json!({"name": "web", "generation": 1})), &options, noon());
        assert_eq!(
            metadata(marked),
            json!({"name": "web", "generation": 2,
            "deletionGracePeriodSeconds": 30, "deletionTimestamp": "2024-05-01T12:00:30Z"})
        );
    }

    #[test]
    fn grace_zero_removes_at_once() {
        assert_eq!(
            plan(kind(&PODS), &pod(json!({"name": "web"})), &grace(0), noon()),
            Plan::Remove
        );
    }

    #[test]
    fn a_pod_without_a_node_goes_at_once() {
        let pod = json!({"metadata": {"name": "web"}, "spec": {"terminationGracePeriodSeconds": 30},
                         "status": {"phase": "Pending"}});
        assert_eq!(plan(kind(&PODS), &pod, &DeleteOptions::default(), noon()), Plan::Remove);
    }

    #[test]
    fn a_second_request_only_shortens() {
        let marked = pod(json!({"name": "web", "deletionGracePeriodSeconds": 30,
                                "deletionTimestamp": "2024-05-01T12:00:20Z"}));
        let again = |options| plan(kind(&PODS), &marked, &options, noon());
        assert_eq!(again(DeleteOptions::default()), Plan::Keep);
        assert_eq!(again(grace(60)), Plan::Keep);
        assert_eq!(metadata(again(grace(20)))["deletionTimestamp"], "2024-05-01T12:00:10Z");
        // What would lie in the past is now.
        assert_eq!(metadata(again(grace(5)))["deletionTimestamp"], "2024-05-01T12:00:00Z");
    }

    #[test]
    fn finalizers_hold_it_back() {
        let held = json!({"metadata": {"name": "c", "finalizers": ["a.example/x"]}});
        let marked = plan(kind(&CONFIG_MAPS), &held, &DeleteOptions::default(), noon());
        assert_eq!(
            metadata(marked),
            json!({"name": "c", "finalizers": ["a.example/x"],
            "deletionGracePeriodSeconds": 0, "deletionTimestamp": "2024-05-01T12:00:00Z"})
        );
    }

    #[test]
    fn propagation_becomes_a_finalizer() {
        let plain = json!({"metadata": {"name": "c"}});
        let with = |propagation| {
            let options = DeleteOptions { propagation, ..DeleteOptions::default() };
            plan(kind(&CONFIG_MAPS), &plain, &options, noon())
        };
        assert_eq!(with(Propagation::Background), Plan::Remove);
        assert_eq!(
            metadata(with(Propagation::Foreground))["finalizers"],
            json!(["foregroundDeletion"])
        );
        assert_eq!(metadata(with(Propagation::Orphan))["finalizers"], json!(["orphan"]));
    }

    #[test]
    fn a_namespace_becomes_terminating() {
        let namespace = json!({"metadata": {"name": "x"}, "spec": {"finalizers": ["kubernetes"]},
                               "status": {"phase": "Active"}});
        let Plan::Mark(marked) =
            plan(kind(&NAMESPACES), &namespace, &DeleteOptions::default(), noon())
        else {
            panic!("must wait for its finalizers");
        };
        assert_eq!(marked["status"]["phase"], "Terminating");
        assert_eq!(plan(kind(&NAMESPACES), &marked, &DeleteOptions::default(), noon()), Plan::Keep);
    }
}

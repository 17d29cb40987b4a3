//! Rollouts from the first step to the last, against a small model of ReplicaSets: every
//! step's actions, the pods there are at most, and the pods that serve at least.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Value, json};
use skiff_client::cache::Entry;
use skiff_proto::model::{Deployment, ReplicaSet};
use skiff_proto::{Condition, Timestamp};

use super::plan::{Action, Observed, Plan, plan};
use crate::conditions;
use crate::testing::entry;

/// A Deployment and its sets, as the server and the pods would have them.
struct World {
    deployment: Value,
    /// By the order of their creation.
    sets: Vec<Value>,
    /// Images whose pods never become available.
    broken: Vec<&'static str>,
    seconds: i64,
    log: Vec<String>,
}

impl World {
    fn new(replicas: i32, strategy: Value) -> Self {
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "shop", "uid": "d", "generation": 1},
            "spec": {
                "replicas": replicas, "strategy": strategy, "revisionHistoryLimit": 10,
                "progressDeadlineSeconds": 600,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"image": "v1"}]}}
            }
        });
        Self { deployment, sets: vec![], broken: vec![], seconds: 1_704_067_200, log: vec![] }
    }

    fn rolling(replicas: i32, surge: Value, unavailable: Value) -> Self {
        let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
        let mut world =
            Self::new(replicas, json!({"type": "RollingUpdate", "rollingUpdate": rolling}));
        world.settle();
        world.log.clear();
        world
    }

    fn edit(&mut self, edit: impl FnOnce(&mut Value)) {
        edit(&mut self.deployment["spec"]);
        let generation = self.deployment["metadata"]["generation"].as_i64().unwrap_or(0);
        self.deployment["metadata"]["generation"] = (generation + 1).into();
    }

    fn set_image(&mut self, image: &str) {
        self.edit(|spec| spec["template"]["spec"]["containers"][0]["image"] = image.into());
    }

    fn now(&self) -> SystemTime {
        Timestamp::from_unix(self.seconds).expect("valid").system_time()
    }

    fn entries(&self) -> (Entry<Deployment>, Vec<Entry<ReplicaSet>>) {
        (entry(self.deployment.clone()), self.sets.iter().cloned().map(entry).collect())
    }

    /// Plans and applies; the actions in words.
    fn step(&mut self) -> Vec<String> {
        let (deployment, candidates) = self.entries();
        let running = |set: &&Value| set["status"]["replicas"].as_i64().unwrap_or(0) > 0;
        let uid = |set: &Value| set["metadata"]["uid"].as_str().unwrap_or("").to_owned();
        let running_sets = self.sets.iter().filter(running).map(uid).collect();
        let selector = deployment.value.spec.selector.compile().expect("compiles");
        let now = self.now();
        let observed = Observed {
            deployment: &deployment,
            selector: &selector,
            candidates,
            running_sets,
            now,
        };
        let Plan { actions, .. } = plan(observed);
        let words: Vec<String> =
            actions.into_iter().filter_map(|action| self.apply(action)).collect();
        self.log.extend(words.iter().cloned());
        words
    }

    fn apply(&mut self, action: Action) -> Option<String> {
        match action {
            Action::CreateSet { replicas, mut object, .. } => {
                let number = self.sets.len() + 1;
                object["metadata"]["uid"] = format!("rs{number}").into();
                let created = Timestamp::from_unix(self.seconds + number as i64).expect("valid");
                object["metadata"]["creationTimestamp"] = created.to_string().into();
                let words = format!("create {} of {replicas}", image(&object));
                self.sets.push(object);
                Some(words)
            }
            Action::UpdateSet(update) => {
                let set = self.sets.iter_mut().find(|s| s["metadata"]["name"] == *update.name)?;
                set["spec"]["replicas"] = update.to.into();
                for (key, value) in update.annotations {
                    set["metadata"]["annotations"][key] = value.into();
                }
                (update.from != update.to)
                    .then(|| format!("{} {} -> {}", image(set), update.from, update.to))
            }
            Action::DeleteSet(name) => {
                let at = self.sets.iter().position(|s| s["metadata"]["name"] == *name)?;
                Some(format!("delete {}", image(&self.sets.remove(at))))
            }
            Action::SetRevision(revision) => {
                self.deployment["metadata"]["annotations"][super::set::REVISION] = revision.into();
                None
            }
            Action::UpdateStatus(status) => {
                self.deployment["status"] = json!(status);
                None
            }
            other => Some(format!("{other:?}")),
        }
    }

    /// One pod at a time moves towards what its set wants: made or removed first, then
    /// available. False when nothing moved.
    fn pods_move(&mut self) -> bool {
        for set in &mut self.sets {
            let wanted = set["spec"]["replicas"].as_i64().unwrap_or(0);
            let there = set["status"]["replicas"].as_i64().unwrap_or(0);
            let up = set["status"]["availableReplicas"].as_i64().unwrap_or(0);
            if there != wanted {
                // Those that do not serve go first.
                set["status"] = json!({"replicas": wanted, "readyReplicas": up.min(wanted), "availableReplicas": up.min(wanted)});
                return true;
            }
            if up < there && !self.broken.contains(&image(set).as_str()) {
                set["status"] = json!({"replicas": there, "readyReplicas": up + 1, "availableReplicas": up + 1});
                return true;
            }
        }
        false
    }

    fn wanted(&self) -> i64 {
        self.sets.iter().map(|s| s["spec"]["replicas"].as_i64().unwrap_or(0)).sum()
    }

    fn available(&self) -> i64 {
        self.sets.iter().map(|s| s["status"]["availableReplicas"].as_i64().unwrap_or(0)).sum()
    }

    /// Runs until nothing moves any more; the extremes of pods wanted and available.
    fn settle(&mut self) -> (i64, i64) {
        let (mut most, mut least) = (self.wanted(), i64::MAX);
        for _ in 0..500 {
            let acted = !self.step().is_empty();
            most = most.max(self.wanted());
            let moved = self.pods_move();
            least = least.min(self.available());
            self.seconds += 1;
            if !acted && !moved {
                self.step();
                return (most, least);
            }
        }
        panic!("does not settle: {:?}", self.log);
    }

    fn condition(&self, type_: &str) -> Condition {
        let (deployment, _) = self.entries();
        conditions::find(&deployment.value.status.conditions, type_).expect(type_).clone()
    }

    fn replicas_by_image(&self) -> BTreeMap<String, i64> {
        let size = |s: &Value| (image(s), s["spec"]["replicas"].as_i64().unwrap_or(0));
        self.sets.iter().map(size).collect()
    }

    fn annotation(&self, img: &str, key: &str) -> String {
        let set = self.sets.iter().find(|s| image(s) == img).expect("a set of the image");
        set["metadata"]["annotations"][key].as_str().unwrap_or("").to_owned()
    }
}

fn image(set: &Value) -> String {
    set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or("").to_owned()
}

#[test]
fn the_first_rollout_in_exact_steps() {
    let mut world = World::new(3, json!({"type": "RollingUpdate"}));
    assert_eq!(world.step(), ["create v1 of 3"]);
    let created = world.condition("Progressing");
    assert_eq!((&*created.status, &*created.reason), ("True", "NewReplicaSetCreated"));
    let available = world.condition("Available");
    assert_eq!((&*available.status, &*available.reason), ("False", "MinimumReplicasUnavailable"));
    world.settle();
    assert_eq!(world.log, ["create v1 of 3"]);
    let name = world.sets[0]["metadata"]["name"].as_str().expect("a name").to_owned();
    let done = world.condition("Progressing");
    assert_eq!(done.reason, "NewReplicaSetAvailable");
    assert_eq!(done.message, format!("ReplicaSet \"{name}\" has successfully progressed."));
    let available = world.condition("Available");
    assert_eq!(available.message, "Deployment has minimum availability.");
    let mut status = world.deployment["status"].clone();
    status["conditions"] = Value::Null;
    assert_eq!(
        status,
        json!({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3,
            "availableReplicas": 3, "conditions": null})
    );
    assert_eq!(world.deployment["metadata"]["annotations"][super::set::REVISION], "1");
    assert_eq!(world.step(), Vec::<String>::new(), "nothing more to do");
}

#[test]
fn rolling_updates_step_by_step() {
    for (replicas, surge, unavailable, expected) in [
        (
            3,
            json!("25%"),
            json!("25%"),
            vec!["create v2 of 1", "v1 3 -> 2", "v2 1 -> 2", "v1 2 -> 1", "v2 2 -> 3", "v1 1 -> 0"],
        ),
        (
            3,
            json!(0),
            json!(1),
            vec![
                "create v2 of 0",
                "v1 3 -> 2",
                "v2 0 -> 1",
                "v1 2 -> 1",
                "v2 1 -> 2",
                "v1 1 -> 0",
                "v2 2 -> 3",
            ],
        ),
        (3, json!(3), json!(0), vec!["create v2 of 3", "v1 3 -> 2", "v1 2 -> 1", "v1 1 -> 0"]),
        (1, json!("25%"), json!("25%"), vec!["create v2 of 1", "v1 1 -> 0"]),
        (2, json!(1), json!(1), vec!["create v2 of 1", "v1 2 -> 1", "v2 1 -> 2", "v1 1 -> 0"]),
    ] {
        let mut world = World::rolling(replicas, surge.clone(), unavailable.clone());
        world.set_image("v2");
        world.settle();
        assert_eq!(
            world.log, expected,
            "{replicas} replicas, surge {surge}, unavailable {unavailable}"
        );
    }
}

#[test]
fn no_rollout_leaves_its_bounds() {
    for replicas in [1, 2, 3, 5, 10] {
        for surge in [json!(0), json!(1), json!("25%"), json!("100%")] {
            for unavailable in [json!(0), json!(1), json!("25%"), json!("50%")] {
                if surge == json!(0) && unavailable == json!(0) {
                    continue;
                }
                let mut world = World::rolling(replicas, surge.clone(), unavailable.clone());
                world.set_image("v2");
                let (deployment, _) = world.entries();
                let sizes = super::sizes::Sizes::of(&deployment.value.spec);
                let (most, least) = world.settle();
                let what = format!("{replicas} surge {surge} unavailable {unavailable}");
                assert!(
                    most <= i64::from(sizes.max_total()),
                    "{what}: {most} pods, {:?}",
                    world.log
                );
                assert!(
                    least >= i64::from(sizes.min_available()),
                    "{what}: {least} left, {:?}",
                    world.log
                );
                let expected = [("v1".to_owned(), 0), ("v2".to_owned(), i64::from(replicas))];
                assert_eq!(world.replicas_by_image(), expected.into(), "{what}");
            }
        }
    }
}

#[test]
fn a_broken_image_never_takes_availability_below_the_floor() {
    for (replicas, surge, unavailable, floor) in [
        (4, json!(1), json!(1), 3),
        (3, json!("25%"), json!("25%"), 3),
        (10, json!(0), json!("20%"), 8),
    ] {
        let mut world = World::rolling(replicas, surge, unavailable);
        world.broken = vec!["v2"];
        world.set_image("v2");
        let (_, least) = world.settle();
        assert_eq!(least, floor, "{:?}", world.log);
        world.seconds += 601;
        world.step();
        let stalled = world.condition("Progressing");
        assert_eq!((&*stalled.status, &*stalled.reason), ("False", "ProgressDeadlineExceeded"));
        // The next image replaces what does not serve before what does.
        world.set_image("v3");
        let (_, least) = world.settle();
        assert!(least >= floor, "{:?}", world.log);
        assert_eq!(world.replicas_by_image()["v3"], i64::from(replicas));
        assert_eq!(world.condition("Progressing").reason, "NewReplicaSetAvailable");
    }
}

#[test]
fn recreate_waits_for_all_old_pods_to_end() {
    let mut world = World::new(3, json!({"type": "Recreate"}));
    world.settle();
    world.log.clear();
    world.set_image("v2");
    assert_eq!(world.step(), ["v1 3 -> 0"]);
    assert_eq!(world.step(), Vec::<String>::new(), "the old pods still run");
    world.settle();
    assert_eq!(world.log, ["v1 3 -> 0", "create v2 of 3"]);
}

#[test]
fn scaling_in_the_midst_of_a_rollout_is_shared_in_proportion() {
    let mut world = World::rolling(10, json!(3), json!(2));
    world.broken = vec!["v2"];
    world.set_image("v2");
    world.settle();
    assert_eq!(world.replicas_by_image(), [("v1".to_owned(), 8), ("v2".to_owned(), 5)].into());
    world.log.clear();
    // The worked example of the Kubernetes documentation: 10 to 15 gives 3 and 2 more.
    world.edit(|spec| spec["replicas"] = 15.into());
    assert_eq!(world.step(), ["v2 5 -> 7", "v1 8 -> 11"]);
    world.edit(|spec| spec["replicas"] = 10.into());
    assert_eq!(world.step(), ["v2 7 -> 5", "v1 11 -> 8"]);
    world.edit(|spec| spec["replicas"] = 0.into());
    assert_eq!(world.step(), ["v2 5 -> 0", "v1 8 -> 0"]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::rolling(3, json!(1), json!(0));
    world.edit(|spec| spec["paused"] = true.into());
    world.set_image("v2");
    assert_eq!(world.step(), Vec::<String>::new());
    assert_eq!(world.condition("Progressing").reason, "DeploymentPaused");
    world.edit(|spec| spec["replicas"] = 5.into());
    assert_eq!(world.step(), ["v1 3 -> 5"]);
    world.settle();
    world.log.clear();
    world.edit(|spec| spec["paused"] = false.into());
    assert_eq!(world.step(), ["create v2 of 1"]);
    world.settle();
    assert_eq!(world.replicas_by_image(), [("v1".to_owned(), 0), ("v2".to_owned(), 5)].into());
}

#[test]
fn revisions_count_up_and_a_rollback_takes_its_set_again() {
    let mut world = World::rolling(2, json!(1), json!(0));
    for (image, revision) in [("v2", "2"), ("v3", "3")] {
        world.set_image(image);
        world.settle();
        assert_eq!(world.annotation(image, super::set::REVISION), revision);
        assert_eq!(world.deployment["metadata"]["annotations"][super::set::REVISION], revision);
    }
    world.log.clear();
    world.set_image("v1");
    world.settle();
    assert_eq!(world.log, ["v1 0 -> 1", "v3 2 -> 1", "v1 1 -> 2", "v3 1 -> 0"]);
    assert_eq!(world.annotation("v1", super::set::REVISION), "4");
    assert_eq!(world.annotation("v1", super::set::REVISION_HISTORY), "1");
    assert_eq!(world.deployment["metadata"]["annotations"][super::set::REVISION], "4");
}

#[test]
fn old_sets_beyond_the_limit_are_removed() {
    let mut world = World::rolling(1, json!(1), json!(0));
    world.edit(|spec| spec["revisionHistoryLimit"] = 1.into());
    for image in ["v2", "v3"] {
        world.set_image(image);
        world.settle();
    }
    let images: Vec<String> = world.sets.iter().map(image).collect();
    assert_eq!(images, ["v2", "v3"]);
    assert_eq!(
        world.log.iter().filter(|l| l.starts_with("delete")).collect::<Vec<_>>(),
        ["delete v1"]
    );
}

#[test]
fn a_selector_of_all_pods_is_refused() {
    let mut world = World::new(1, json!({}));
    world.deployment["spec"]["selector"] = json!({});
    let warned = world.step();
    assert_eq!(warned.len(), 1);
    assert!(warned[0].contains("SelectingAll"), "{warned:?}");
    assert_eq!(world.deployment["status"], json!({"observedGeneration": 1}));
}

#[test]
fn a_set_that_cannot_make_pods_shows_in_the_deployment() {
    let mut world = World::new(1, json!({}));
    world.step();
    world.sets[0]["status"] = json!({"replicas": 0, "conditions": [
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}]});
    world.step();
    let failure = world.condition("ReplicaFailure");
    assert_eq!((&*failure.reason, &*failure.message), ("FailedCreate", "quota"));
}

//! What any `Api` must do, as checks that run on the fake and on the real server. Each check
//! works in a namespace of its own and takes valid objects only, so that it asks for meaning,
//! not for validation.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use skiff_proto::resource::{
    CONFIG_MAPS, DEPLOYMENTS, EVENTS, NAMESPACES, NODES, PODS, SERVICE_ACCOUNTS,
};
use skiff_proto::{FieldSelector, Object, Resource, Selector, Status};

use crate::api::*;

/// An event that takes longer never comes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs every check. Panics with what is wrong.
pub async fn run(api: Arc<dyn Api>) {
    creates(&Scope::new(&api, "suite-creates").await).await;
    versions_and_conflicts(&Scope::new(&api, "suite-versions").await).await;
    faces_and_generations(&Scope::new(&api, "suite-faces").await).await;
    patches(&Scope::new(&api, "suite-patches").await).await;
    deletions(&Scope::new(&api, "suite-deletions").await).await;
    pods_go_with_grace(&Scope::new(&api, "suite-grace").await).await;
    bindings(&Scope::new(&api, "suite-bindings").await).await;
    selections(&Scope::new(&api, "suite-selections").await).await;
    watches_resume(&Scope::new(&api, "suite-watches").await).await;
    watches_of_a_selection(&Scope::new(&api, "suite-steps").await).await;
    dry_runs(&Scope::new(&api, "suite-dry").await).await;
    namespaces_end(&api).await;
}

/// One check's namespace.
struct Scope {
    api: Arc<dyn Api>,
    namespace: &'static str,
}

impl Scope {
    async fn new(api: &Arc<dyn Api>, namespace: &'static str) -> Self {
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        let scope = Self { api: api.clone(), namespace };
        let all = Target::all(&NAMESPACES, "");
        let json = Bytes::from(object.to_string());
        api.create(&all, json, &WriteOptions::default()).await.expect("a namespace of the check");
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        scope.create(&SERVICE_ACCOUNTS, account).await.expect("a service account");
        scope
    }

    fn one(&self, resource: &Resource, name: &str) -> Target {
        Target::one(resource, self.namespace, name)
    }

    fn all(&self, resource: &Resource) -> Target {
        Target::all(resource, self.namespace)
    }

    async fn create(&self, resource: &Resource, object: Value) -> Result<Arc<Object>> {
        let json = Bytes::from(object.to_string());
        self.api.create(&self.all(resource), json, &WriteOptions::default()).await
    }

    async fn config_map(&self, name: &str) -> Arc<Object> {
        self.create(&CONFIG_MAPS, config_map(name)).await.expect("created")
    }

    async fn update(&self, target: &Target, object: &Value) -> Result<Arc<Object>> {
        let json = Bytes::from(object.to_string());
        self.api.update(target, json, &WriteOptions::default()).await
    }

    async fn merge(&self, target: &Target, patch: Value) -> Result<Arc<Object>> {
        let patch = Patch::Merge(Bytes::from(patch.to_string()));
        self.api.patch(target, patch, &WriteOptions::default()).await
    }

    async fn delete(&self, target: &Target) -> Result<Deleted> {
        self.api.delete(target, &DeleteOptions::default()).await
    }

    async fn bind(&self, pod: &str, node: &str) -> Result<Arc<Object>> {
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod},
                             "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
        let target = self.one(&PODS, pod).subresource("binding");
        let json = Bytes::from(binding.to_string());
        self.api.create(&target, json, &WriteOptions::default()).await
    }

    async fn names(&self, options: &ListOptions) -> Vec<String> {
        let list = self.api.list(&self.all(&CONFIG_MAPS), options).await.expect("lists");
        list.items.iter().map(|object| object.name().to_owned()).collect()
    }
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
           "spec": {"containers": [{"name": "c", "image": "registry.example/c:1"}],
                    "terminationGracePeriodSeconds": 30}})
}

fn value(object: &Object) -> Value {
    object.parse().expect("JSON")
}

fn version(object: &Object) -> i64 {
    object.resource_version().parse().expect("a number")
}

#[track_caller]
fn refused<T>(result: Result<T>) -> Status {
    result.err().expect("must be refused")
}

async fn next(stream: &mut WatchStream) -> (char, Arc<Object>) {
    loop {
        let event = tokio::time::timeout(PATIENCE, stream.next()).await.expect("an event in time");
        return match event.expect("the watch goes on").expect("no error") {
            WatchEvent::Added(object) => ('A', object),
            WatchEvent::Modified(object) => ('M', object),
            WatchEvent::Deleted(object) => ('D', object),
            WatchEvent::Bookmark { .. } => continue,
        };
    }
}

async fn creates(scope: &Scope) {
    let made = scope.config_map("a").await;
    assert_eq!((made.namespace(), made.name()), (scope.namespace, "a"));
    assert!(!made.uid().is_empty() && version(&made) > 0);
    assert!(made.index.metadata.creation_timestamp.is_some());
    let again = refused(scope.create(&CONFIG_MAPS, config_map("a")).await);
    assert!(again.is_already_exists(), "{again}");
    assert_eq!(again.message, "configmaps \"a\" already exists");
    let other = scope.config_map("b").await;
    assert!(version(&other) > version(&made) && other.uid() != made.uid());
    let mut unnamed = config_map("");
    unnamed["metadata"] = json!({"generateName": "gen-"});
    let named = scope.create(&CONFIG_MAPS, unnamed).await.expect("created");
    assert!(named.name().starts_with("gen-") && named.name().len() == 9, "{}", named.name());
    let mut versioned = config_map("c");
    versioned["metadata"]["resourceVersion"] = "1".into();
    assert_eq!(refused(scope.create(&CONFIG_MAPS, versioned).await).code, 400);
    let missing = refused(scope.api.get(&scope.one(&CONFIG_MAPS, "none")).await);
    assert!(missing.is_not_found(), "{missing}");
    assert_eq!(missing.message, "configmaps \"none\" not found");
    let nowhere = Target::all(&CONFIG_MAPS, "no-such-namespace");
    let json = Bytes::from(config_map("a").to_string());
    let refusal = refused(scope.api.create(&nowhere, json, &WriteOptions::default()).await);
    assert_eq!(refusal.message, "namespaces \"no-such-namespace\" not found");
}

async fn versions_and_conflicts(scope: &Scope) {
    let first = scope.config_map("a").await;
    let target = scope.one(&CONFIG_MAPS, "a");
    let mut changed = value(&first);
    changed["data"]["k"] = "2".into();
    let second = scope.update(&target, &changed).await.expect("the version is current");
    assert!(version(&second) > version(&first));
    assert_eq!(second.uid(), first.uid());
    let stale = refused(scope.update(&target, &changed).await);
    assert!(stale.is_conflict(), "{stale}");
    assert!(stale.message.contains("the object has been modified"), "{stale}");
    changed["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    changed["data"]["k"] = "3".into();
    let third = scope.update(&target, &changed).await.expect("no version is no condition");
    let same = scope.update(&target, &value(&third)).await.expect("taken");
    assert_eq!(same.resource_version(), third.resource_version(), "nothing changed");
    changed["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000".into();
    assert!(refused(scope.update(&target, &changed).await).is_conflict(), "another object's uid");
    let gone = scope.one(&CONFIG_MAPS, "none");
    assert!(refused(scope.update(&gone, &config_map("none")).await).is_not_found());
    assert_eq!(scope.api.get(&target).await.expect("there"), third);
}

async fn faces_and_generations(scope: &Scope) {
    let labels = json!({"app": "web"});
    let web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": pod("x")["spec"]}},
        "status": {"replicas": 7}});
    let made = scope.create(&DEPLOYMENTS, web).await.expect("created");
    assert_eq!(made.index.metadata.generation, 1);
    assert_ne!(value(&made)["status"]["replicas"], 7, "a client does not create a status");
    let target = scope.one(&DEPLOYMENTS, "web");
    let mut both = value(&made);
    both["status"] = json!({"replicas": 1});
    both["metadata"]["annotations"] = json!({"a": "b"});
    let main = scope.update(&target, &both).await.expect("taken");
    assert!(value(&main)["status"]["replicas"].is_null(), "the main face keeps the status");
    assert_eq!(main.index.metadata.generation, 1, "metadata does not count");
    let mut both = value(&main);
    both["status"] = json!({"replicas": 1});
    both["spec"]["replicas"] = 5.into();
    let status = scope.update(&target.clone().subresource("status"), &both).await.expect("taken");
    let told = value(&status);
    assert_eq!((&told["status"]["replicas"], &told["spec"]["replicas"]), (&json!(1), &json!(1)));
    assert_eq!(status.index.metadata.generation, 1);
    let scaled = scope.merge(&target, json!({"spec": {"replicas": 2}})).await.expect("taken");
    assert_eq!(scaled.index.metadata.generation, 2);
    assert_eq!(value(&scaled)["status"]["replicas"], 1);
}

async fn patches(scope: &Scope) {
    let made = scope.config_map("a").await;
    let target = scope.one(&CONFIG_MAPS, "a");
    let merged = scope.merge(&target, json!({"data": {"x": "1"}})).await.expect("taken");
    assert_eq!(value(&merged)["data"], json!({"k": "v", "x": "1"}));
    let removed = scope.merge(&target, json!({"data": {"k": null}})).await.expect("taken");
    assert_eq!(value(&removed)["data"], json!({"x": "1"}));
    let same = scope.merge(&target, json!({"data": {"x": "1"}})).await.expect("taken");
    assert_eq!(same.resource_version(), removed.resource_version(), "nothing changed");
    let at = |version: &str| json!({"metadata": {"resourceVersion": version}, "data": {"y": "1"}});
    let stale = refused(scope.merge(&target, at(made.resource_version())).await);
    assert!(stale.is_conflict(), "{stale}");
    scope.merge(&target, at(removed.resource_version())).await.expect("current");
    scope.create(&PODS, pod("p")).await.expect("created");
    let status = scope.one(&PODS, "p").subresource("status");
    for (type_, truth) in [("PodScheduled", "False"), ("Ready", "False"), ("PodScheduled", "True")]
    {
        let patch = json!({"status": {"conditions": [{"type": type_, "status": truth}]}});
        let patch = Patch::Strategic(Bytes::from(patch.to_string()));
        scope.api.patch(&status, patch, &WriteOptions::default()).await.expect("taken");
    }
    let pod = value(&scope.api.get(&scope.one(&PODS, "p")).await.expect("there"));
    let mut told: Vec<(String, String)> = Vec::new();
    for condition in pod["status"]["conditions"].as_array().expect("conditions") {
        let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
        told.push((text("type"), text("status")));
    }
    told.sort();
    let expected = [("PodScheduled", "True"), ("Ready", "False")];
    assert_eq!(told, expected.map(|(a, b)| (a.to_owned(), b.to_owned())), "merged by type");
    assert!(refused(scope.merge(&scope.one(&CONFIG_MAPS, "none"), json!({})).await).is_not_found());
}

async fn deletions(scope: &Scope) {
    let made = scope.config_map("a").await;
    let target = scope.one(&CONFIG_MAPS, "a");
    let with = |uid: &str, version: &str| DeleteOptions {
        uid: uid.into(),
        resource_version: version.into(),
        ..DeleteOptions::default()
    };
    let other = "00000000-0000-0000-0000-000000000000";
    assert!(refused(scope.api.delete(&target, &with(other, "")).await).is_conflict());
    assert!(refused(scope.api.delete(&target, &with("", "1")).await).is_conflict());
    let right = with(made.uid(), made.resource_version());
    let Deleted::Gone(gone) = scope.api.delete(&target, &right).await.expect("deleted") else {
        panic!("nothing holds it");
    };
    assert_eq!(gone.uid(), made.uid());
    assert!(refused(scope.delete(&target).await).is_not_found());

    let mut held = config_map("held");
    held["metadata"]["finalizers"] = json!(["example.org/a"]);
    scope.create(&CONFIG_MAPS, held).await.expect("created");
    let target = scope.one(&CONFIG_MAPS, "held");
    let Deleted::Terminating(going) = scope.delete(&target).await.expect("deleted") else {
        panic!("its finalizer holds it");
    };
    assert!(going.is_terminating());
    let again = scope.delete(&target).await.expect("deleted");
    let Deleted::Terminating(again) = again else { panic!("still held") };
    assert_eq!(again.resource_version(), going.resource_version(), "nothing changed");
    let freed = scope.merge(&target, json!({"metadata": {"finalizers": null}})).await;
    freed.expect("the last finalizer goes, and the object with it");
    assert!(refused(scope.api.get(&target).await).is_not_found());

    for (propagation, finalizer) in
        [(Propagation::Foreground, "foregroundDeletion"), (Propagation::Orphan, "orphan")]
    {
        scope.config_map("owner").await;
        let target = scope.one(&CONFIG_MAPS, "owner");
        let options = DeleteOptions { propagation, ..DeleteOptions::default() };
        let deleted = scope.api.delete(&target, &options).await.expect("deleted");
        let Deleted::Terminating(waits) = deleted else { panic!("{finalizer} is yet to be done") };
        assert_eq!(waits.index.metadata.finalizers, [finalizer]);
        scope.merge(&target, json!({"metadata": {"finalizers": null}})).await.expect("done");
    }
    for name in ["x", "y"] {
        scope.config_map(name).await;
    }
    let all = scope.all(&CONFIG_MAPS);
    let deleted =
        scope.api.delete_collection(&all, &ListOptions::default(), &DeleteOptions::default()).await;
    assert_eq!(deleted.expect("deleted").len(), 2);
    assert!(scope.names(&ListOptions::default()).await.is_empty());
}

async fn pods_go_with_grace(scope: &Scope) {
    scope.create(&PODS, pod("waits")).await.expect("created");
    let waits = scope.one(&PODS, "waits");
    let deleted = scope.delete(&waits).await.expect("deleted");
    assert!(matches!(deleted, Deleted::Gone(_)), "no kubelet has it");

    scope.create(&PODS, pod("runs")).await.expect("created");
    scope.bind("runs", "n1").await.expect("bound");
    let runs = scope.one(&PODS, "runs");
    let Deleted::Terminating(going) = scope.delete(&runs).await.expect("deleted") else {
        panic!("its kubelet is given time");
    };
    assert_eq!(value(&going)["metadata"]["deletionGracePeriodSeconds"], 30);
    let asked =
        |seconds| DeleteOptions { grace_period_seconds: Some(seconds), ..DeleteOptions::default() };
    let Deleted::Terminating(longer) = scope.api.delete(&runs, &asked(60)).await.expect("taken")
    else {
        panic!("still waits");
    };
    assert_eq!(longer.resource_version(), going.resource_version(), "only shorter counts");
    let Deleted::Terminating(shorter) = scope.api.delete(&runs, &asked(5)).await.expect("taken")
    else {
        panic!("still waits");
    };
    assert_eq!(value(&shorter)["metadata"]["deletionGracePeriodSeconds"], 5);
    let deleted = scope.api.delete(&runs, &asked(0)).await.expect("deleted");
    assert!(matches!(deleted, Deleted::Gone(_)), "the kubelet says that it is over");
}

async fn bindings(scope: &Scope) {
    let made = scope.create(&PODS, pod("p")).await.expect("created");
    assert_eq!(value(&made)["status"]["phase"], "Pending");
    let bound = scope.bind("p", "n1").await.expect("bound");
    assert!(!bound.resource_version().is_empty());
    let pod = scope.api.get(&scope.one(&PODS, "p")).await.expect("there");
    assert_eq!(value(&pod)["spec"]["nodeName"], "n1");
    assert!(refused(scope.bind("p", "n2").await).is_conflict(), "once");
    assert!(refused(scope.bind("none", "n1").await).is_not_found());
    let on_n1 = ListOptions {
        fields: FieldSelector::equal("spec.nodeName", "n1"),
        ..ListOptions::default()
    };
    let list = scope.api.list(&scope.all(&PODS), &on_n1).await.expect("lists");
    assert_eq!(list.items.len(), 1);
}

async fn selections(scope: &Scope) {
    for (name, app) in [("a", "web"), ("b", "db"), ("c", "web")] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"app": app});
        scope.create(&CONFIG_MAPS, object).await.expect("created");
    }
    assert_eq!(scope.names(&ListOptions::default()).await, ["a", "b", "c"]);
    let labels = |text: &str| ListOptions {
        labels: Selector::parse(text).expect("parses"),
        ..ListOptions::default()
    };
    assert_eq!(scope.names(&labels("app=web")).await, ["a", "c"]);
    assert_eq!(scope.names(&labels("app!=web")).await, ["b"]);
    let named = ListOptions {
        fields: FieldSelector::equal("metadata.name", "b"),
        ..ListOptions::default()
    };
    assert_eq!(scope.names(&named).await, ["b"]);
    let one = scope.one(&CONFIG_MAPS, "c");
    let list = scope.api.list(&one, &ListOptions::default()).await.expect("lists");
    assert_eq!(list.items.len(), 1, "a name in the target narrows");
    let everywhere = Target::all(&CONFIG_MAPS, "");
    let list = scope.api.list(&everywhere, &ListOptions::default()).await.expect("lists");
    let here = list.items.iter().filter(|object| object.namespace() == scope.namespace);
    assert_eq!(here.count(), 3);
    let newest = list.items.iter().map(|object| version(object)).max().unwrap_or(0);
    assert!(list.resource_version.parse::<i64>().expect("a number") >= newest);
}

async fn watches_resume(scope: &Scope) {
    let all = scope.all(&CONFIG_MAPS);
    let first = scope.config_map("a").await;
    let mut from_start = scope.api.watch(&all, &WatchOptions::default()).await.expect("watches");
    assert_eq!(next(&mut from_start).await, ('A', first.clone()), "what exists comes first");
    let since = WatchOptions {
        resource_version: first.resource_version().into(),
        ..WatchOptions::default()
    };
    let target = scope.one(&CONFIG_MAPS, "a");
    let changed = scope.merge(&target, json!({"data": {"k": "2"}})).await.expect("taken");
    let second = scope.config_map("b").await;
    scope.delete(&target).await.expect("deleted");
    let mut late = scope.api.watch(&all, &since).await.expect("watches");
    for watch in [&mut from_start, &mut late] {
        assert_eq!(next(watch).await, ('M', changed.clone()));
        assert_eq!(next(watch).await, ('A', second.clone()));
        let (what, gone) = next(watch).await;
        assert_eq!((what, gone.name(), gone.uid()), ('D', "a", first.uid()));
        assert!(version(&gone) > version(&second), "the version of the removal");
    }
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"},
        "involvedObject": {"kind": "ConfigMap", "namespace": scope.namespace, "name": "a"},
        "reason": "Tested", "type": "Normal"});
    scope.create(&EVENTS, event).await.expect("created");
    let third = scope.config_map("c").await;
    assert_eq!(next(&mut late).await, ('A', third), "another resource's changes are not told");
}

async fn watches_of_a_selection(scope: &Scope) {
    let options = WatchOptions {
        labels: Selector::parse("app=web").expect("parses"),
        ..WatchOptions::default()
    };
    let mut watch = scope.api.watch(&scope.all(&CONFIG_MAPS), &options).await.expect("watches");
    scope.config_map("a").await;
    let target = scope.one(&CONFIG_MAPS, "a");
    let label = |app: &str| json!({"metadata": {"labels": {"app": app}}});
    scope.merge(&target, label("web")).await.expect("taken");
    let (what, _) = next(&mut watch).await;
    assert_eq!(what, 'A', "it steps in");
    scope.merge(&target, json!({"data": {"k": "2"}})).await.expect("taken");
    let (what, _) = next(&mut watch).await;
    assert_eq!(what, 'M');
    let out = scope.merge(&target, label("db")).await.expect("taken");
    let (what, last) = next(&mut watch).await;
    assert_eq!((what, last.resource_version()), ('D', out.resource_version()), "it steps out");
    assert_eq!(last.labels()["app"], "web", "as it was last seen");
}

async fn dry_runs(scope: &Scope) {
    let dry = WriteOptions { dry_run: true, ..WriteOptions::default() };
    let json = Bytes::from(config_map("a").to_string());
    scope.api.create(&scope.all(&CONFIG_MAPS), json, &dry).await.expect("would be created");
    assert!(refused(scope.api.get(&scope.one(&CONFIG_MAPS, "a")).await).is_not_found());
}

/// Nothing is made in a namespace that is on its way out, and it goes when its last
/// finalizer does.
async fn namespaces_end(api: &Arc<dyn Api>) {
    let scope = Scope::new(api, "suite-ends").await;
    let target = Target::one(&NAMESPACES, "", scope.namespace);
    let Deleted::Terminating(going) = scope.delete(&target).await.expect("deleted") else {
        panic!("what is in it is yet to be removed");
    };
    assert_eq!(value(&going)["status"]["phase"], "Terminating");
    let refusal = refused(scope.create(&CONFIG_MAPS, config_map("late")).await);
    assert!(refusal.code == 403 && refusal.message.contains("is being terminated"), "{refusal}");
    let mut done = value(&going);
    done["spec"]["finalizers"] = json!([]);
    scope.update(&target.clone().subresource("finalize"), &done).await.expect("taken");
    assert!(refused(api.get(&target).await).is_not_found());
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "suite-node"},
                      "status": {"phase": "Running"}});
    let json = Bytes::from(node.to_string());
    let all = Target::all(&NODES, "");
    let made = api.create(&all, json, &WriteOptions::default()).await.expect("created");
    assert_eq!(made.namespace(), "");
    let node = Target::one(&NODES, "", "suite-node");
    assert!(matches!(scope.delete(&node).await.expect("deleted"), Deleted::Gone(_)));
}

//! An API server in memory: revisions, lists, watches with field selectors, merge patches,
//! preconditions and graceful deletion of pods.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use skiff_client::*;
use skiff_proto::{FieldSelector, Object, Status};
use tokio::sync::{broadcast, watch};

type Key = (String, String, String);

#[derive(Clone)]
struct Logged {
    revision: u64,
    resource: String,
    deleted: bool,
    object: Arc<Object>,
}

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<Key, Value>,
    log: Vec<Logged>,
}

pub struct FakeApi {
    state: Mutex<State>,
    news: broadcast::Sender<Logged>,
    changed: watch::Sender<u64>,
}

fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    path.iter().fold(value, |v, part| &v[*part]).as_str().unwrap_or("")
}

fn key(resource: &str, object: &Value) -> Key {
    let meta = |field| text(object, &["metadata", field]).to_owned();
    (resource.to_owned(), meta("namespace"), meta("name"))
}

fn parse(value: &Value) -> Arc<Object> {
    Arc::new(Object::from_json(Bytes::from(value.to_string())).expect("an object"))
}

fn selected(object: &Object, target: &Target, fields: &FieldSelector) -> bool {
    let value: Value = object.parse().expect("json");
    (target.namespace.is_empty() || target.namespace == object.namespace())
        && fields.matches(|path| {
            let value = path.split('.').fold(&value, |v, part| &v[part]);
            value.as_str()
        })
}

impl FakeApi {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            news: broadcast::channel(4096).0,
            changed: watch::Sender::new(0),
        })
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Creates or replaces an object as a user would.
    pub fn put(&self, resource: &str, object: Value) -> Arc<Object> {
        let mut state = self.state.lock().expect("lock");
        self.store(&mut state, resource, object)
    }

    fn store(&self, state: &mut State, resource: &str, mut object: Value) -> Arc<Object> {
        state.revision += 1;
        let revision = state.revision;
        let meta = &mut object["metadata"];
        if text(meta, &["uid"]).is_empty() {
            let name = text(meta, &["name"]).to_owned();
            meta["uid"] = format!("{name}-uid-{revision}").into();
        }
        meta["resourceVersion"] = revision.to_string().into();
        let parsed = parse(&object);
        state.objects.insert(key(resource, &object), object);
        self.tell(state, resource, false, parsed.clone());
        parsed
    }

    fn tell(&self, state: &mut State, resource: &str, deleted: bool, object: Arc<Object>) {
        let logged =
            Logged { revision: state.revision, resource: resource.into(), deleted, object };
        state.log.push(logged.clone());
        let _ = self.news.send(logged);
        self.changed.send_replace(state.revision);
    }

    pub fn read(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        self.state.lock().expect("lock").objects.get(&key).cloned()
    }

    /// A user's delete of a pod, with its grace period.
    pub fn delete_pod(&self, name: &str, grace: i64) {
        let mut state = self.state.lock().expect("lock");
        let key = ("pods".to_owned(), "default".to_owned(), name.to_owned());
        let mut pod = state.objects.get(&key).cloned().expect("the pod");
        pod["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z".into();
        pod["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        self.store(&mut state, "pods", pod);
    }

    /// Removes an object at once.
    pub fn remove(&self, resource: &str, namespace: &str, name: &str) {
        let mut state = self.state.lock().expect("lock");
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        if let Some(mut object) = state.objects.remove(&key) {
            state.revision += 1;
            object["metadata"]["resourceVersion"] = state.revision.to_string().into();
            self.tell(&mut state, resource, true, parse(&object));
        }
    }

    /// `Reason message` of each event so far.
    pub fn events(&self) -> Vec<String> {
        let state = self.state.lock().expect("lock");
        let events = state.objects.iter().filter(|((resource, ..), _)| resource == "events");
        events.map(|(_, e)| format!("{} {}", text(e, &["reason"]), text(e, &["message"]))).collect()
    }

    /// How often the status of a pod was written.
    pub fn writes(&self, resource: &str, name: &str) -> usize {
        let state = self.state.lock().expect("lock");
        state.log.iter().filter(|l| l.resource == resource && l.object.name() == name).count()
    }

    fn find(&self, target: &Target) -> Option<Value> {
        self.read(&target.resource.plural, &target.namespace, &target.name)
    }
}

fn missing(target: &Target) -> Status {
    Status::not_found(&target.resource, &target.name)
}

fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            into.as_object_mut().expect("an object").remove(name);
        } else {
            merge(&mut into[name.as_str()], value);
        }
    }
}

#[async_trait]
impl Api for FakeApi {
    async fn version(&self) -> Result<VersionInfo> {
        Ok(VersionInfo::default())
    }

    async fn discover(&self) -> Result<Vec<ResourceInfo>> {
        Ok(Vec::new())
    }

    async fn get(&self, target: &Target) -> Result<Arc<Object>> {
        Ok(parse(&self.find(target).ok_or_else(|| missing(target))?))
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> Result<List> {
        let state = self.state.lock().expect("lock");
        let all = state.objects.iter().filter(|((r, ..), _)| *r == target.resource.plural);
        let items = all.map(|(_, o)| parse(o)).filter(|o| selected(o, target, &options.fields));
        Ok(List {
            items: items.collect(),
            resource_version: state.revision.to_string(),
            ..Default::default()
        })
    }

    async fn watch(&self, target: &Target, options: &WatchOptions) -> Result<WatchStream> {
        let (missed, receiver) = {
            let state = self.state.lock().expect("lock");
            let from: u64 = options.resource_version.parse().expect("a revision");
            let missed: Vec<Logged> =
                state.log.iter().filter(|l| l.revision > from).cloned().collect();
            (missed, self.news.subscribe())
        };
        let (target, fields) = (target.clone(), options.fields.clone());
        let live = stream::unfold(receiver, |mut receiver| async move {
            Some((receiver.recv().await.ok()?, receiver))
        });
        let events = stream::iter(missed).chain(live).filter_map(move |logged| {
            let ours = logged.resource == target.resource.plural
                && selected(&logged.object, &target, &fields);
            let event = if logged.deleted {
                WatchEvent::Deleted(logged.object)
            } else {
                WatchEvent::Modified(logged.object)
            };
            std::future::ready(ours.then_some(Ok(event)))
        });
        Ok(Box::pin(events))
    }

    async fn create(&self, target: &Target, json: Bytes, _: &WriteOptions) -> Result<Arc<Object>> {
        let mut object: Value = serde_json::from_slice(&json).expect("json");
        let mut state = self.state.lock().expect("lock");
        let prefix = text(&object, &["metadata", "generateName"]).to_owned();
        if !prefix.is_empty() {
            object["metadata"]["name"] = format!("{prefix}{}", state.revision).into();
        }
        if state.objects.contains_key(&key(&target.resource.plural, &object)) {
            return Err(Status::already_exists(
                &target.resource,
                text(&object, &["metadata", "name"]),
            ));
        }
        Ok(self.store(&mut state, &target.resource.plural, object))
    }

    async fn update(&self, _: &Target, _: Bytes, _: &WriteOptions) -> Result<Arc<Object>> {
        Err(Status::bad_request("the kubelet patches"))
    }

    async fn patch(&self, target: &Target, patch: Patch, _: &WriteOptions) -> Result<Arc<Object>> {
        let Patch::Merge(patch) = patch else {
            return Err(Status::bad_request("the kubelet writes merge patches"));
        };
        let patch: Value = serde_json::from_slice(&patch).expect("json");
        let mut object = self.find(target).ok_or_else(|| missing(target))?;
        let uid = text(&patch, &["metadata", "uid"]);
        if !uid.is_empty() && uid != text(&object, &["metadata", "uid"]) {
            return Err(Status::conflict(&target.resource, &target.name, "uid"));
        }
        merge(&mut object, &patch);
        let mut state = self.state.lock().expect("lock");
        Ok(self.store(&mut state, &target.resource.plural, object))
    }

    async fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<Deleted> {
        let object = self.find(target).ok_or_else(|| missing(target))?;
        assert_eq!(options.grace_period_seconds, Some(0), "only the last delete is the kubelet's");
        assert_eq!(options.uid, text(&object, &["metadata", "uid"]));
        self.remove(&target.resource.plural, &target.namespace, &target.name);
        Ok(Deleted::Gone(parse(&object)))
    }

    async fn delete_collection(
        &self,
        _: &Target,
        _: &ListOptions,
        _: &DeleteOptions,
    ) -> Result<Vec<Arc<Object>>> {
        Err(Status::bad_request("not the kubelet's"))
    }

    async fn logs(&self, _: &Target, _: &LogOptions) -> Result<ByteStream> {
        Err(Status::bad_request("not the kubelet's"))
    }

    async fn exec(
        &self,
        _: &Target,
        _: &ExecOptions,
        _: ExecInputStream,
    ) -> Result<ExecOutputStream> {
        Err(Status::bad_request("not the kubelet's"))
    }
}

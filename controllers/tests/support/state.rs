//! The objects, their history, and what writes mean.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Value, json};
use skiff_client::api::*;
use skiff_proto::{Object, Resource, Status, Timestamp, resource};

/// Plural, namespace, name.
type Key = (String, String, String);

#[derive(Default)]
pub struct State {
    pub version: u64,
    objects: BTreeMap<Key, Value>,
    /// Every change: its resource's plural and the event.
    pub history: Vec<(String, WatchEvent)>,
    created: HashMap<String, usize>,
    /// Namespaces that were there once: nothing can be made in them any more.
    gone: HashSet<String>,
}

fn key(target: &Target) -> Key {
    (target.resource.plural.to_string(), target.namespace.clone(), target.name.clone())
}

fn object(value: &Value) -> Arc<Object> {
    Arc::new(Object::from_json(Bytes::from(value.to_string())).expect("an object"))
}

fn now() -> Value {
    json!(Timestamp::seconds(SystemTime::now()))
}

fn list_at<'a>(value: &'a Value, pointer: &str) -> Vec<&'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten().collect()
}

impl State {
    pub fn all(&self, resource: &Resource) -> Vec<Value> {
        let of = self.objects.iter().filter(|((plural, ..), _)| *plural == resource.plural);
        of.map(|(_, value)| value.clone()).collect()
    }

    pub fn created(&self, resource: &Resource) -> usize {
        self.created.get(&*resource.plural).copied().unwrap_or(0)
    }

    pub fn dump(&self) -> String {
        let quiet = |key: &&Key| key.0 != "events";
        let lines = self.objects.keys().filter(quiet).map(|key| {
            let value = &self.objects[key];
            format!("{key:?} {} {}", value["metadata"]["deletionTimestamp"], value["status"])
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    pub fn select(&self, target: &Target, options: &ListOptions) -> Vec<Arc<Object>> {
        let of = self.objects.iter().filter(|((plural, namespace, _), _)| {
            *plural == target.resource.plural
                && (target.namespace.is_empty() || *namespace == target.namespace)
        });
        let objects = of.map(|(_, value)| object(value));
        objects.filter(|o| selects(target, options, o)).collect()
    }

    pub fn get(&self, target: &Target) -> Result<Arc<Object>> {
        let found = self.objects.get(&key(target)).map(object);
        found.ok_or_else(|| Status::not_found(&target.resource, &target.name))
    }

    fn put(&mut self, key: Key, mut value: Value) -> Arc<Object> {
        self.version += 1;
        value["metadata"]["resourceVersion"] = self.version.to_string().into();
        let new = object(&value);
        let known = self.objects.insert(key.clone(), value).is_some();
        let event = if known { WatchEvent::Modified } else { WatchEvent::Added };
        self.history.push((key.0, event(new.clone())));
        new
    }

    fn remove(&mut self, key: &Key) -> Arc<Object> {
        let mut value = self.objects.remove(key).expect("seen before");
        if key.0 == "namespaces" {
            self.gone.insert(key.2.clone());
        }
        self.version += 1;
        value["metadata"]["resourceVersion"] = self.version.to_string().into();
        let gone = object(&value);
        self.history.push((key.0.clone(), WatchEvent::Deleted(gone.clone())));
        gone
    }

    pub fn create(&mut self, target: &Target, mut value: Value) -> Result<Arc<Object>> {
        let namespace = ("namespaces".to_owned(), String::new(), target.namespace.clone());
        if self.gone.contains(&target.namespace) {
            return Err(Status::not_found(&resource::NAMESPACES, &target.namespace));
        }
        let going = |namespace: &Value| !namespace["metadata"]["deletionTimestamp"].is_null();
        if self.objects.get(&namespace).is_some_and(going) {
            let why = format!(
                "unable to create new content in namespace {} because it is being terminated",
                target.namespace
            );
            return Err(Status::forbidden(&target.resource, "", &why));
        }
        self.version += 1;
        let meta = &mut value["metadata"];
        if meta["name"].is_null() {
            let prefix = meta["generateName"].as_str().unwrap_or_default();
            meta["name"] = format!("{prefix}{:05}", self.version).into();
        }
        meta["uid"] = format!("uid-{}", self.version).into();
        meta["generation"] = 1.into();
        meta["creationTimestamp"] = now();
        if !target.namespace.is_empty() {
            meta["namespace"] = target.namespace.clone().into();
        }
        let mut key = key(target);
        key.2 = meta["name"].as_str().unwrap_or_default().to_owned();
        if target.resource == resource::NAMESPACES {
            value["spec"]["finalizers"] = json!(["kubernetes"]);
        }
        if self.objects.contains_key(&key) {
            return Err(Status::already_exists(&target.resource, &key.2));
        }
        *self.created.entry(key.0.clone()).or_default() += 1;
        Ok(self.put(key, value))
    }

    pub fn update(&mut self, target: &Target, mut new: Value) -> Result<Arc<Object>> {
        let key = key(target);
        let Some(old) = self.objects.get(&key).cloned() else {
            return Err(Status::not_found(&target.resource, &target.name));
        };
        let version = &new["metadata"]["resourceVersion"];
        if !version.is_null() && *version != old["metadata"]["resourceVersion"] {
            return Err(Status::modified(&target.resource, &target.name));
        }
        match target.subresource.as_str() {
            "status" => new = Value::Object(with(&old, "status", new["status"].take())),
            "finalize" => {
                let finalizers = new["spec"]["finalizers"].take();
                new = old.clone();
                new["spec"]["finalizers"] = finalizers;
            }
            _ => {
                new = Value::Object(with(&new, "status", old["status"].clone()));
                for field in
                    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
                {
                    new["metadata"][field] = old["metadata"][field].clone();
                }
                let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
                let changed = i64::from(new["spec"] != old["spec"]);
                new["metadata"]["generation"] = (generation + changed).into();
            }
        }
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        if is_released(&new) {
            return Ok(self.remove(&key));
        }
        if new == old { Ok(object(&old)) } else { Ok(self.put(key, new)) }
    }

    pub fn delete(&mut self, target: &Target, options: &DeleteOptions) -> Result<Deleted> {
        let key = key(target);
        let Some(mut value) = self.objects.get(&key).cloned() else {
            return Err(Status::not_found(&target.resource, &target.name));
        };
        let meta = &value["metadata"];
        let other_uid = !options.uid.is_empty() && meta["uid"] != *options.uid;
        let version = &options.resource_version;
        if other_uid || !version.is_empty() && meta["resourceVersion"] != **version {
            return Err(Status::conflict(&target.resource, &target.name, "Precondition failed"));
        }
        let finalizer = match options.propagation {
            Propagation::Foreground => Some("foregroundDeletion"),
            Propagation::Orphan => Some("orphan"),
            Propagation::Default | Propagation::Background => None,
        };
        if let Some(finalizer) = finalizer {
            let mut all: Vec<Value> =
                list_at(&value, "/metadata/finalizers").into_iter().cloned().collect();
            all.push(finalizer.into());
            value["metadata"]["finalizers"] = all.into();
        }
        // A bound pod waits for its kubelet.
        let bound = target.resource == resource::PODS && value["spec"]["nodeName"].is_string();
        let graceful = bound && options.grace_period_seconds != Some(0);
        if value["metadata"]["deletionTimestamp"].is_null() {
            value["metadata"]["deletionTimestamp"] = now();
        }
        value["metadata"]["deletionGracePeriodSeconds"] =
            if graceful { 30.into() } else { 0.into() };
        if is_released(&value) {
            return Ok(Deleted::Gone(self.remove(&key)));
        }
        Ok(Deleted::Terminating(self.put(key, value)))
    }
}

fn with(value: &Value, field: &str, part: Value) -> serde_json::Map<String, Value> {
    let mut map = value.as_object().cloned().unwrap_or_default();
    map.remove(field);
    map.extend((!part.is_null()).then(|| (field.to_owned(), part)));
    map
}

fn is_released(value: &Value) -> bool {
    !value["metadata"]["deletionTimestamp"].is_null()
        && value["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && list_at(value, "/metadata/finalizers").is_empty()
        && (value["kind"] != "Namespace" || list_at(value, "/spec/finalizers").is_empty())
}

pub fn selects(target: &Target, options: &ListOptions, object: &Object) -> bool {
    let fields = options.fields.matches(|path| (path == "metadata.name").then(|| object.name()));
    let namespace = target.namespace.is_empty() || target.namespace == object.namespace();
    fields && namespace && options.labels.matches(object.labels())
}

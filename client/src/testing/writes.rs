//! What writes mean.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use skiff_proto::{Object, Resource, Status, Timestamp, resource};
use std::sync::Arc;

use super::merge;
use super::objects::{State, key, object, served};
use crate::api::{DeleteOptions, Deleted, Patch, Propagation, Result, Target};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
const DEFAULT_GRACE_SECONDS: i64 = 30;

impl State {
    /// As it is given: the test's own hand.
    pub fn put(&mut self, resource: &Resource, mut value: Value) -> Result<Arc<Object>> {
        let served = served(resource)?;
        let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
        let target = Target::one(resource, &text("namespace"), &text("name"));
        let key = key(&target);
        let old = self.find(&key).cloned();
        match &old {
            Some(old) => keep_identity(&mut value, old),
            None => self.complete(served.has_generation, &mut value),
        }
        if let Some(old) = old.filter(|_| served.has_generation) {
            count_generation(&mut value, &old);
        }
        begin_life(resource, &mut value);
        Ok(self.store(key, value))
    }

    pub fn remove(&mut self, target: &Target) {
        self.take(&key(target));
    }

    pub fn create(&mut self, target: &Target, mut value: Value) -> Result<Arc<Object>> {
        let served = served(&target.resource)?;
        let meta = &mut value["metadata"];
        if !meta["resourceVersion"].as_str().unwrap_or_default().is_empty() {
            let why = "resourceVersion should not be set on objects to be created";
            return Err(Status::bad_request(why));
        }
        let generated = meta["generateName"].as_str().unwrap_or_default().to_owned();
        if meta["name"].as_str().unwrap_or_default().is_empty() && !generated.is_empty() {
            meta["name"] = format!("{generated}{:05}", self.revision).into();
        }
        if served.namespaced {
            meta["namespace"] = target.namespace.clone().into();
        }
        let name = meta["name"].as_str().unwrap_or_default().to_owned();
        let target = Target { name, ..target.clone() };
        if served.namespaced {
            self.check_namespace(&target)?;
        }
        if self.find(&key(&target)).is_some() {
            return Err(Status::already_exists(&target.resource, &target.name));
        }
        for field in ["uid", "creationTimestamp", "generation", "deletionTimestamp"] {
            value["metadata"].as_object_mut().map(|meta| meta.remove(field));
        }
        self.complete(served.has_generation, &mut value);
        let keeps_status = target.resource == resource::NODES;
        if served.has_status && !keeps_status {
            value["status"] = json!({});
        }
        begin_life(&target.resource, &mut value);
        Ok(self.store(key(&target), value))
    }

    /// What only the server sets, where it is not given.
    fn complete(&mut self, has_generation: bool, value: &mut Value) {
        let revision = self.revision + 1;
        let Some(meta) = value["metadata"].as_object_mut() else { return };
        let mut or = |field: &str, default: Value| {
            meta.entry(field).or_insert(default);
        };
        or("uid", format!("00000000-0000-4000-8000-{revision:012}").into());
        or("creationTimestamp", json!(Timestamp::seconds(SystemTime::now())));
        if has_generation {
            or("generation", 1.into());
        }
    }

    /// Nothing is made in a namespace that is not there, or on its way out.
    fn check_namespace(&self, target: &Target) -> Result<()> {
        let namespace = key(&Target::one(&resource::NAMESPACES, "", &target.namespace));
        let Some(found) = self.find(&namespace) else {
            return Err(Status::not_found(&resource::NAMESPACES, &target.namespace));
        };
        if found["metadata"]["deletionTimestamp"].is_null() {
            return Ok(());
        }
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            target.namespace
        );
        Err(Status::forbidden(&target.resource, &target.name, &why))
    }

    pub fn update(&mut self, target: &Target, mut new: Value) -> Result<Arc<Object>> {
        let served = served(&target.resource)?;
        let (key, old) = (key(target), self.value(target)?);
        let given = |field: &str| new["metadata"][field].as_str().unwrap_or_default();
        if !matches!(given("uid"), "") && given("uid") != old["metadata"]["uid"] {
            return Err(Status::conflict(
                &target.resource,
                &target.name,
                "Precondition failed: UID",
            ));
        }
        let version = given("resourceVersion");
        if !version.is_empty() && version != old["metadata"]["resourceVersion"] {
            return Err(Status::modified(&target.resource, &target.name));
        }
        match target.subresource.as_str() {
            "" => {
                if served.has_status {
                    put(&mut new, "status", old.get("status").cloned());
                }
                keep_identity(&mut new, &old);
                if served.has_generation {
                    count_generation(&mut new, &old);
                }
            }
            "status" if served.has_status => {
                let status = new.get("status").cloned();
                new = old.clone();
                put(&mut new, "status", status);
            }
            "finalize" if target.resource == resource::NAMESPACES => {
                let finalizers = new["spec"]["finalizers"].take();
                new = old.clone();
                new["spec"]["finalizers"] = finalizers;
            }
            _ => return Err(not_served()),
        }
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        if is_released(&new) {
            return Ok(self.take(&key).unwrap_or_else(|| object(&old)));
        }
        if new == old { Ok(object(&old)) } else { Ok(self.store(key, new)) }
    }

    pub fn patch(&mut self, target: &Target, patch: Patch) -> Result<Arc<Object>> {
        let mut value = self.value(target)?;
        // The patch's own version counts; without one the present state is patched.
        if let Some(meta) = value["metadata"].as_object_mut() {
            meta.remove("resourceVersion");
        }
        merge::apply(&mut value, patch)?;
        self.update(target, value)
    }

    /// A binding assigns a pod to a node, once.
    pub fn bind(&mut self, target: &Target, binding: &Value) -> Result<Arc<Object>> {
        let mut pod = self.value(target)?;
        let uid = binding["metadata"]["uid"].as_str().unwrap_or_default();
        if !uid.is_empty() && pod["metadata"]["uid"] != uid {
            return Err(Status::conflict(
                &target.resource,
                &target.name,
                "Precondition failed: UID",
            ));
        }
        let node = binding["target"]["name"].clone();
        if let Some(taken) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
            let why = format!("pod {} is already assigned to node {taken:?}", target.name);
            return Err(Status::conflict(&target.resource, &target.name, &why));
        }
        pod["spec"]["nodeName"] = node;
        Ok(self.store(key(target), pod))
    }

    pub fn delete(&mut self, target: &Target, options: &DeleteOptions) -> Result<Deleted> {
        let old = self.value(target)?;
        let meta = &old["metadata"];
        for (wanted, found) in
            [(&options.uid, &meta["uid"]), (&options.resource_version, &meta["resourceVersion"])]
        {
            if !wanted.is_empty() && found != wanted.as_str() {
                let why = "Precondition failed";
                return Err(Status::conflict(&target.resource, &target.name, why));
            }
        }
        let mut new = old.clone();
        set_finalizers(&mut new, options.propagation);
        let grace = grace(target, &old, options.grace_period_seconds);
        mark(target, &mut new, &old, grace, options.grace_period_seconds.is_some());
        if is_released(&new) {
            let gone = self.take(&key(target));
            return Ok(Deleted::Gone(gone.unwrap_or_else(|| object(&old))));
        }
        if new == old {
            return Ok(Deleted::Terminating(object(&old)));
        }
        Ok(Deleted::Terminating(self.store(key(target), new)))
    }
}

/// What a new object of these kinds begins with.
fn begin_life(resource: &Resource, value: &mut Value) {
    if *resource == resource::PODS && value["status"]["phase"].is_null() {
        value["status"]["phase"] = "Pending".into();
    }
    if *resource == resource::NAMESPACES && value["status"]["phase"].is_null() {
        value["spec"]["finalizers"] = json!(["kubernetes"]);
        value["status"]["phase"] = "Active".into();
    }
}

/// Only a pod that a node has, and that is not done, is given time.
fn grace(target: &Target, pod: &Value, asked: Option<i64>) -> i64 {
    let bound = pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let done = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if target.resource != resource::PODS || !bound || done {
        return 0;
    }
    let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64();
    asked.unwrap_or(own.unwrap_or(DEFAULT_GRACE_SECONDS))
}

/// Puts down that the object is to go, and when. A later request can only shorten the wait.
fn mark(target: &Target, new: &mut Value, old: &Value, grace: i64, said: bool) {
    let at = SystemTime::now() + Duration::from_secs(grace.unsigned_abs());
    let first = old["metadata"]["deletionTimestamp"].is_null();
    let before = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if !first && (!said || grace >= before) {
        return;
    }
    new["metadata"]["deletionTimestamp"] = json!(Timestamp::seconds(at));
    new["metadata"]["deletionGracePeriodSeconds"] = grace.into();
    if first && let Some(generation) = old["metadata"]["generation"].as_i64() {
        new["metadata"]["generation"] = (generation + 1).into();
    }
    if target.resource == resource::NAMESPACES {
        new["status"]["phase"] = "Terminating".into();
    }
}

/// Who deals with the dependents.
fn set_finalizers(object: &mut Value, propagation: Propagation) {
    let add = match propagation {
        Propagation::Default => return,
        Propagation::Background => None,
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Orphan => Some(ORPHAN),
    };
    let before = list_at(object, "/metadata/finalizers");
    let mut after: Vec<Value> = before
        .iter()
        .filter(|f| ![FOREGROUND, ORPHAN].contains(&f.as_str().unwrap_or("")))
        .cloned()
        .collect();
    after.extend(add.map(Value::from));
    put(&mut object["metadata"], "finalizers", (!after.is_empty()).then(|| after.into()));
}

/// What no face changes.
fn keep_identity(new: &mut Value, old: &Value) {
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        put(&mut new["metadata"], field, old["metadata"].get(field).cloned());
    }
}

fn count_generation(new: &mut Value, old: &Value) {
    let rest = |value: &Value| -> Map<String, Value> {
        let all = value.as_object().into_iter().flatten();
        let rest = all.filter(|(key, _)| !matches!(key.as_str(), "metadata" | "status"));
        rest.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
    let changed = i64::from(rest(new) != rest(old));
    new["metadata"]["generation"] = (generation + changed).into();
}

/// Whether nothing holds an object back that was asked to go.
fn is_released(value: &Value) -> bool {
    !value["metadata"]["deletionTimestamp"].is_null()
        && value["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) <= 0
        && list_at(value, "/metadata/finalizers").is_empty()
        && (value["kind"] != "Namespace" || list_at(value, "/spec/finalizers").is_empty())
}

fn list_at(value: &Value, pointer: &str) -> Vec<Value> {
    value.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Sets or, with `None`, removes a key.
fn put(object: &mut Value, key: &str, value: Option<Value>) {
    let Some(object) = object.as_object_mut() else { return };
    match value {
        Some(value) => drop(object.insert(key.to_owned(), value)),
        None => drop(object.remove(key)),
    }
}

pub fn not_served() -> Status {
    Status::new(
        skiff_proto::status::reason::NOT_FOUND,
        "the server could not find the requested resource",
    )
}

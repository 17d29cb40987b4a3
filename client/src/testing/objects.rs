//! The objects and their history.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use skiff_proto::status::reason;
use skiff_proto::{FieldSelector, Object, Resource, Selector, Status, resource};

use super::{SERVED, Served};
use crate::api::{Result, Target, WatchEvent};

/// Group and plural, namespace, name.
pub type Key = (String, String, String);

/// One step of the history.
#[derive(Debug, Clone)]
pub struct Change {
    pub revision: u64,
    /// Group and plural.
    pub resource: String,
    pub old: Option<Arc<Object>>,
    pub new: Option<Arc<Object>>,
    /// What was there before, under this change's version: how a removal is told.
    gone: Option<Arc<Object>>,
}

#[derive(Debug, Clone, Default)]
pub struct State {
    pub revision: u64,
    objects: BTreeMap<Key, Value>,
    history: Vec<Change>,
    /// Changes up to this revision are forgotten.
    compacted: u64,
}

/// Which objects a list or a watch is about.
#[derive(Debug, Clone)]
pub struct Selection {
    pub target: Target,
    pub labels: Selector,
    pub fields: FieldSelector,
}

impl State {
    pub fn new() -> Self {
        let mut state = Self::default();
        for name in ["default", "kube-system", "kube-node-lease", "kube-public"] {
            let namespace =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            state.put(&resource::NAMESPACES, namespace).expect("a namespace");
        }
        state
    }

    pub fn all(&self, resource: &Resource) -> Vec<Value> {
        let of = resource.group_resource();
        self.objects.iter().filter(|((r, ..), _)| *r == of).map(|(_, v)| v.clone()).collect()
    }

    pub fn find(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key)
    }

    pub fn value(&self, target: &Target) -> Result<Value> {
        let found = self.objects.get(&key(target)).cloned();
        found.ok_or_else(|| Status::not_found(&target.resource, &target.name))
    }

    pub fn select(&self, selection: &Selection) -> Vec<Arc<Object>> {
        let values = self.all(&selection.target.resource);
        let objects = values.iter().map(object);
        objects.filter(|object| selection.matches(object)).collect()
    }

    pub fn changes_of(&self, resource: &Resource) -> impl Iterator<Item = &Change> {
        let of = resource.group_resource();
        self.history.iter().filter(move |change| change.resource == of)
    }

    /// The first change after `revision`; `Expired` if it is forgotten.
    pub fn after(&self, revision: u64) -> Result<Option<&Change>> {
        if revision < self.compacted {
            let why = format!("too old resource version: {revision} ({})", self.compacted);
            return Err(Status::expired(why));
        }
        let at = self.history.partition_point(|change| change.revision <= revision);
        Ok(self.history.get(at))
    }

    /// The changes stay for the test's own questions; watches do not see them any more.
    pub fn compact(&mut self) {
        self.compacted = self.revision;
    }

    pub fn store(&mut self, key: Key, mut value: Value) -> Arc<Object> {
        self.revision += 1;
        value["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let new = object(&value);
        let old = self.objects.insert(key.clone(), value).as_ref().map(object);
        let gone = old.as_ref().map(|old| self.now(old));
        self.history.push(Change {
            revision: self.revision,
            resource: key.0,
            old,
            new: Some(new.clone()),
            gone,
        });
        new
    }

    /// The object as it was last, under the version of its removal.
    pub fn take(&mut self, key: &Key) -> Option<Arc<Object>> {
        let old = object(&self.objects.remove(key)?);
        self.revision += 1;
        let gone = self.now(&old);
        self.history.push(Change {
            revision: self.revision,
            resource: key.0.clone(),
            old: Some(old),
            new: None,
            gone: Some(gone.clone()),
        });
        Some(gone)
    }

    fn now(&self, old: &Object) -> Arc<Object> {
        let mut value: Value = old.parse().expect("JSON");
        value["metadata"]["resourceVersion"] = self.revision.to_string().into();
        object(&value)
    }

    pub fn dump(&self) -> String {
        let quiet = |key: &&Key| key.0 != "events";
        let lines = self.objects.keys().filter(quiet).map(|key| {
            let value = &self.objects[key];
            format!("{key:?} {} {}", value["metadata"]["deletionTimestamp"], value["status"])
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl Change {
    /// What a watcher of this selection sees: an object that steps into it is added, one that
    /// steps out is deleted.
    pub fn seen_by(&self, selection: &Selection) -> Option<WatchEvent> {
        if self.resource != selection.target.resource.group_resource() {
            return None;
        }
        let old = self.old.as_ref().filter(|object| selection.matches(object));
        let new = self.new.as_ref().filter(|object| selection.matches(object));
        match (old, new) {
            (None, None) => None,
            (None, Some(new)) => Some(WatchEvent::Added(new.clone())),
            (Some(_), Some(new)) => Some(WatchEvent::Modified(new.clone())),
            (Some(_), None) => self.gone.clone().map(WatchEvent::Deleted),
        }
    }
}

impl Selection {
    pub fn matches(&self, object: &Object) -> bool {
        let target = &self.target;
        (target.namespace.is_empty() || target.namespace == object.namespace())
            && (target.name.is_empty() || target.name == object.name())
            && self.labels.matches(object.labels())
            && (self.fields.is_empty() || self.fields_match(object))
    }

    /// A field that is absent is its zero value's text, as upstream compares it.
    fn fields_match(&self, object: &Object) -> bool {
        let value: Value = object.parse().expect("JSON");
        self.fields.matches(|path| {
            let found = path.split('.').fold(&value, |value, part| &value[part]);
            Some(found.as_str().unwrap_or_default())
        })
    }
}

pub fn key(target: &Target) -> Key {
    (target.resource.group_resource(), target.namespace.clone(), target.name.clone())
}

pub fn object(value: &Value) -> Arc<Object> {
    Arc::new(Object::from_json(Bytes::from(value.to_string())).expect("an object"))
}

/// The kind of a resource.
pub fn served(resource: &Resource) -> Result<&'static Served> {
    SERVED.iter().find(|served| served.resource == *resource).ok_or_else(|| {
        Status::new(reason::NOT_FOUND, "the server could not find the requested resource")
    })
}

//! An object: its canonical JSON, shared, with an index of what everybody asks for.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::meta::OwnerReference;
use crate::timestamp::Timestamp;

/// A Kubernetes object as it travels through the process: parsed once, then shared as
/// `Arc<Object>`. `json` is complete, `metadata.resourceVersion` included.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    pub json: Bytes,
    pub index: Index,
}

/// What lists, watches and caches look at without parsing the JSON again.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Index {
    pub api_version: String,
    pub kind: String,
    pub metadata: IndexMeta,
}

/// The part of `metadata` that is indexed.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IndexMeta {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub resource_version: String,
    pub generation: i64,
    pub labels: BTreeMap<String, String>,
    pub owner_references: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
    pub creation_timestamp: Option<Timestamp>,
    pub deletion_timestamp: Option<Timestamp>,
}

/// Namespace and name. The namespace of a cluster-scoped object is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

impl Object {
    /// Reads the index from an object's complete JSON.
    pub fn from_json(json: Bytes) -> Result<Self, serde_json::Error> {
        let index = serde_json::from_slice(&json)?;
        Ok(Self { json, index })
    }

    /// Reads the typed model that a component wants to see.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.json)
    }

    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(&self.index.metadata.namespace, &self.index.metadata.name)
    }

    pub fn name(&self) -> &str {
        &self.index.metadata.name
    }

    pub fn namespace(&self) -> &str {
        &self.index.metadata.namespace
    }

    pub fn uid(&self) -> &str {
        &self.index.metadata.uid
    }

    pub fn resource_version(&self) -> &str {
        &self.index.metadata.resource_version
    }

    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.index.metadata.labels
    }

    pub fn is_terminating(&self) -> bool {
        self.index.metadata.deletion_timestamp.is_some()
    }
}

impl ObjectKey {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

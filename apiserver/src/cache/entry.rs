//! One object as the cache keeps it: the shared object and, beside it, the values that field
//! selectors may ask for. Made once per write, from the value that the writer has anyway.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use skiff_proto::Object;
use skiff_proto::object::Index;

use crate::registry::Kind;
use crate::storage::splice::with_resource_version;

/// An object of the cache.
#[derive(Debug)]
pub struct Entry {
    pub object: Arc<Object>,
    /// The store's `mod_revision`; the object's resourceVersion.
    pub revision: i64,
    /// In the order of `Kind::selectable`.
    pub fields: Fields,
}

pub type Fields = Box<[Box<str>]>;

/// An object about to be written, whose revision is not known yet. Writer and watch make
/// one `Entry` of it, whoever comes first.
#[derive(Debug)]
pub struct Prepared {
    /// What the store keeps: canonical JSON without resourceVersion.
    pub value: Bytes,
    index: Index,
    fields: Fields,
    built: Mutex<Option<Arc<Entry>>>,
}

/// Why stored bytes cannot be an object.
#[derive(Debug, thiserror::Error)]
#[error("stored {kind} is not readable: {source}")]
pub struct Unreadable {
    kind: &'static str,
    source: serde_json::Error,
}

impl Entry {
    /// Reads what another server, or an earlier run, has written.
    pub fn from_stored(kind: &Kind, json: &[u8], revision: i64) -> Result<Arc<Self>, Unreadable> {
        let unreadable = |source| Unreadable { kind: kind.kind, source };
        let (index, fields) = if kind.selectable.is_empty() {
            (serde_json::from_slice(json).map_err(unreadable)?, Fields::default())
        } else {
            let value: Value = serde_json::from_slice(json).map_err(unreadable)?;
            (Index::deserialize(&value).map_err(unreadable)?, fields_of(kind, &value))
        };
        Ok(Arc::new(build(json, index, fields, revision)))
    }

    pub fn name(&self) -> &str {
        self.object.name()
    }

    /// The whole object, to be changed.
    pub fn parse(&self) -> Result<Value, skiff_proto::Status> {
        serde_json::from_slice(&self.object.json).map_err(skiff_proto::Status::internal)
    }

    /// The same object under another version: how a removal, or a step out of a selector, is told.
    pub fn object_at(&self, revision: i64) -> Arc<Object> {
        if revision == self.revision {
            return self.object.clone();
        }
        let mut index = self.object.index.clone();
        index.metadata.resource_version = revision.to_string();
        Arc::new(Object { json: with_resource_version(&self.object.json, revision), index })
    }
}

impl Prepared {
    /// `object` must not carry a resourceVersion.
    pub fn new(kind: &Kind, object: &Value) -> Result<Self, serde_json::Error> {
        Ok(Self {
            value: Bytes::from(serde_json::to_vec(object)?),
            index: Index::deserialize(object)?,
            fields: fields_of(kind, object),
            built: Mutex::new(None),
        })
    }

    /// The entry as of `revision`, shared by all who ask.
    pub fn entry(&self, revision: i64) -> Arc<Entry> {
        let mut built = self.built.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match &*built {
            Some(entry) if entry.revision == revision => entry.clone(),
            _ => {
                let (index, fields) = (self.index.clone(), self.fields.clone());
                let entry = Arc::new(build(&self.value, index, fields, revision));
                *built = Some(entry.clone());
                entry
            }
        }
    }

    /// The object as it would be, for a dry run: without a version.
    pub fn object(&self) -> Arc<Object> {
        Arc::new(Object { json: self.value.clone(), index: self.index.clone() })
    }
}

fn build(json: &[u8], mut index: Index, fields: Fields, revision: i64) -> Entry {
    index.metadata.resource_version = revision.to_string();
    let json = with_resource_version(json, revision);
    Entry { object: Arc::new(Object { json, index }), revision, fields }
}

fn fields_of(kind: &Kind, object: &Value) -> Fields {
    kind.selectable
        .iter()
        .map(|path| kind.field_text(object, path).unwrap_or_default().into())
        .collect()
}

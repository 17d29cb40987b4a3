//! One object as the cache keeps it: the shared object and, beside it, the values that field
//! selectors may ask for. Made once per write, from the value that the writer has anyway.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use skiff_proto::Object;
use skiff_proto::object::Index;

use crate::registry::Kind;
use crate::storage::print::{Printed, print};
use crate::storage::splice::{self, Slot, with_resource_version};

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
    slot: Option<Slot>,
    stage: Mutex<Stage>,
}

#[derive(Debug)]
enum Stage {
    /// Not written yet.
    Parts(Box<Index>, Fields),
    Built(Arc<Entry>),
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
        Ok(Arc::new(build(json, Slot::find(json), index, fields, revision)))
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
        let Printed { json, slot } = print(object);
        Ok(Self {
            slot: slot.or_else(|| Slot::find(&json)),
            value: json,
            stage: Mutex::new(Stage::Parts(
                Box::new(Index::deserialize(object)?),
                fields_of(kind, object),
            )),
        })
    }

    /// The entry as of `revision`, shared by all who ask.
    pub fn entry(&self, revision: i64) -> Arc<Entry> {
        let mut stage = self.stage();
        let (index, fields) = match &mut *stage {
            Stage::Built(entry) if entry.revision == revision => return entry.clone(),
            Stage::Built(entry) => (entry.object.index.clone(), entry.fields.clone()),
            Stage::Parts(index, fields) => (std::mem::take(&mut **index), std::mem::take(fields)),
        };
        let entry = Arc::new(build(&self.value, self.slot, index, fields, revision));
        *stage = Stage::Built(entry.clone());
        entry
    }

    /// The object as it would be, for a dry run: without a version.
    pub fn object(&self) -> Arc<Object> {
        let mut index = match &*self.stage() {
            Stage::Parts(index, _) => Index::clone(index),
            Stage::Built(entry) => entry.object.index.clone(),
        };
        index.metadata.resource_version.clear();
        Arc::new(Object { json: self.value.clone(), index })
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn build(
    json: &[u8],
    slot: Option<Slot>,
    mut index: Index,
    fields: Fields,
    revision: i64,
) -> Entry {
    index.metadata.resource_version = revision.to_string();
    let json = match slot {
        Some(slot) => splice::fill(json, slot, revision),
        None => Bytes::copy_from_slice(json),
    };
    Entry { object: Arc::new(Object { json, index }), revision, fields }
}

fn fields_of(kind: &Kind, object: &Value) -> Fields {
    kind.selectable
        .iter()
        .map(|path| kind.field_text(object, path).unwrap_or_default().into())
        .collect()
}

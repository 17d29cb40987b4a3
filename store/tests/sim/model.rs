//! What the store should be at every revision, put together from what its members applied.

use std::collections::BTreeMap;

use bytes::Bytes;
use skiff_store::kv::*;

use super::history::Record;

/// The events of one revision, in order.
pub type Changes = Vec<Event>;

#[derive(Debug, Default)]
pub struct Model {
    pub revisions: BTreeMap<Revision, Changes>,
    /// Of each key: the revisions that changed it, and what it was then.
    keys: BTreeMap<Bytes, BTreeMap<Revision, Option<KeyValue>>>,
}

impl Model {
    /// From all members' applied events; an error if they disagree, or if one of them does
    /// not follow from those before it.
    pub fn new(record: &Record) -> Result<Self, String> {
        let mut model = Self::default();
        for (at, audit) in record.audits.iter().enumerate() {
            let mut own: BTreeMap<Revision, Changes> = BTreeMap::new();
            for event in &audit.events {
                own.entry(event.kv.mod_revision).or_default().push(event.clone());
            }
            for (revision, changes) in own {
                model.agree(at, revision, changes)?;
            }
        }
        model.replay(record)?;
        Ok(model)
    }

    fn agree(&mut self, at: usize, revision: Revision, changes: Changes) -> Result<(), String> {
        match self.revisions.get(&revision) {
            Some(known) if *known != changes => Err(format!(
                "members disagree about revision {revision}: member {at} applied {}, another {}",
                show(&changes),
                show(known)
            )),
            _ => {
                self.revisions.insert(revision, changes);
                Ok(())
            }
        }
    }

    fn replay(&mut self, record: &Record) -> Result<(), String> {
        let mut expected = 2;
        for (revision, changes) in &self.revisions {
            if *revision != expected {
                return Err(format!("no member told of revision {expected}, yet of {revision}"));
            }
            expected += 1;
            for event in changes {
                let versions = self.keys.entry(event.kv.key.clone()).or_default();
                let before = versions.last_key_value().and_then(|(_, kv)| kv.clone());
                let follows = match (event.kind, &before) {
                    (EventType::Delete, before) => before.is_some(),
                    (EventType::Put, Some(before)) => {
                        event.kv.version == before.version + 1
                            && event.kv.create_revision == before.create_revision
                    }
                    (EventType::Put, None) => {
                        event.kv.version == 1 && event.kv.create_revision == *revision
                    }
                };
                if !follows {
                    return Err(format!("{event:?} does not follow {before:?}"));
                }
                let put = event.kind == EventType::Put;
                versions.insert(*revision, put.then(|| event.kv.clone()));
            }
        }
        if record.highest_seen >= expected {
            return Err(format!(
                "a client saw revision {}, members applied up to {}",
                record.highest_seen,
                expected - 1
            ));
        }
        Ok(())
    }

    pub fn last(&self) -> Revision {
        self.revisions.last_key_value().map_or(1, |(revision, _)| *revision)
    }

    pub fn get(&self, key: &Bytes, at: Revision) -> Option<&KeyValue> {
        self.keys.get(key)?.range(..=at).next_back()?.1.as_ref()
    }

    pub fn range(&self, range: &KeyRange, at: Revision) -> Vec<KeyValue> {
        let keys = self.keys.keys().filter(|key| range.contains(key));
        keys.filter_map(|key| self.get(key, at)).cloned().collect()
    }
}

pub fn show(changes: &[Event]) -> String {
    let text = |bytes: &Bytes| {
        String::from_utf8_lossy(bytes).split(' ').next().unwrap_or_default().to_owned()
    };
    let one = |event: &Event| match event.kind {
        EventType::Put => format!("{}={}", text(&event.kv.key), text(&event.kv.value)),
        EventType::Delete => format!("-{}", text(&event.kv.key)),
    };
    let all: Vec<_> = changes.iter().map(one).collect();
    format!("[{}]", all.join(", "))
}

//! Changing what is stored: read, plan, write only if it is still as it was read, else again.
//! Upstream calls this GuaranteedUpdate.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use skiff_proto::{Object, Status};

use super::{Core, meta, service};
use crate::cache::{Entry, Prepared, ResourceCache};
use crate::registry::Kind;
use crate::storage::{Guard, Outcome, Write, commit, key};

/// Writers of one object that overtake each other; each round one of them wins.
const MAX_ATTEMPTS: usize = 256;

/// One object's place.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub kind: &'static Kind,
    pub namespace: &'a str,
    pub name: &'a str,
}

/// The object as it was read.
#[derive(Debug)]
pub struct Seen {
    pub entry: Arc<Entry>,
    /// Without resourceVersion, which is `entry.revision`.
    pub value: Value,
}

/// What to do about it.
#[derive(Debug)]
pub enum Next {
    /// Nothing to write.
    Keep,
    Put(Value, service::Claims),
    Remove,
}

#[derive(Debug)]
pub struct Changed {
    pub object: Arc<Object>,
    pub gone: bool,
}

impl Place<'_> {
    pub fn path(&self) -> String {
        key::path(self.namespace, self.name)
    }

    pub fn not_found(&self) -> Status {
        Status::not_found(&self.kind.resource, self.name)
    }
}

impl Core {
    /// The newest state of an object.
    pub async fn read(&self, place: Place<'_>) -> Result<Arc<Entry>, Status> {
        let cache = self.hub.cache(place.kind).await?;
        self.hub.fresh().await?;
        cache.get(&place.path()).ok_or_else(|| place.not_found())
    }

    /// Changes an object as `plan` says. The plan may first see a state that is a moment old:
    /// what it then refuses or leaves alone is asked again with the newest.
    pub async fn change(
        &self,
        place: Place<'_>,
        dry_run: bool,
        mut plan: impl FnMut(&Seen) -> Result<Next, Status>,
    ) -> Result<Changed, Status> {
        let cache = self.hub.cache(place.kind).await?;
        let path = place.path();
        let store_key = Bytes::from([cache.prefix.as_str(), &path].concat());
        let mut newest = false;
        let mut entry = match cache.get(&path) {
            Some(entry) => entry,
            None => {
                newest = true;
                self.read(place).await?
            }
        };
        for _ in 0..MAX_ATTEMPTS {
            let seen = see(entry)?;
            let planned = plan(&seen);
            let settled = matches!(planned, Err(_) | Ok(Next::Keep));
            if settled && !newest {
                newest = true;
                entry = self.read(place).await?;
                if entry.revision != seen.entry.revision {
                    continue;
                }
            }
            let (next, claims) = match planned? {
                Next::Keep => {
                    return Ok(Changed { object: seen.entry.object.clone(), gone: false });
                }
                Next::Put(value, claims) => (Some(value), claims),
                Next::Remove => (None, service::Claims::release(place.kind, &seen.value)),
            };
            match self.attempt(&cache, &store_key, &seen, next, &claims, dry_run).await? {
                Attempt::Done(changed) => return Ok(changed),
                Attempt::Again(current) => {
                    entry = current.ok_or_else(|| place.not_found())?;
                    newest = true;
                }
            }
        }
        Err(Status::modified(&place.kind.resource, place.name))
    }

    async fn attempt(
        &self,
        cache: &ResourceCache,
        store_key: &Bytes,
        seen: &Seen,
        next: Option<Value>,
        claims: &service::Claims,
        dry_run: bool,
    ) -> Result<Attempt, Status> {
        let prepared = match &next {
            Some(value) => {
                Some(Arc::new(Prepared::new(cache.kind, value).map_err(Status::internal)?))
            }
            None => None,
        };
        if dry_run {
            let object = prepared.as_ref().map_or(seen.entry.object.clone(), |p| p.object());
            return Ok(Attempt::Done(Changed { object, gone: next.is_none() }));
        }
        let write = Write {
            key: store_key.clone(),
            expected: seen.entry.revision,
            lease: match &next {
                Some(_) => self.lease(cache.kind).await?,
                None => 0,
            },
            object: prepared,
            guards: claims.guards().collect(),
            beside: claims.beside(),
        };
        match commit(&*self.kv, &self.hub, write).await? {
            Outcome::Done { revision, entry } => {
                let gone = entry.is_none();
                let object =
                    entry.map_or_else(|| seen.entry.object_at(revision), |e| e.object.clone());
                Ok(Attempt::Done(Changed { object, gone }))
            }
            Outcome::Lost { object, guards } => {
                claims.lost(cache.kind, seen.entry.name(), &guards)?;
                let entry = match object {
                    Some(kv) => Some(
                        Entry::from_stored(cache.kind, &kv.value, kv.mod_revision)
                            .map_err(Status::internal)?,
                    ),
                    None => None,
                };
                Ok(Attempt::Again(entry))
            }
        }
    }

    /// The lease of a kind whose objects do not last.
    pub(super) async fn lease(&self, kind: &Kind) -> Result<i64, Status> {
        if kind.resource.plural != "events" {
            return Ok(0);
        }
        self.event_lease.current(&*self.kv, self.config.event_ttl).await
    }
}

enum Attempt {
    Done(Changed),
    /// Somebody was faster; `None`: it is gone.
    Again(Option<Arc<Entry>>),
}

fn see(entry: Arc<Entry>) -> Result<Seen, Status> {
    let mut value = entry.parse()?;
    meta::remove(&mut value, "resourceVersion");
    Ok(Seen { entry, value })
}

/// The guard on a namespace that must stay as it is while something is made in it.
pub fn namespace_guard(name: &str, revision: i64) -> Guard {
    let prefix = key::prefix(&skiff_proto::resource::NAMESPACES);
    Guard { key: Bytes::from(prefix + name), revision }
}

//! Carrying out ownership, the same for every controller that owns by selector: finding what
//! may be its own, waking those whom an orphan may concern, adopting and releasing.

use std::collections::HashSet;

use serde_json::Value;
use skiff_client::Target;
use skiff_client::cache::Entry;
use skiff_proto::{LabelSelector, Object, ObjectKey, Resource};

use crate::caches::pod::controller_of;
use crate::caches::store::Store;
use crate::caches::term;
use crate::ownership;
use crate::write::{Failure, Result, Writer};

/// What names `owner` as its controller, and what has none in its namespace.
pub fn candidates<T: Send + Sync + 'static>(store: &Store<T>, owner: &Object) -> Vec<Entry<T>> {
    // Orphans first: one that is adopted in between is then seen twice, not missed.
    let mut found = store.by(&term::orphans(owner.namespace()));
    found.extend(store.by(&term::owner(owner.uid())));
    let mut seen = HashSet::new();
    found.retain(|entry| seen.insert(entry.object.key()));
    found
}

/// The owners whose selector matches an object that has no controller. An object without
/// labels concerns nobody.
pub fn adopters<T: Send + Sync + 'static>(
    owners: &Store<T>,
    orphan: &Object,
    selector: impl Fn(&T) -> &LabelSelector,
) -> Vec<ObjectKey> {
    if controller_of(orphan).is_some() || orphan.labels().is_empty() {
        return Vec::new();
    }
    let matches = |owner: &Entry<T>| {
        let selector = selector(&owner.value).compile();
        selector.is_ok_and(|s| !s.is_empty() && s.matches(orphan.labels()))
    };
    let owners = owners.by(&term::namespace(orphan.namespace()));
    owners.iter().filter(|owner| matches(owner)).map(|owner| owner.object.key()).collect()
}

/// Asks the server first: an owner that is being removed, or another of its name, adopts nothing.
pub async fn adopt(
    writer: &Writer,
    (owners, owner): (&Resource, &Object),
    (resource, orphan): (&Resource, &Object),
) -> Result<()> {
    let live = writer.get(&Target::of(owners, owner)).await?;
    if live.uid() != owner.uid() || live.is_terminating() {
        return Err(Failure::Waiting(format!("{owners} {} to go", owner.key())));
    }
    let edit = |value: &mut Value| ownership::adopt(value, owner);
    writer.update(resource, orphan, edit).await.map(drop)
}

/// Takes the owner's reference off an object that it no longer selects.
pub async fn release(
    writer: &Writer,
    owner: &Object,
    resource: &Resource,
    object: &Object,
) -> Result<()> {
    let edit = |value: &mut Value| ownership::release(value, owner.uid());
    writer.update(resource, object, edit).await.map(drop)
}

//! The key index: every key's versions, in memory, sorted by key.
//!
//! A range at any revision is a walk here; only the values of its hits are fetched from
//! elsewhere. Most keys have one version, which sits inside the map's node.
//!
//! ```text
//! "a" -> latest (9.0, v3)  older [(4.0, v1), (6.0, v2)]
//! "b" -> latest (7.0, tombstone)  older [(5.0, v1)]
//!
//! compact(6): "a" keeps 6 and 9, "b" keeps 7 and 5. What a range at 6 sees stays.
//! compact(8): "a" keeps 6 (seen at 8) and 9, "b" is gone.
//! ```

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::record::Record;
use super::revision::Rev;
use crate::kv::{KeyRange, Revision};

/// What the index knows of one record without fetching it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub rev: Rev,
    pub create: Revision,
    /// 0: a tombstone.
    pub version: i64,
    /// Of the record; see [`super::record::Record::checksum`].
    pub checksum: u32,
    /// Bytes of key and value.
    pub size: u32,
}

impl Version {
    pub fn of(rev: Rev, record: &Record) -> Self {
        Self {
            rev,
            create: record.create,
            version: record.version,
            checksum: record.checksum(rev),
            size: record.size(),
        }
    }

    pub fn is_tombstone(&self) -> bool {
        self.version == 0
    }
}

#[derive(Debug)]
struct Versions {
    latest: Version,
    /// Oldest first.
    older: Vec<Version>,
}

impl Versions {
    fn at(&self, revision: Revision) -> Option<&Version> {
        if self.latest.rev.main <= revision {
            return Some(&self.latest);
        }
        let newer = self.older.partition_point(|v| v.rev.main <= revision);
        self.older[..newer].last()
    }
}

#[derive(Debug, Default)]
pub struct Index {
    keys: BTreeMap<Bytes, Versions>,
    /// Keys that a compaction at or after the revision has something to do for, in order.
    garbage: VecDeque<(Revision, Bytes)>,
}

impl Index {
    /// The version of a live key as of `revision`.
    pub fn get(&self, key: &[u8], revision: Revision) -> Option<Version> {
        let version = self.keys.get(key)?.at(revision)?;
        (!version.is_tombstone()).then_some(*version)
    }

    /// Live keys of a range as of `revision`, in key order.
    pub fn range(
        &self,
        range: &KeyRange,
        revision: Revision,
    ) -> impl Iterator<Item = (&Bytes, Version)> {
        // Most ask for one key, and finding both ends of a range costs twice as much.
        let (one, many) = match range {
            KeyRange::One(key) => (self.keys.get_key_value(key), None),
            range => (None, Some(self.keys.range::<Bytes, _>(range.bounds()))),
        };
        one.into_iter().chain(many.into_iter().flatten()).filter_map(move |(key, versions)| {
            let version = versions.at(revision)?;
            (!version.is_tombstone()).then_some((key, *version))
        })
    }

    /// Adds the newest version of a key. Revisions only grow.
    pub fn add(&mut self, key: &Bytes, version: Version) {
        // Its own slice of the key is found with it, for the list of garbage.
        let found = self.keys.range_mut::<Bytes, _>(key..).next();
        if let Some((key, versions)) = found.filter(|(found, _)| *found == key) {
            debug_assert!(versions.latest.rev < version.rev);
            versions.older.push(versions.latest);
            versions.latest = version;
            self.garbage.push_back((version.rev.main, key.clone()));
            return;
        }
        // The key arrives as a slice of a whole log entry, which must not live as long.
        let key = Bytes::copy_from_slice(key);
        if version.is_tombstone() {
            self.garbage.push_back((version.rev.main, key.clone()));
        }
        self.keys.insert(key, Versions { latest: version, older: Vec::new() });
    }

    /// Forgets what no range at `revision` or later can see, and returns it. A tombstone at
    /// `revision` itself stays: a watch from there still has to report that delete.
    pub fn compact(&mut self, revision: Revision) -> Vec<Version> {
        let mut removed = Vec::new();
        let mut kept = Vec::new();
        while self.garbage.front().is_some_and(|(at, _)| *at <= revision) {
            let Some((at, key)) = self.garbage.pop_front() else { break };
            let Some(versions) = self.keys.get_mut(&key) else { continue };
            let superseded = versions.older.partition_point(|v| v.rev.main <= revision);
            let latest_covers = versions.latest.rev.main <= revision;
            let drop = if latest_covers { superseded } else { superseded.saturating_sub(1) };
            removed.extend(versions.older.drain(..drop));
            // A tombstone that is the oldest one left tells nothing any more.
            if versions.older.first().is_some_and(|v| v.is_tombstone() && v.rev.main < revision) {
                removed.push(versions.older.remove(0));
            }
            if versions.older.is_empty() {
                versions.older.shrink_to_fit();
                if versions.latest.is_tombstone() && versions.latest.rev.main < revision {
                    removed.push(versions.latest);
                    self.keys.remove(&key);
                    continue;
                }
            }
            let latest = self.keys.get(&key);
            let boundary_tombstone = latest.is_some_and(|v| {
                let first = v.older.first().unwrap_or(&v.latest);
                first.is_tombstone() && first.rev.main <= revision
            });
            if boundary_tombstone {
                kept.push((at, key));
            }
        }
        for entry in kept.into_iter().rev() {
            self.garbage.push_front(entry);
        }
        removed
    }

    /// Keys with any version, tombstones included.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(main: Revision, version: i64) -> Version {
        Version { rev: Rev::first_of(main), create: 1, version, checksum: 0, size: 0 }
    }

    fn index(writes: &[(&'static str, Revision, i64)]) -> Index {
        let mut index = Index::default();
        for (key, main, v) in writes {
            index.add(&Bytes::from_static(key.as_bytes()), version(*main, *v));
        }
        index
    }

    fn removed(index: &mut Index, revision: Revision) -> Vec<Revision> {
        index.compact(revision).iter().map(|v| v.rev.main).collect()
    }

    #[test]
    fn a_key_is_seen_as_of_any_revision() {
        let index = index(&[("a", 2, 1), ("a", 4, 2), ("a", 6, 0), ("a", 8, 1)]);
        let seen: Vec<_> = (1..=9).map(|r| index.get(b"a", r).map(|v| v.rev.main)).collect();
        let (s2, s4, s8) = (Some(2), Some(4), Some(8));
        assert_eq!(seen, [None, s2, s2, s4, s4, None, None, s8, s8]);
    }

    #[test]
    fn compaction_keeps_what_its_own_revision_sees() {
        let mut index = index(&[("a", 4, 1), ("b", 5, 1), ("a", 6, 2), ("b", 7, 0), ("a", 9, 3)]);
        assert_eq!(removed(&mut index, 6), [4]);
        assert_eq!(index.get(b"b", 6).unwrap().rev.main, 5);
        assert_eq!(removed(&mut index, 8), [5, 7]);
        assert_eq!(index.len(), 1);
        assert_eq!(index.get(b"a", 8).unwrap().rev.main, 6);
        assert_eq!(removed(&mut index, 9), [6]);
        assert_eq!(removed(&mut index, 9), [] as [i64; 0]);
    }

    /// etcd #18089, #19179: a delete at the compaction's revision can still be watched.
    #[test]
    fn a_tombstone_at_the_compaction_boundary_stays_until_the_next() {
        let mut index = index(&[("a", 2, 1), ("a", 3, 0)]);
        assert_eq!(removed(&mut index, 3), [2]);
        assert_eq!(index.len(), 1);
        assert_eq!(removed(&mut index, 4), [3]);
        assert!(index.is_empty());
    }

    #[test]
    fn a_key_that_came_back_loses_its_old_life() {
        let mut index = index(&[("a", 2, 1), ("a", 3, 0), ("a", 5, 1), ("a", 7, 2)]);
        assert_eq!(removed(&mut index, 3), [2]);
        assert_eq!(removed(&mut index, 4), [3]);
        assert_eq!(index.get(b"a", 5).unwrap().rev.main, 5);
        assert_eq!(removed(&mut index, 7), [5]);
    }
}

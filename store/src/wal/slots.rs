//! Which entries the log has, where they are, and the newest ones themselves.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::DiskFile;
use super::frame::Entry;

/// Where an entry's body is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    pub segment: u64,
    pub offset: u64,
    pub len: u32,
    pub crc: u32,
}

struct Slot {
    /// Unique, so that a late write does not claim the slot of an entry that replaced its own.
    id: u64,
    term: u64,
    kind: u8,
    len: u32,
    /// In memory while it is not on disk, and a while longer.
    body: Option<Bytes>,
    location: Option<Location>,
}

#[derive(Default)]
pub struct Slots {
    /// Of the first slot.
    first: u64,
    slots: VecDeque<Slot>,
    pub purged: Option<(u64, u64)>,
    pub state: Option<Bytes>,
    pub files: BTreeMap<u64, Arc<dyn DiskFile>>,
    /// Of all bodies, in memory or not.
    pub bytes: u64,
    cached_bytes: usize,
    /// Slots before this one have no body in memory.
    cached_from: u64,
    next_id: u64,
}

impl Slots {
    /// Adds the entry in memory; its id is for [`Slots::written`].
    pub fn push(&mut self, entry: &Entry) -> u64 {
        self.push_slot(entry, None)
    }

    /// Adds an entry that is on disk already.
    pub fn push_recovered(&mut self, entry: &Entry, location: Location) {
        self.push_slot(entry, Some(location));
    }

    fn push_slot(&mut self, entry: &Entry, location: Option<Location>) -> u64 {
        if self.slots.is_empty() {
            self.first = entry.index;
            self.cached_from = entry.index;
        }
        debug_assert_eq!(entry.index, self.first + self.slots.len() as u64);
        let id = self.next_id;
        self.next_id += 1;
        let len = entry.body.len() as u32;
        self.bytes += u64::from(len);
        let body = location.is_none().then(|| entry.body.clone());
        if body.is_some() {
            self.cached_bytes += len as usize;
        } else {
            self.cached_from = entry.index + 1;
        }
        self.slots.push_back(Slot { id, term: entry.term, kind: entry.kind, len, body, location });
        id
    }

    pub fn next_index(&self) -> Option<u64> {
        if self.slots.is_empty() {
            self.purged.map(|(index, _)| index + 1)
        } else {
            Some(self.first + self.slots.len() as u64)
        }
    }

    pub fn last(&self) -> Option<(u64, u64)> {
        match self.slots.back() {
            Some(slot) => Some((self.first + self.slots.len() as u64 - 1, slot.term)),
            None => self.purged,
        }
    }

    /// Index of the first entry that is there.
    pub fn first(&self) -> Option<u64> {
        (!self.slots.is_empty()).then_some(self.first)
    }

    pub fn cut(&mut self, after: Option<u64>) {
        let keep = after.map_or(0, |after| (after + 1).saturating_sub(self.first));
        while self.slots.len() as u64 > keep {
            if let Some(slot) = self.slots.pop_back() {
                self.forget(slot);
            }
        }
    }

    pub fn purge(&mut self, index: u64, term: u64) {
        while !self.slots.is_empty() && self.first <= index {
            if let Some(slot) = self.slots.pop_front() {
                self.forget(slot);
            }
            self.first += 1;
        }
        self.cached_from = self.cached_from.max(self.first);
        self.purged = self.purged.max(Some((index, term)));
    }

    fn forget(&mut self, slot: Slot) {
        self.bytes -= u64::from(slot.len);
        if slot.body.is_some() {
            self.cached_bytes -= slot.len as usize;
        }
    }

    /// The entry is on disk now.
    pub fn written(&mut self, index: u64, id: u64, location: Location) {
        let Some(at) = index.checked_sub(self.first) else { return };
        if let Some(slot) = self.slots.get_mut(at as usize)
            && slot.id == id
        {
            slot.location = Some(location);
        }
    }

    /// Lets go of the oldest bodies that are on disk while there are too many bytes.
    pub fn trim(&mut self, limit_bytes: usize) {
        while self.cached_bytes > limit_bytes {
            let Some(at) = self.cached_from.checked_sub(self.first) else { return };
            let Some(slot) = self.slots.get_mut(at as usize) else { return };
            if slot.location.is_none() {
                return;
            }
            if slot.body.take().is_some() {
                self.cached_bytes -= slot.len as usize;
            }
            self.cached_from += 1;
        }
    }

    /// Entries from `from` to before `to`. Bodies that have to be fetched are left empty and
    /// put on the list.
    pub fn read(
        &self,
        from: u64,
        to: u64,
        fetch: &mut Vec<(usize, Location, Arc<dyn DiskFile>)>,
    ) -> io::Result<Vec<Entry>> {
        let start = from.max(self.first);
        let end = to.min(self.first + self.slots.len() as u64);
        let mut entries = Vec::new();
        for index in start..end {
            let slot = &self.slots[(index - self.first) as usize];
            let body = match (&slot.body, slot.location) {
                (Some(body), _) => body.clone(),
                (None, Some(location)) => {
                    let gone = || {
                        io::Error::other(format!("the segment of log entry {index} is not open"))
                    };
                    let file = self.files.get(&location.segment).ok_or_else(gone)?;
                    fetch.push((entries.len(), location, file.clone()));
                    Bytes::new()
                }
                (None, None) => {
                    return Err(io::Error::other(format!("log entry {index} is nowhere")));
                }
            };
            entries.push(Entry { index, term: slot.term, kind: slot.kind, body });
        }
        Ok(entries)
    }

    /// How many entries up to `index` take so many bytes at most.
    pub fn entries_within(&self, bytes: u64, index: u64) -> u64 {
        let end = (index + 1).saturating_sub(self.first).min(self.slots.len() as u64);
        let mut sum = 0;
        let newest_first = self.slots.range(..end as usize).rev();
        let within = newest_first.take_while(|slot| {
            sum += u64::from(slot.len);
            sum <= bytes
        });
        within.count() as u64
    }

    /// The oldest segment that an entry still needs.
    pub fn oldest_segment(&self) -> Option<u64> {
        self.slots.front()?.location.map(|location| location.segment)
    }
}

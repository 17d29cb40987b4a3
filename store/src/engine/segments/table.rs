//! What lies in a segment, as it is known in memory. Pure.

use std::ops::Range;

use crate::mvcc::revision::Rev;

/// A record that is still wanted, and where it is in its segment's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub rev: Rev,
    pub at: u32,
    pub len: u32,
}

impl Slot {
    fn bytes(&self) -> u64 {
        u64::from(self.len) + RECORD_BYTES
    }
}

/// A segment's wanted records, in the order of their revisions.
#[derive(Debug, Default)]
pub struct Table {
    slots: Vec<Slot>,
    live_bytes: u64,
    /// What is in the file and not wanted any more.
    dead: Vec<Rev>,
    dead_bytes: u64,
    /// How many removals the file tells of, of its own records or earlier segments'.
    pub removals: usize,
}

/// What a record takes beside its own bytes, and what a removal takes.
const RECORD_BYTES: u64 = 6;
pub const REMOVAL_BYTES: u64 = 4;

impl Table {
    /// Adds a record behind the ones that are there.
    pub fn push(&mut self, slot: Slot) {
        debug_assert!(self.slots.last().is_none_or(|last| last.rev < slot.rev));
        self.live_bytes += slot.bytes();
        self.slots.push(slot);
    }

    /// Forgets those of some revisions, which are sorted.
    pub fn remove(&mut self, revs: &[Rev]) {
        let Some((first, last)) = self.slots.first().zip(self.slots.last()) else { return };
        let from = revs.partition_point(|rev| *rev < first.rev);
        let to = revs.partition_point(|rev| *rev <= last.rev);
        let Some(mut revs) = revs.get(from..to).filter(|revs| !revs.is_empty()) else { return };
        let (dead, mut dead_bytes) = (&mut self.dead, 0);
        self.slots.retain(|slot| {
            while revs.first().is_some_and(|rev| *rev < slot.rev) {
                revs = &revs[1..];
            }
            let gone = revs.first() == Some(&slot.rev);
            if gone {
                dead.push(slot.rev);
                dead_bytes += slot.bytes();
            }
            !gone
        });
        self.live_bytes -= dead_bytes;
        self.dead_bytes += dead_bytes;
    }

    pub fn get(&self, rev: Rev) -> Option<Slot> {
        // Where it is if nothing has gone and every transaction wrote one record.
        let first = self.slots.first()?.rev;
        let near = usize::try_from(rev.main.checked_sub(first.main)?).ok()?;
        if let Some(slot) = self.slots.get(near).filter(|slot| slot.rev == rev) {
            return Some(*slot);
        }
        let at = self.slots.binary_search_by_key(&rev, |slot| slot.rev).ok()?;
        Some(self.slots[at])
    }

    /// The wanted ones of a range, both ends included.
    pub fn within(&self, from: Rev, to: Rev) -> &[Slot] {
        let range = self.slots.partition_point(|slot| slot.rev < from)
            ..self.slots.partition_point(|slot| slot.rev <= to);
        self.slots.get(range).unwrap_or(&[])
    }

    /// Records that are in the file and not wanted any more.
    pub fn dead(&self) -> &[Rev] {
        &self.dead
    }

    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub fn last(&self) -> Option<Rev> {
        self.slots.last().map(|slot| slot.rev)
    }

    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    pub fn dead_bytes(&self) -> u64 {
        self.dead_bytes
    }
}

/// Cuts slots into runs that are worth one read each: neighbours, with small gaps between them,
/// of so many bytes at most unless a single record is larger.
pub fn reads(slots: &[Slot], max_bytes: u32) -> impl Iterator<Item = (Range<u32>, &[Slot])> {
    let mut rest = slots;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let mut end = first.at + first.len;
        let fits = |slot: &Slot| {
            let close = slot.at - end <= GAP_BYTES && slot.at + slot.len - first.at <= max_bytes;
            end = slot.at + slot.len;
            close
        };
        let more = rest[1..].iter().take_while({
            let mut fits = fits;
            move |slot| fits(slot)
        });
        let (run, left) = rest.split_at(1 + more.count());
        rest = left;
        let last = &run[run.len() - 1];
        Some((first.at..last.at + last.len, run))
    })
}

/// Reading so much for nothing costs less than asking once more.
const GAP_BYTES: u32 = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(main: i64, at: u32, len: u32) -> Slot {
        Slot { rev: Rev::first_of(main), at, len }
    }

    fn table(slots: &[Slot]) -> Table {
        let mut table = Table::default();
        slots.iter().for_each(|slot| table.push(*slot));
        table
    }

    #[test]
    fn what_is_removed_is_counted_and_not_found_any_more() {
        let mut table = table(&[slot(3, 0, 10), slot(4, 10, 20), slot(8, 30, 5), slot(9, 35, 5)]);
        let revs: Vec<_> = [1, 4, 5, 9, 12].map(Rev::first_of).to_vec();
        table.remove(&revs);
        assert_eq!(table.slots(), [slot(3, 0, 10), slot(8, 30, 5)]);
        assert_eq!((table.live_bytes(), table.dead_bytes()), (15 + 12, 25 + 12));
        assert_eq!(table.get(Rev::first_of(4)), None);
        assert_eq!(table.get(Rev::first_of(8)), Some(slot(8, 30, 5)));
        assert_eq!(table.get(Rev::first_of(1)), None);
        table.remove(&revs);
        assert_eq!(table.dead(), [4, 9].map(Rev::first_of));
        assert_eq!(table.within(Rev::first_of(4), Rev::first_of(8)), [slot(8, 30, 5)]);
        assert_eq!(table.within(Rev::first_of(8), Rev::first_of(4)), []);
    }

    #[test]
    fn neighbours_are_read_together() {
        let far = GAP_BYTES + 1;
        let slots = [slot(1, 8, 10), slot(2, 20, 10), slot(3, 30 + far, 4), slot(4, 40 + far, 90)];
        let found: Vec<_> = reads(&slots, 50).map(|(range, run)| (range, run.len())).collect();
        assert_eq!(found, [(8..30, 2), (30 + far..34 + far, 1), (40 + far..130 + far, 1)]);
        assert_eq!(reads(&[], 50).count(), 0);
    }
}

//! The newest records, in memory: what the engine has not taken yet, and what is asked for
//! most. Bounded in bytes, but a record never leaves before the engine has it.

use std::collections::VecDeque;

use super::record::Record;
use super::revision::Rev;

/// What a record costs besides its key and value.
const OVERHEAD_BYTES: usize = 128;

#[derive(Debug)]
pub struct Recent {
    records: VecDeque<(Rev, Record)>,
    bytes: usize,
    limit_bytes: usize,
}

impl Recent {
    pub fn new(limit_bytes: usize) -> Self {
        Self { records: VecDeque::new(), bytes: 0, limit_bytes }
    }

    pub fn push(&mut self, rev: Rev, record: Record) {
        debug_assert!(self.records.back().is_none_or(|(last, _)| *last < rev));
        self.bytes += record.size() as usize + OVERHEAD_BYTES;
        self.records.push_back((rev, record));
    }

    pub fn get(&self, rev: Rev) -> Option<&Record> {
        // Most reads ask for what was written last.
        let (first, _) = self.records.front()?;
        if rev < *first {
            return None;
        }
        // Where it is if every transaction wrote one record, as most do.
        let near = usize::try_from(rev.main - first.main).ok()?;
        if let Some((at, record)) = self.records.get(near)
            && *at == rev
        {
            return Some(record);
        }
        let at = self.records.binary_search_by_key(&rev, |(rev, _)| *rev).ok()?;
        Some(&self.records[at].1)
    }

    /// Records from `rev` on, in order.
    pub fn from(&self, rev: Rev) -> impl Iterator<Item = &(Rev, Record)> {
        let start = self.records.partition_point(|(at, _)| *at < rev);
        self.records.range(start..)
    }

    /// The oldest one; everything later is here.
    pub fn first(&self) -> Option<Rev> {
        self.records.front().map(|(rev, _)| *rev)
    }

    /// Lets go of the oldest ones up to `persisted` while there are too many bytes.
    pub fn trim(&mut self, persisted: Rev) {
        while self.bytes > self.limit_bytes && self.first().is_some_and(|first| first <= persisted)
        {
            if let Some((_, record)) = self.records.pop_front() {
                self.bytes -= record.size() as usize + OVERHEAD_BYTES;
            }
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn clear(&mut self) {
        self.records.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_before_the_engine_has_it() {
        let mut recent = Recent::new(0);
        for main in 2..=5 {
            recent.push(Rev::first_of(main), Record::tombstone("k".into()));
        }
        recent.trim(Rev::first_of(3));
        assert_eq!(recent.first(), Some(Rev::first_of(4)));
        assert_eq!(recent.get(Rev::first_of(3)), None);
        assert!(recent.get(Rev::first_of(5)).is_some());
        assert_eq!(recent.from(Rev::first_of(5)).count(), 1);
        recent.trim(Rev::first_of(9));
        assert_eq!(recent.bytes(), 0);
    }
}

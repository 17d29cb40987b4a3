//! Ranges of keys as bounds.

use std::ops::Bound;

use bytes::Bytes;

use crate::kv::{KeyRange, KvError};

impl KeyRange {
    /// As etcd's `key` and `range_end` say it.
    pub fn from_etcd(key: Bytes, range_end: Bytes) -> Self {
        if range_end.is_empty() {
            KeyRange::One(key)
        } else if range_end[..] == [0] {
            KeyRange::From(key)
        } else {
            KeyRange::Between(key, range_end)
        }
    }

    pub fn bounds(&self) -> (Bound<Bytes>, Bound<Bytes>) {
        match self {
            KeyRange::One(key) => (Bound::Included(key.clone()), Bound::Included(key.clone())),
            KeyRange::Prefix(prefix) => {
                let end = match prefix_end(prefix) {
                    Some(end) => Bound::Excluded(end),
                    None => Bound::Unbounded,
                };
                (Bound::Included(prefix.clone()), end)
            }
            // BTreeMap panics on an inverted range; an empty one at `start` means the same.
            KeyRange::Between(start, end) if end <= start => {
                (Bound::Included(start.clone()), Bound::Excluded(start.clone()))
            }
            KeyRange::Between(start, end) => {
                (Bound::Included(start.clone()), Bound::Excluded(end.clone()))
            }
            KeyRange::From(start) => (Bound::Included(start.clone()), Bound::Unbounded),
        }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::One(one) => one == key,
            KeyRange::Prefix(prefix) => key.starts_with(prefix),
            KeyRange::Between(start, end) => key >= &start[..] && key < &end[..],
            KeyRange::From(start) => key >= &start[..],
        }
    }

    pub fn overlaps(&self, other: &KeyRange) -> bool {
        let (a_start, a_end) = self.bounds();
        let (b_start, b_end) = other.bounds();
        starts_before_end(&a_start, &b_end) && starts_before_end(&b_start, &a_end)
    }

    /// A single key must not be empty; etcd refuses it too.
    pub fn check(&self) -> Result<(), KvError> {
        match self {
            KeyRange::One(key) | KeyRange::Between(key, _) | KeyRange::From(key) => {
                if key.is_empty() { Err(KvError::EmptyKey) } else { Ok(()) }
            }
            // All keys, if it is empty.
            KeyRange::Prefix(_) => Ok(()),
        }
    }
}

fn starts_before_end(start: &Bound<Bytes>, end: &Bound<Bytes>) -> bool {
    match (start, end) {
        (Bound::Included(start), Bound::Included(end)) => start <= end,
        (Bound::Included(start), Bound::Excluded(end)) => start < end,
        _ => true,
    }
}

/// The first key after all that start with `prefix`; none if there is no such key.
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ends() {
        assert_eq!(prefix_end(b"ab"), Some("ac".into()));
        assert_eq!(prefix_end(b"a\xff\xff"), Some("b".into()));
        assert_eq!(prefix_end(b"\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }

    #[test]
    fn etcd_range_ends() {
        assert_eq!(KeyRange::from_etcd("a".into(), "".into()), KeyRange::One("a".into()));
        assert_eq!(KeyRange::from_etcd("a".into(), "\0".into()), KeyRange::From("a".into()));
        let between = KeyRange::Between("a".into(), "c".into());
        assert_eq!(KeyRange::from_etcd("a".into(), "c".into()), between);
        assert!(between.contains(b"b") && !between.contains(b"c"));
    }

    #[test]
    fn overlap() {
        let between = KeyRange::Between("b".into(), "d".into());
        assert!(between.overlaps(&KeyRange::One("b".into())));
        assert!(!between.overlaps(&KeyRange::One("d".into())));
        assert!(between.overlaps(&KeyRange::From("c".into())));
        assert!(!between.overlaps(&KeyRange::From("d".into())));
        assert!(between.overlaps(&KeyRange::Prefix("cc".into())));
    }
}

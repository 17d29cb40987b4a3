//! The store keeps an object's JSON without `metadata.resourceVersion`, because the version
//! is the revision of the write itself. It is put in once, when the write is known, at the
//! place where canonical JSON (keys sorted) has it.

use bytes::Bytes;
use skiff_client::scan::members;

pub(super) const KEY: &[u8] = b"resourceVersion";

/// Where the version goes in an object's JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The text up to here stays, then comes the version, then the text from `resume` on.
    cut: usize,
    resume: usize,
    /// Whether a comma parts it from what stands before, and from what follows.
    before: bool,
    after: bool,
}

impl Slot {
    /// In metadata whose first member begins at `begin`: behind the member that ends at `end`
    /// (`begin`: there is none), before another if there is a `next`.
    pub(super) fn between(begin: usize, end: usize, next: bool) -> Self {
        match next {
            // The comma behind the last member stays where it is.
            true if end > begin => Self::at(end + 1, false, true),
            _ => Self::at(end, end > begin, next),
        }
    }

    fn at(cut: usize, before: bool, after: bool) -> Self {
        Self { cut, resume: cut, before, after }
    }

    /// Reads the text as far as needed. `None`: there is no `metadata`.
    pub fn find(json: &[u8]) -> Option<Self> {
        let metadata = members(json, 0).find(|m| m.key == b"metadata")?;
        // `"a":1,"uid":2` takes the version before "uid"; `"a":1` takes it behind the value.
        let mut slot = Self::at(metadata.value.start + 1, false, false);
        for member in members(json, metadata.value.start) {
            if member.key >= KEY {
                let resume = if member.key == KEY { member.value.end } else { member.start };
                let after = member.key > KEY;
                return Some(Self { cut: member.start, resume, before: false, after });
            }
            slot = Self::at(member.value.end, true, false);
        }
        Some(slot)
    }
}

/// The object's complete JSON as of `revision`. Replaces a version that is there already.
/// JSON without `metadata` comes back as it is.
pub fn with_resource_version(json: &[u8], revision: i64) -> Bytes {
    match Slot::find(json) {
        Some(slot) => fill(json, slot, revision),
        None => Bytes::copy_from_slice(json),
    }
}

/// The same, where the place is known.
pub fn fill(json: &[u8], slot: Slot, revision: i64) -> Bytes {
    let mut digits = [0u8; 20];
    let digits = decimal(revision.unsigned_abs(), &mut digits);
    let mut out = Vec::with_capacity(json.len() + KEY.len() + digits.len() + 6);
    out.extend_from_slice(&json[..slot.cut]);
    if slot.before {
        out.push(b',');
    }
    out.extend_from_slice(b"\"resourceVersion\":\"");
    out.extend_from_slice(digits);
    out.push(b'"');
    if slot.after {
        out.push(b',');
    }
    out.extend_from_slice(&json[slot.resume..]);
    Bytes::from(out)
}

pub(super) fn decimal(number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut rest = number;
    let mut at = buffer.len();
    loop {
        at -= 1;
        // A digit always fits.
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return &buffer[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: &str) {
        let spliced = with_resource_version(json.as_bytes(), 4711);
        assert_eq!(std::str::from_utf8(&spliced), Ok(expected));
    }

    #[test]
    fn goes_where_sorted_keys_have_it() {
        check(
            r#"{"kind":"Pod","metadata":{"name":"a","uid":"u"},"spec":{}}"#,
            r#"{"kind":"Pod","metadata":{"name":"a","resourceVersion":"4711","uid":"u"},"spec":{}}"#,
        );
        check(
            r#"{"metadata":{"name":"a"}}"#,
            r#"{"metadata":{"name":"a","resourceVersion":"4711"}}"#,
        );
        check(
            r#"{"metadata":{"uid":"u"}}"#,
            r#"{"metadata":{"resourceVersion":"4711","uid":"u"}}"#,
        );
        check(r#"{"metadata":{}}"#, r#"{"metadata":{"resourceVersion":"4711"}}"#);
    }

    #[test]
    fn replaces_an_older_version() {
        check(
            r#"{"metadata":{"name":"a","resourceVersion":"1","uid":"u"}}"#,
            r#"{"metadata":{"name":"a","resourceVersion":"4711","uid":"u"}}"#,
        );
        check(
            r#"{"metadata":{"resourceVersion":"1"}}"#,
            r#"{"metadata":{"resourceVersion":"4711"}}"#,
        );
    }

    #[test]
    fn leaves_what_has_no_metadata() {
        check(r#"{"a":{"metadata":{}}}"#, r#"{"a":{"metadata":{}}}"#);
    }
}

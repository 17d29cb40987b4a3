//! The store keeps an object's JSON without `metadata.resourceVersion`, because the version
//! is the revision of the write itself. It is put in once, when the write is known, at the
//! place where canonical JSON (keys sorted) has it.

use bytes::{BufMut, Bytes, BytesMut};
use skiff_client::scan::members;

const KEY: &[u8] = b"resourceVersion";

/// The object's complete JSON as of `revision`. Replaces a version that is there already.
/// JSON without `metadata` comes back as it is.
pub fn with_resource_version(json: &[u8], revision: i64) -> Bytes {
    let Some(metadata) = members(json, 0).find(|m| m.key == b"metadata") else {
        return Bytes::copy_from_slice(json);
    };
    // `"a":1,"uid":2` takes the version before "uid"; `"a":1` takes it behind the value.
    let (mut cut, mut resume, mut before, mut after) =
        (metadata.value.start + 1, metadata.value.start + 1, false, false);
    for member in members(json, metadata.value.start) {
        if member.key >= KEY {
            cut = member.start;
            resume = if member.key == KEY { member.value.end } else { member.start };
            after = member.key > KEY;
            before = false;
            break;
        }
        (cut, resume, before) = (member.value.end, member.value.end, true);
    }
    let mut digits = [0u8; 20];
    let digits = decimal(revision, &mut digits);
    let mut out = BytesMut::with_capacity(json.len() + KEY.len() + digits.len() + 6);
    out.put_slice(&json[..cut]);
    if before {
        out.put_u8(b',');
    }
    out.put_slice(b"\"resourceVersion\":\"");
    out.put_slice(digits);
    out.put_u8(b'"');
    if after {
        out.put_u8(b',');
    }
    out.put_slice(&json[resume..]);
    out.freeze()
}

fn decimal(revision: i64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut rest = revision.unsigned_abs();
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

//! Writes an object as canonical JSON: keys sorted, no blanks, characters escaped as serde_json
//! does. It is done once per write, so it is worth doing in one pass into one buffer, and
//! noting on the way where the version belongs.

use std::io::Write;

use bytes::Bytes;
use serde_json::{Map, Number, Value};

use super::splice::{self, Slot};

/// Most objects are smaller; the buffer of others grows.
const EXPECTED_BYTES: usize = 2048;

/// An object's JSON, and where the version goes; `None`: it has no metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printed {
    pub json: Bytes,
    pub slot: Option<Slot>,
}

pub fn print(object: &Value) -> Printed {
    let mut printer = Printer { out: Vec::with_capacity(EXPECTED_BYTES), slot: None };
    match object {
        Value::Object(map) => printer.map(map, |printer, key, value| match value {
            Value::Object(metadata) if key == "metadata" => printer.metadata(metadata),
            value => printer.value(value),
        }),
        value => printer.value(value),
    }
    Printed { json: Bytes::from(printer.out), slot: printer.slot }
}

struct Printer {
    out: Vec<u8>,
    slot: Option<Slot>,
}

impl Printer {
    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.out.extend_from_slice(b"null"),
            Value::Bool(true) => self.out.extend_from_slice(b"true"),
            Value::Bool(false) => self.out.extend_from_slice(b"false"),
            Value::Number(number) => self.number(number),
            Value::String(text) => self.text(text),
            Value::Array(list) => {
                self.out.push(b'[');
                for (at, value) in list.iter().enumerate() {
                    if at > 0 {
                        self.out.push(b',');
                    }
                    self.value(value);
                }
                self.out.push(b']');
            }
            Value::Object(map) => self.map(map, |printer, _, value| printer.value(value)),
        }
    }

    fn map(&mut self, map: &Map<String, Value>, mut entry: impl FnMut(&mut Self, &str, &Value)) {
        self.out.push(b'{');
        for (at, (key, value)) in map.iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            self.text(key);
            self.out.push(b':');
            entry(self, key, value);
        }
        self.out.push(b'}');
    }

    fn metadata(&mut self, metadata: &Map<String, Value>) {
        let begin = self.out.len() + 1;
        let mut before = begin;
        let mut slot = None;
        self.map(metadata, |printer, key, value| {
            // Here its key stands already.
            if slot.is_none() && key.as_bytes() > splice::KEY {
                slot = Some(Slot::between(begin, before, true));
            }
            printer.value(value);
            before = printer.out.len();
        });
        // A version that is there already would have to be replaced: that is found by reading.
        self.slot = (!metadata.contains_key("resourceVersion"))
            .then(|| slot.unwrap_or(Slot::between(begin, before, false)));
    }

    fn number(&mut self, number: &Number) {
        match number.as_i64() {
            Some(number) => {
                let mut digits = [0; 20];
                if number < 0 {
                    self.out.push(b'-');
                }
                self.out.extend_from_slice(splice::decimal(number.unsigned_abs(), &mut digits));
            }
            // Writing to memory cannot fail.
            None => drop(write!(self.out, "{number}")),
        }
    }

    fn text(&mut self, text: &str) {
        self.out.reserve(text.len() + 2);
        self.out.push(b'"');
        let bytes = text.as_bytes();
        if is_plain(bytes) {
            self.out.extend_from_slice(bytes);
            return self.out.push(b'"');
        }
        let mut plain = 0;
        for (at, byte) in bytes.iter().enumerate() {
            if *byte >= b' ' && *byte != b'"' && *byte != b'\\' {
                continue;
            }
            self.out.extend_from_slice(&bytes[plain..at]);
            self.escaped(*byte);
            plain = at + 1;
        }
        self.out.extend_from_slice(&bytes[plain..]);
        self.out.push(b'"');
    }

    fn escaped(&mut self, byte: u8) {
        let short = match byte {
            b'"' | b'\\' => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            8 => b'b',
            12 => b'f',
            // Writing to memory cannot fail.
            _ => return drop(write!(self.out, "\\u{byte:04x}")),
        };
        self.out.extend_from_slice(&[b'\\', short]);
    }
}

/// Whether nothing has to be escaped. Looks at eight bytes at once, as almost no text has.
fn is_plain(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ONES << 7;
    let (words, rest) = bytes.as_chunks::<8>();
    // A byte below n sets its high bit in `word - n of each`, unless it is above 0x7f itself.
    let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & HIGH;
    let zero = |word: u64| below(word, 1);
    let plain = words.iter().all(|word| {
        let word = u64::from_le_bytes(*word);
        let quote = zero(word ^ (ONES * u64::from(b'"')));
        let backslash = zero(word ^ (ONES * u64::from(b'\\')));
        (below(word, 0x20) | quote | backslash) == 0
    });
    plain && rest.iter().all(|byte| *byte >= b' ' && *byte != b'"' && *byte != b'\\')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn prints_as_serde_json_does() {
        let controls: String = (0..0x20u8).map(char::from).collect();
        for value in [
            json!({"b": [1, -1, 0, i64::MIN, u64::MAX, 1.5, -2e300], "a": {"": null}, "c": []}),
            json!({"text": controls, "more": "a\"b\\c/ünï😀\u{7f}", "yes": true, "no": false}),
            json!(["1234567\"", "12345678\"", "1234567\\", "12345678\n", "ünïünïün\u{7f}"]),
            json!("bare"),
            json!({}),
        ] {
            assert_eq!(print(&value).json, value.to_string().as_bytes());
        }
    }

    #[test]
    fn notes_where_reading_would_find_it() {
        for metadata in [
            json!({}),
            json!({"name": "a", "uid": "u"}),
            json!({"uid": "u", "zone": {"uid": "x"}}),
            json!({"labels": {"uid": "x"}, "name": "a"}),
        ] {
            let printed = print(&json!({"kind": "Pod", "metadata": metadata, "spec": {}}));
            assert_eq!(printed.slot, Slot::find(&printed.json), "{metadata}");
            assert!(printed.slot.is_some());
        }
        let versioned = json!({"metadata": {"resourceVersion": "1"}});
        for value in [json!({"a": {"metadata": {}}}), json!({"metadata": 1}), versioned] {
            assert_eq!(print(&value).slot, None);
        }
    }
}

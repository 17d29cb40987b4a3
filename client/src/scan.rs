//! Finds one member of a JSON object without parsing the rest. Objects travel as complete
//! JSON, and most readers want only `metadata`, which stands near the front: reading just
//! that is several times cheaper than a walk over the whole text.

use std::ops::Range;

/// Where the members of one JSON object lie: key and value, in the order of the text.
/// Ends early when the text is no object; whoever needs proof parses it.
pub struct Members<'a> {
    json: &'a [u8],
    at: usize,
}

/// One member. `start` is where its key's opening quote stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'a> {
    pub start: usize,
    /// The key as written, without quotes, escapes not resolved.
    pub key: &'a [u8],
    pub value: Range<usize>,
}

/// The members of the object that begins at or after `from`.
pub fn members(json: &[u8], from: usize) -> Members<'_> {
    let at = skip_blanks(json, from);
    let at = if json.get(at) == Some(&b'{') { at + 1 } else { json.len() };
    Members { json, at }
}

/// The members of the object that is the value of a top-level member. What follows it is not
/// looked at.
pub fn members_of<'a>(json: &'a [u8], key: &str) -> Members<'a> {
    let mut top = members(json, 0);
    while let Some((_, found, value)) = top.key() {
        if found == key.as_bytes() {
            return members(json, value);
        }
        top.at = skip_value(json, value);
    }
    Members { json, at: json.len() }
}

/// The value of a top-level member.
pub fn member<'a>(json: &'a [u8], key: &str) -> Option<&'a [u8]> {
    members(json, 0).find(|m| m.key == key.as_bytes()).map(|m| &json[m.value])
}

impl<'a> Members<'a> {
    /// The next member's start and key, and where its value begins.
    fn key(&mut self) -> Option<(usize, &'a [u8], usize)> {
        let mut start = skip_blanks(self.json, self.at);
        if self.json.get(start) == Some(&b',') {
            start = skip_blanks(self.json, start + 1);
        }
        if self.json.get(start) != Some(&b'"') {
            self.at = self.json.len();
            return None;
        }
        let key_end = skip_string(self.json, start);
        let colon = skip_blanks(self.json, key_end);
        let value = skip_blanks(self.json, (colon + 1).min(self.json.len()));
        Some((start, self.json.get(start + 1..key_end - 1)?, value))
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        let (start, key, value) = self.key()?;
        let end = skip_value(self.json, value);
        if end <= value {
            self.at = self.json.len();
            return None;
        }
        self.at = end;
        Some(Member { start, key, value: value..end })
    }
}

fn skip_blanks(json: &[u8], mut at: usize) -> usize {
    while json.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// Behind the closing quote of the string that begins at `at`.
fn skip_string(json: &[u8], at: usize) -> usize {
    let mut i = at + 1;
    while let Some(&byte) = json.get(i) {
        match byte {
            b'"' => return i + 1,
            b'\\' => i += 2,
            _ => i += 1,
        }
    }
    json.len()
}

fn skip_value(json: &[u8], at: usize) -> usize {
    match json.get(at) {
        Some(b'"') => skip_string(json, at),
        Some(b'{' | b'[') => skip_nested(json, at),
        Some(_) => {
            let ends = |b: &u8| matches!(b, b',' | b'}' | b']') || b.is_ascii_whitespace();
            json[at..].iter().position(ends).map_or(json.len(), |n| at + n)
        }
        None => at,
    }
}

fn skip_nested(json: &[u8], at: usize) -> usize {
    let (mut depth, mut i) = (0usize, at);
    while let Some(&byte) = json.get(i) {
        match byte {
            b'"' => {
                i = skip_string(json, i);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return i + 1;
                }
            }
            _ => {}
        }
        i += 1;
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_members_past_everything_that_looks_like_structure() {
        let json = br#" { "a\"{" : "}\\" , "b":[1,{"c":"]"}],"metadata":{"name":"x"}, "z": 12 }"#;
        let keys: Vec<String> =
            members(json, 0).map(|m| String::from_utf8_lossy(m.key).into_owned()).collect();
        assert_eq!(keys, ["a\\\"{", "b", "metadata", "z"]);
        assert_eq!(member(json, "metadata"), Some(&br#"{"name":"x"}"#[..]));
        assert_eq!(member(json, "z"), Some(&b"12"[..]));
        assert_eq!(member(json, "name"), None);
        let keys = |key| members_of(json, key).map(|m| m.key.to_vec()).collect::<Vec<_>>();
        assert_eq!(keys("metadata"), [b"name"]);
        assert!(keys("z").is_empty() && keys("b").is_empty() && keys("name").is_empty());
    }

    #[test]
    fn broken_text_ends_the_walk() {
        for json in
            ["", "[1]", "{", "{\"a", "{\"a\"", "{\"a\":", "{\"a\\", "{,}", "{\"a\":\"x", "7"]
        {
            assert!(members(json.as_bytes(), 0).count() <= 1, "{json}");
        }
    }
}

//! A JSON scanner over borrowed text. It fails in the words of Go's `encoding/json`, which is
//! what clients of Kubernetes know, and never copies a string without escapes.

use std::borrow::Cow;

/// Nesting beyond this is refused, so that a hostile document cannot exhaust the stack.
const MAX_DEPTH: usize = 200;

pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

/// What the next value is, as type errors tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
}

/// A broken document, in Go's words.
pub(super) type Syntax = String;

impl Next {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Number => "number",
            Self::Bool => "bool",
            Self::Null => "null",
        }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.byte() {
            self.at += 1;
        }
    }

    /// The error at the present place.
    fn broken(&self, context: &str) -> Syntax {
        match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            None => "unexpected end of JSON input".to_owned(),
            Some('\'') => format!("invalid character '\\'' {context}"),
            Some('"') => format!("invalid character '\"' {context}"),
            Some(c @ ('\n' | '\t' | '\r' | '\\')) => {
                format!("invalid character '{}' {context}", c.escape_default())
            }
            Some(c) if c.is_control() => {
                format!("invalid character '\\x{:02x}' {context}", u32::from(c))
            }
            Some(c) => format!("invalid character '{c}' {context}"),
        }
    }

    pub(super) fn peek(&mut self) -> Result<Next, Syntax> {
        self.skip_space();
        match self.byte() {
            Some(b'{') => Ok(Next::Object),
            Some(b'[') => Ok(Next::Array),
            Some(b'"') => Ok(Next::String),
            Some(b'-' | b'0'..=b'9') => Ok(Next::Number),
            Some(b't' | b'f') => Ok(Next::Bool),
            Some(b'n') => Ok(Next::Null),
            _ => Err(self.broken("looking for beginning of value")),
        }
    }

    /// Enters the object or array that `peek` announced.
    pub(super) fn enter(&mut self) -> Result<(), Syntax> {
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err("exceeded max depth".to_owned()) } else { Ok(()) }
    }

    /// The next key of the object entered, its colon read; `None` at its end.
    pub(super) fn key(&mut self, first: bool) -> Result<Option<Cow<'a, str>>, Syntax> {
        self.skip_space();
        if self.byte() == Some(b'}') {
            self.at += 1;
            self.depth -= 1;
            return Ok(None);
        }
        if !first {
            if self.byte() != Some(b',') {
                return Err(self.broken("after object key:value pair"));
            }
            self.at += 1;
            self.skip_space();
        }
        if self.byte() != Some(b'"') {
            return Err(self.broken("looking for beginning of object key string"));
        }
        let key = self.string()?;
        self.skip_space();
        if self.byte() != Some(b':') {
            return Err(self.broken("after object key"));
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Whether the array entered has a further element.
    pub(super) fn element(&mut self, first: bool) -> Result<bool, Syntax> {
        self.skip_space();
        match self.byte() {
            Some(b']') => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            _ if first => Ok(true),
            Some(b',') => {
                self.at += 1;
                self.skip_space();
                if self.byte() == Some(b']') {
                    return Err(self.broken("looking for beginning of value"));
                }
                Ok(true)
            }
            _ => Err(self.broken("after array element")),
        }
    }

    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, Syntax> {
        self.at += 1;
        let start = self.at;
        let bytes = self.text.as_bytes();
        while let Some(&b) = bytes.get(self.at) {
            match b {
                b'"' => {
                    self.at += 1;
                    return Ok(Cow::Borrowed(&self.text[start..self.at - 1]));
                }
                b'\\' => return self.escaped_string(start).map(Cow::Owned),
                0..0x20 => return Err(self.broken("in string literal")),
                _ => self.at += 1,
            }
        }
        Err(self.broken("in string literal"))
    }

    fn escaped_string(&mut self, start: usize) -> Result<String, Syntax> {
        let mut out = self.text[start..self.at].to_owned();
        loop {
            let plain = self.at;
            while !matches!(self.byte(), None | Some(b'"' | b'\\' | 0..0x20)) {
                self.at += 1;
            }
            out.push_str(&self.text[plain..self.at]);
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    out.push(self.escape()?);
                }
                _ => return Err(self.broken("in string literal")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Syntax> {
        let c = match self.byte() {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.broken("in string escape code")),
        };
        self.at += 1;
        Ok(c)
    }

    /// Half a surrogate pair becomes the replacement character, as in Go.
    fn unicode_escape(&mut self) -> Result<char, Syntax> {
        let first = self.hex4()?;
        if (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with("\\u") {
            let before = self.at;
            self.at += 2;
            let second = self.hex4()?;
            if (0xdc00..0xe000).contains(&second) {
                let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = before;
        }
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex4(&mut self) -> Result<u32, Syntax> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.byte().and_then(|b| char::from(b).to_digit(16));
            let digit = digit.ok_or_else(|| self.broken("in \\u hexadecimal character escape"))?;
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }

    fn digits(&mut self, context: &str) -> Result<(), Syntax> {
        if !matches!(self.byte(), Some(b'0'..=b'9')) {
            return Err(self.broken(context));
        }
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
        Ok(())
    }

    /// The text of the number that `peek` announced.
    pub(super) fn number(&mut self) -> Result<&'a str, Syntax> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits("in numeric literal")?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(&self.text[start..self.at])
    }

    /// `true`, `false` or `null`, as announced.
    pub(super) fn literal(&mut self) -> Result<Option<bool>, Syntax> {
        let (word, value) = match self.byte() {
            Some(b't') => ("true", Some(true)),
            Some(b'f') => ("false", Some(false)),
            _ => ("null", None),
        };
        for expected in word.bytes() {
            if self.byte() != Some(expected) {
                let expected = char::from(expected);
                let context = format!("in literal {word} (expecting '{expected}')");
                return Err(self.broken(&context));
            }
            self.at += 1;
        }
        Ok(value)
    }

    /// Reads over a value, checking its syntax.
    pub(super) fn skip(&mut self) -> Result<(), Syntax> {
        match self.peek()? {
            Next::Object => {
                self.enter()?;
                let mut first = true;
                while self.key(first)?.is_some() {
                    self.skip()?;
                    first = false;
                }
                Ok(())
            }
            Next::Array => {
                self.enter()?;
                let mut first = true;
                while self.element(first)? {
                    self.skip()?;
                    first = false;
                }
                Ok(())
            }
            Next::String => self.string().map(drop),
            Next::Number => self.number().map(drop),
            Next::Bool | Next::Null => self.literal().map(drop),
        }
    }

    /// Any value, kept as it is.
    pub(super) fn any(&mut self) -> Result<serde_json::Value, Syntax> {
        self.skip_space();
        let start = self.at;
        self.skip()?;
        serde_json::from_str(&self.text[start..self.at]).map_err(|error| error.to_string())
    }

    /// Nothing but space may follow the document.
    pub(super) fn end(&mut self) -> Result<(), Syntax> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.broken("after top-level value")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), Syntax> {
        let mut reader = Reader::new(text);
        reader.skip()?;
        reader.end()
    }

    #[test]
    fn fails_in_the_words_of_go() {
        for (text, expected) in [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("{\"a\"", "unexpected end of JSON input"),
            ("{\"a\":1", "unexpected end of JSON input"),
            ("nope", "invalid character 'o' in literal null (expecting 'u')"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 2}", "invalid character '2' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("01", "invalid character '1' after top-level value"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            ("\"\\u12g4\"", "invalid character 'g' in \\u hexadecimal character escape"),
        ] {
            assert_eq!(check(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn unescapes() {
        for (text, expected) in [
            (r#""plain ünï""#, "plain ünï"),
            (r#""a\n\t\"\\\/""#, "a\n\t\"\\/"),
            (r#""\u00e9\ud83d\ude00!""#, "é😀!"),
            (r#""\ud83dx""#, "\u{fffd}x"),
        ] {
            assert_eq!(Reader::new(text).string().as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(5000) + &"]".repeat(5000);
        assert_eq!(check(&deep), Err("exceeded max depth".to_owned()));
        let fine = "[".repeat(150) + &"]".repeat(150);
        assert_eq!(check(&fine), Ok(()));
    }
}

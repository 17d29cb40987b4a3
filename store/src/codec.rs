//! The store's own binary encoding: varints and length-prefixed bytes.
//!
//! Everything that is written to disk or sent to a peer uses it. Decoding never copies
//! keys or values: they are slices of the buffer they arrived in.

use bytes::{Buf, Bytes};

/// A body that does not follow its format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("decode {what}: {fault} with {left} bytes left")]
pub struct DecodeError {
    pub what: &'static str,
    pub fault: &'static str,
    pub left: usize,
}

#[derive(Debug, Default)]
pub struct Encoder {
    buffer: Vec<u8>,
}

impl Encoder {
    pub fn with_capacity(bytes: usize) -> Self {
        Self { buffer: Vec::with_capacity(bytes) }
    }

    pub fn u8(&mut self, value: u8) {
        self.buffer.push(value);
    }

    pub fn bool(&mut self, value: bool) {
        self.buffer.push(u8::from(value));
    }

    pub fn u64(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.buffer.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.push(value as u8);
    }

    /// Zigzag, so that small negative numbers stay small.
    pub fn i64(&mut self, value: i64) {
        self.u64(((value << 1) ^ (value >> 63)) as u64);
    }

    pub fn bytes(&mut self, value: &[u8]) {
        self.u64(value.len() as u64);
        self.buffer.extend_from_slice(value);
    }

    pub fn str(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// Already encoded bytes, as they are.
    pub fn raw(&mut self, value: &[u8]) {
        self.buffer.extend_from_slice(value);
    }

    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    pub fn finish(self) -> Vec<u8> {
        self.buffer
    }
}

#[derive(Debug, Clone)]
pub struct Decoder {
    what: &'static str,
    rest: Bytes,
}

impl Decoder {
    /// `what` names the object in errors.
    pub fn new(what: &'static str, rest: Bytes) -> Self {
        Self { what, rest }
    }

    pub fn fault(&self, fault: &'static str) -> DecodeError {
        DecodeError { what: self.what, fault, left: self.rest.len() }
    }

    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        let byte = *self.rest.first().ok_or_else(|| self.fault("ended early"))?;
        self.rest.advance(1);
        Ok(byte)
    }

    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.fault("not a boolean")),
        }
    }

    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (at, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.rest.advance(at + 1);
                return Ok(value);
            }
        }
        Err(self.fault("bad varint"))
    }

    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        let value = self.u64()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.u64()?;
        if len > self.rest.len() as u64 {
            return Err(self.fault("length beyond the end"));
        }
        Ok(self.rest.split_to(len as usize))
    }

    pub fn str(&mut self) -> Result<String, DecodeError> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.fault("not UTF-8"))
    }

    /// How many items follow. Each takes at least a byte, so a wild count is refused
    /// before anything is reserved for it.
    pub fn count(&mut self) -> Result<usize, DecodeError> {
        let count = self.u64()?;
        if count > self.rest.len() as u64 {
            return Err(self.fault("count beyond the end"));
        }
        Ok(count as usize)
    }

    /// Bytes that follow.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    pub fn rest(self) -> Bytes {
        self.rest
    }

    pub fn end(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.fault("bytes after the end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_bytes_come_back() {
        let mut e = Encoder::default();
        for v in [0, 1, 127, 128, 300, u64::MAX] {
            e.u64(v);
        }
        for v in [0, -1, 1, i64::MIN, i64::MAX] {
            e.i64(v);
        }
        e.bytes(b"key");
        e.bool(true);
        let mut d = Decoder::new("test", Bytes::from(e.finish()));
        for v in [0, 1, 127, 128, 300, u64::MAX] {
            assert_eq!(d.u64(), Ok(v));
        }
        for v in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(d.i64(), Ok(v));
        }
        assert_eq!(d.bytes().unwrap(), "key");
        assert_eq!(d.bool(), Ok(true));
        assert_eq!(d.end(), Ok(()));
    }

    #[test]
    fn a_wild_length_is_refused() {
        let mut e = Encoder::default();
        e.u64(1 << 40);
        let mut d = Decoder::new("test", Bytes::from(e.finish()));
        let error = d.bytes().unwrap_err();
        assert_eq!(error.to_string(), "decode test: length beyond the end with 0 bytes left");
    }
}

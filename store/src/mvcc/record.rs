//! What is kept for one write: the key, the value and the key's life so far.

use bytes::Bytes;

use super::revision::Rev;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::kv::{KeyValue, LeaseId, Revision};

/// One version of a key. A delete leaves a record too: a tombstone, `version` 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub key: Bytes,
    pub value: Bytes,
    pub create: Revision,
    pub version: i64,
    pub lease: LeaseId,
}

impl Record {
    pub fn tombstone(key: Bytes) -> Self {
        Self { key, value: Bytes::new(), create: 0, version: 0, lease: 0 }
    }

    pub fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::with_capacity(self.key.len() + self.value.len() + 24);
        e.i64(self.create);
        e.i64(self.version);
        e.i64(self.lease);
        e.bytes(&self.key);
        e.raw(&self.value);
        e.finish()
    }

    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut d = Decoder::new("record", bytes);
        Ok(Self {
            create: d.i64()?,
            version: d.i64()?,
            lease: d.i64()?,
            key: d.bytes()?,
            value: d.rest(),
        })
    }

    /// Tells a damaged record from a whole one, and feeds the state's digest.
    pub fn checksum(&self, rev: Rev) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&rev.to_bytes());
        let mut numbers = [0; 24];
        numbers[..8].copy_from_slice(&self.create.to_le_bytes());
        numbers[8..16].copy_from_slice(&self.version.to_le_bytes());
        numbers[16..].copy_from_slice(&self.lease.to_le_bytes());
        hasher.update(&numbers);
        hasher.update(&self.key);
        hasher.update(&[0]);
        hasher.update(&self.value);
        hasher.finalize()
    }

    pub fn size(&self) -> u32 {
        (self.key.len() + self.value.len()) as u32
    }

    pub fn to_key_value(&self, rev: Rev) -> KeyValue {
        KeyValue {
            key: self.key.clone(),
            value: self.value.clone(),
            create_revision: self.create,
            mod_revision: rev.main,
            version: self.version,
            lease: self.lease,
        }
    }
}

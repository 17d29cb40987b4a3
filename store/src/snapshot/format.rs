//! The bytes of a snapshot.
//!
//! ```text
//! "SKIFFSN1"
//! length u32 | header                       see [`Header`]
//! length u32 | main i64 BE, sub u32 BE, record     once per record, in order
//! 0 u32 | number of records u64
//! SHA-256 of all before
//! ```

use std::io::{self, Read, Write};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::engine::Meta;
use crate::kv::LeaseId;
use crate::mvcc::record::Record;
use crate::mvcc::revision::Rev;

pub(super) const MAGIC: &[u8; 8] = b"SKIFFSN1";
/// Far more than a record may have; a guard against a damaged length.
const MAX_ITEM_BYTES: u32 = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("snapshot: {operation}")]
    Io { operation: &'static str, source: io::Error },
    #[error("snapshot: this is not a snapshot of this store")]
    NotASnapshot,
    #[error(
        "snapshot: this is a snapshot of an etcd, not of this store: restore it with \
         `etcdctl snapshot restore`, and name that etcd with --datastore-endpoint"
    )]
    Etcd,
    #[error("snapshot: format {0} is newer than this program knows: restore it with a newer one")]
    Newer(u32),
    #[error("snapshot: damaged: {0}")]
    Damaged(&'static str),
    #[error("snapshot: {0}")]
    Decode(#[from] DecodeError),
    #[error("snapshot: {0}")]
    Engine(#[from] crate::engine::EngineError),
}

fn io_error(operation: &'static str) -> impl FnOnce(io::Error) -> SnapshotError {
    move |source| SnapshotError::Io { operation, source }
}

/// What a snapshot says before its records. The digest in its meta is not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub cluster_id: u64,
    pub meta: Meta,
    pub leases: Vec<(LeaseId, i64)>,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::default();
        e.u64(self.cluster_id);
        e.bytes(&self.meta.encode());
        e.u64(self.leases.len() as u64);
        for (id, ttl_seconds) in &self.leases {
            e.i64(*id);
            e.i64(*ttl_seconds);
        }
        e.finish()
    }

    fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut d = Decoder::new("snapshot header", bytes);
        let cluster_id = d.u64()?;
        let meta = Meta::decode(d.bytes()?)?;
        let mut leases = Vec::new();
        for _ in 0..d.count()? {
            leases.push((d.i64()?, d.i64()?));
        }
        d.end()?;
        Ok(Self { cluster_id, meta, leases })
    }
}

pub struct SnapshotWriter<W> {
    out: W,
    hash: Sha256,
    records: u64,
}

impl<W: Write> SnapshotWriter<W> {
    pub fn start(out: W, header: &Header) -> Result<Self, SnapshotError> {
        let mut writer = Self { out, hash: Sha256::new(), records: 0 };
        writer.put(MAGIC)?;
        writer.put_item(&header.encode())?;
        Ok(writer)
    }

    pub fn record(&mut self, rev: Rev, record: &Record) -> Result<(), SnapshotError> {
        self.records += 1;
        let body = record.encode();
        self.put(&(body.len() as u32 + 12).to_le_bytes())?;
        self.put(&rev.to_bytes())?;
        self.put(&body)
    }

    /// Returns what it wrote to, everything handed over.
    pub fn finish(mut self) -> Result<W, SnapshotError> {
        self.put(&0u32.to_le_bytes())?;
        let records = self.records.to_le_bytes();
        self.put(&records)?;
        let hash = self.hash.finalize();
        self.out.write_all(&hash).map_err(io_error("write"))?;
        self.out.flush().map_err(io_error("write"))?;
        Ok(self.out)
    }

    fn put_item(&mut self, item: &[u8]) -> Result<(), SnapshotError> {
        self.put(&(item.len() as u32).to_le_bytes())?;
        self.put(item)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.hash.update(bytes);
        self.out.write_all(bytes).map_err(io_error("write"))
    }
}

/// Reads record by record. Only when [`SnapshotReader::next_record`] has returned `None` is it
/// certain that everything before was as it was written.
pub struct SnapshotReader<R> {
    input: R,
    hash: Sha256,
    records: u64,
    pub header: Header,
}

impl<R: Read> SnapshotReader<R> {
    pub fn start(mut input: R) -> Result<Self, SnapshotError> {
        let mut hash = Sha256::new();
        let mut magic = [0; 8];
        if input.read_exact(&mut magic).is_err() || &magic != MAGIC {
            return Err(SnapshotError::NotASnapshot);
        }
        hash.update(magic);
        let item = read_item(&mut input, &mut hash)?.ok_or(SnapshotError::Damaged("no header"))?;
        let header = Header::decode(item)?;
        Ok(Self { input, hash, records: 0, header })
    }

    pub fn next_record(&mut self) -> Result<Option<(Rev, Record)>, SnapshotError> {
        let Some(mut item) = read_item(&mut self.input, &mut self.hash)? else {
            self.check_end()?;
            return Ok(None);
        };
        if item.len() < 12 {
            return Err(SnapshotError::Damaged("a record is too short"));
        }
        self.records += 1;
        let rev =
            Rev::from_bytes(&item.split_to(12)).ok_or(SnapshotError::Damaged("no revision"))?;
        Ok(Some((rev, Record::decode(item)?)))
    }

    fn check_end(&mut self) -> Result<(), SnapshotError> {
        let mut records = [0; 8];
        self.input.read_exact(&mut records).map_err(io_error("read its end"))?;
        self.hash.update(records);
        let mut hash = [0; 32];
        self.input.read_exact(&mut hash).map_err(io_error("read its hash"))?;
        if self.hash.clone().finalize()[..] != hash {
            return Err(SnapshotError::Damaged("its hash does not match"));
        }
        if u64::from_le_bytes(records) != self.records {
            return Err(SnapshotError::Damaged("records are missing"));
        }
        Ok(())
    }
}

/// `None`: the mark of the end.
fn read_item(input: &mut impl Read, hash: &mut Sha256) -> Result<Option<Bytes>, SnapshotError> {
    let mut len = [0; 4];
    input.read_exact(&mut len).map_err(io_error("read; it ends early"))?;
    hash.update(len);
    let len = u32::from_le_bytes(len);
    if len == 0 {
        return Ok(None);
    }
    if len > MAX_ITEM_BYTES {
        return Err(SnapshotError::Damaged("a length is impossible"));
    }
    let mut item = vec![0; len as usize];
    input.read_exact(&mut item).map_err(io_error("read; it ends early"))?;
    hash.update(&item);
    Ok(Some(item.into()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn sample() -> Vec<u8> {
        let header = Header {
            cluster_id: 7,
            meta: Meta { revision: 5, compacted: 2, ..Default::default() },
            leases: vec![(9, 60)],
        };
        let mut writer = SnapshotWriter::start(Vec::new(), &header).unwrap();
        for main in 3..=5 {
            let record = Record {
                key: format!("k{main}").into(),
                value: "v".into(),
                create: main,
                version: 1,
                lease: 9,
            };
            writer.record(Rev::first_of(main), &record).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<Rev>, SnapshotError> {
        let mut reader = SnapshotReader::start(bytes)?;
        let mut revs = Vec::new();
        while let Some((rev, _)) = reader.next_record()? {
            revs.push(rev);
        }
        Ok(revs)
    }

    #[test]
    fn a_snapshot_comes_back() {
        let bytes = sample();
        assert_eq!(read(&bytes).unwrap().len(), 3);
        assert_eq!(SnapshotReader::start(&bytes[..]).unwrap().header.leases, [(9, 60)]);
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let bytes = sample();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert!(read(&flipped).is_err(), "byte {at}");
            assert!(read(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}

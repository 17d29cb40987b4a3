//! The key index beside a closed engine, so that a start need not read every value.
//!
//! Written when a store has closed, after the engine's last write. It holds the versions of
//! all keys, and the checksum of every byte in the engine's files: that is the proof that they
//! are still the ones it was made from. Reading them through for a checksum costs a tenth of
//! decoding them. It is used once: the next start removes it before the engine is opened.
//!
//! ```text
//! magic | meta | files: path, length, CRC | count | versions: rev, create, version, checksum,
//! size, lease, key | CRC of all before
//! ```
//!
//! After a crash there is none, or it does not fit, and the engine is read as a whole.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::Meta;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::kv::LeaseId;
use crate::mvcc::index::Version;
use crate::mvcc::revision::Rev;

const MAGIC: &[u8] = b"skiff-index-1\n";
const CRC_BYTES: usize = 4;
/// The engine's files are read in portions of so many bytes.
const PORTION_BYTES: usize = 1 << 20;

/// One version of a key, and the lease that the key hangs on with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    pub key: Bytes,
    pub version: Version,
    pub lease: LeaseId,
}

/// An index that fits the engine beside it.
#[derive(Debug)]
pub struct SavedIndex {
    pub meta: Meta,
    count: u64,
    entries: Decoder,
}

fn place(engine: &Path) -> PathBuf {
    engine.with_extension("index")
}

/// Writes the index of a closed engine. Entries in the order of their revisions.
pub fn save(engine: &Path, meta: &Meta, entries: &[IndexEntry]) -> io::Result<()> {
    let path = place(engine);
    let written = write(&path, engine, meta, entries);
    if written.is_err() {
        // Half of one is of no use, and space may be what is missing.
        let _ = std::fs::remove_file(&path);
    }
    written
}

fn write(path: &Path, engine: &Path, meta: &Meta, entries: &[IndexEntry]) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 16, File::create(path)?);
    let mut crc = crc32fast::Hasher::new();
    let mut put = |bytes: &[u8]| {
        crc.update(bytes);
        file.write_all(bytes)
    };
    put(MAGIC)?;
    let mut e = Encoder::default();
    e.bytes(&meta.encode());
    encode_files(&mut e, engine)?;
    e.u64(entries.len() as u64);
    put(&e.finish())?;
    for entry in entries {
        let mut e = Encoder::with_capacity(entry.key.len() + 32);
        e.i64(entry.version.rev.main);
        e.u64(u64::from(entry.version.rev.sub));
        e.i64(entry.version.create);
        e.i64(entry.version.version);
        e.u64(u64::from(entry.version.checksum));
        e.u64(u64::from(entry.version.size));
        e.i64(entry.lease);
        e.bytes(&entry.key);
        put(&e.finish())?;
    }
    let crc = crc.finalize();
    file.write_all(&crc.to_le_bytes())?;
    file.into_inner()?;
    Ok(())
}

/// Takes the index away and returns it if it fits the engine's files, which must not be open.
pub fn take(engine: &Path) -> Option<SavedIndex> {
    let path = place(engine);
    let bytes = std::fs::read(&path).ok()?;
    if let Err(error) = std::fs::remove_file(&path) {
        // It would lie there when it does not fit any more; that is found out, but not sure
        // enough to be relied on.
        tracing::warn!(path = %path.display(), %error, "cannot remove the saved index, so it is not used");
        return None;
    }
    match check(bytes.into(), engine) {
        Ok(saved) => saved,
        Err(error) => {
            tracing::info!(path = %path.display(), %error, "the saved index is not used");
            None
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("read the engine's files: {0}")]
    Io(#[from] io::Error),
}

fn check(bytes: Bytes, engine: &Path) -> Result<Option<SavedIndex>, TakeError> {
    let Some(end) = bytes.len().checked_sub(CRC_BYTES) else { return Ok(None) };
    let crc = crc32fast::hash(&bytes[..end]);
    if bytes[end..] != crc.to_le_bytes() || !bytes.starts_with(MAGIC) {
        return Ok(None);
    }
    let mut d = Decoder::new("saved index", bytes.slice(MAGIC.len()..end));
    let meta = Meta::decode(d.bytes()?)?;
    let mut files = Encoder::default();
    encode_files(&mut files, engine)?;
    let files = files.finish();
    if d.clone().rest().starts_with(&files) {
        d = Decoder::new("saved index", d.rest().slice(files.len()..));
        let count = d.u64()?;
        return Ok(Some(SavedIndex { meta, count, entries: d }));
    }
    Ok(None)
}

impl SavedIndex {
    /// Calls with every entry, in the order of revisions.
    pub fn read(mut self, mut visit: impl FnMut(IndexEntry)) -> Result<(), DecodeError> {
        for _ in 0..self.count {
            let d = &mut self.entries;
            let version = Version {
                rev: Rev::new(d.i64()?, small(d)?),
                create: d.i64()?,
                version: d.i64()?,
                checksum: small(d)?,
                size: small(d)?,
            };
            let lease = d.i64()?;
            visit(IndexEntry { key: d.bytes()?, version, lease });
        }
        self.entries.end()
    }
}

fn small(d: &mut Decoder) -> Result<u32, DecodeError> {
    u32::try_from(d.u64()?).map_err(|_| d.fault("a number is too large"))
}

/// What the files below a folder are, by their every byte.
fn encode_files(e: &mut Encoder, folder: &Path) -> io::Result<()> {
    let mut paths = Vec::new();
    list(folder, &mut paths)?;
    paths.sort();
    e.u64(paths.len() as u64);
    let mut portion = vec![0; PORTION_BYTES];
    for path in paths {
        let mut file = File::open(&path)?;
        let (mut crc, mut len) = (crc32fast::Hasher::new(), 0);
        loop {
            match file.read(&mut portion) {
                Ok(0) => break,
                Ok(read) => {
                    crc.update(&portion[..read]);
                    len += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let name = path.strip_prefix(folder).unwrap_or(&path);
        e.bytes(name.as_os_str().as_encoded_bytes());
        e.u64(len);
        e.u64(u64::from(crc.finalize()));
    }
    Ok(())
}

fn list(folder: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), paths)?;
        } else {
            paths.push(entry.path());
        }
    }
    Ok(())
}

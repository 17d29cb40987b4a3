//! A backup: the store's snapshot and, beside it, the files that make the cluster who it is
//! (its authorities and their keys), in one file that proves itself.
//!
//! ```text
//! "SKIFFBK1"
//! length u32 | manifest, JSON               see [`Manifest`]
//! the files' bytes, in the manifest's order
//! the store's snapshot, "SKIFFSN1"...       as etcd's Snapshot call streams it
//! SHA-256 of all before
//! ```
//!
//! A snapshot alone, as `etcdctl snapshot save` writes it from the store's etcd face, is a
//! backup without files.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::format::{MAGIC as STORE_MAGIC, SnapshotError, SnapshotReader};

const MAGIC: &[u8; 8] = b"SKIFFBK1";
const FORMAT: u32 = 1;
const HASH_BYTES: u64 = 32;
/// Guards against a damaged length; certificates and keys are far smaller.
const MAX_MANIFEST_BYTES: u32 = 1 << 20;
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Where bbolt's first page says what it is.
const BOLT_MAGIC: (usize, [u8; 4]) = (16, 0xED0C_DAED_u32.to_le_bytes());

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    /// RFC 3339.
    pub created: String,
    /// The program that wrote it.
    pub version: String,
    files: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    name: String,
    bytes: u64,
}

/// A small file kept with the snapshot, by its bare name.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    pub name: String,
    pub content: Vec<u8>,
}

/// Contents are keys, which no message may print.
impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.name, self.content.len())
    }
}

/// Writes a backup; what is written to it is the store's snapshot.
pub struct BackupWriter<W> {
    out: W,
    hash: Sha256,
}

impl<W: Write> BackupWriter<W> {
    pub fn start(
        out: W,
        created: String,
        version: String,
        files: &[Kept],
    ) -> Result<Self, SnapshotError> {
        let entry =
            |file: &Kept| Entry { name: file.name.clone(), bytes: file.content.len() as u64 };
        let files_listed = files.iter().map(entry).collect();
        let manifest = Manifest { format: FORMAT, created, version, files: files_listed };
        let fault = |source| SnapshotError::Io { operation: "write", source };
        let text = serde_json::to_vec(&manifest).map_err(io::Error::other).map_err(fault)?;
        let mut writer = Self { out, hash: Sha256::new() };
        let mut put = |bytes: &[u8]| writer.write_all(bytes).map_err(fault);
        put(MAGIC)?;
        put(&(text.len() as u32).to_le_bytes())?;
        put(&text)?;
        for file in files {
            put(&file.content)?;
        }
        Ok(writer)
    }

    pub fn finish(mut self) -> io::Result<W> {
        let hash = self.hash.finalize();
        self.out.write_all(&hash)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for BackupWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Hashes what is read through it, up to where the file's own hash begins.
struct Hashed {
    input: io::Take<BufReader<File>>,
    hash: Sha256,
}

impl Read for Hashed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(into)?;
        self.hash.update(&into[..read]);
        Ok(read)
    }
}

/// Reads a backup. Only [`BackupReader::finish`] says that all was as it was written.
pub struct BackupReader {
    /// `None`: a snapshot alone.
    pub manifest: Option<Manifest>,
    pub files: Vec<Kept>,
    pub store: SnapshotReader<Box<dyn Read + Send>>,
    whole: Option<std::sync::Arc<std::sync::Mutex<Hashed>>>,
}

/// The reader of the store's part and the check of the whole read the same file.
struct Shared(std::sync::Arc<std::sync::Mutex<Hashed>>);

impl Read for Shared {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).read(into)
    }
}

fn read_error(source: io::Error) -> SnapshotError {
    match source.kind() {
        io::ErrorKind::UnexpectedEof => SnapshotError::Damaged("it ends early"),
        _ => SnapshotError::Io { operation: "read", source },
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Backup,
    /// A snapshot alone.
    Store,
}

/// What a file is, from its first bytes.
pub fn kind(start: &[u8]) -> Result<Kind, SnapshotError> {
    if start.starts_with(MAGIC) {
        return Ok(Kind::Backup);
    }
    if start.starts_with(STORE_MAGIC) {
        return Ok(Kind::Store);
    }
    let (at, magic) = BOLT_MAGIC;
    let bolt = start.get(at..).is_some_and(|bytes| bytes.starts_with(&magic));
    Err(if bolt { SnapshotError::Etcd } else { SnapshotError::NotASnapshot })
}

impl BackupReader {
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        let open = |source| SnapshotError::Io { operation: "open", source };
        let file = File::open(path).map_err(open)?;
        let bytes = file.metadata().map_err(open)?.len();
        let mut start = Vec::new();
        let mut input = BufReader::with_capacity(1 << 17, file);
        input.by_ref().take(20).read_to_end(&mut start).map_err(read_error)?;
        io::Seek::rewind(&mut input).map_err(read_error)?;
        if kind(&start)? == Kind::Store {
            let store = SnapshotReader::start(Box::new(input) as Box<dyn Read + Send>)?;
            return Ok(Self { manifest: None, files: Vec::new(), store, whole: None });
        }
        let input = input.take(bytes.saturating_sub(HASH_BYTES));
        let mut hashed = Hashed { input, hash: Sha256::new() };
        let (manifest, files) = head(&mut hashed)?;
        let whole = std::sync::Arc::new(std::sync::Mutex::new(hashed));
        let shared = Box::new(Shared(whole.clone())) as Box<dyn Read + Send>;
        let store = SnapshotReader::start(shared)?;
        Ok(Self { manifest: Some(manifest), files, store, whole: Some(whole) })
    }

    /// Checks what follows the last record. All records must have been read.
    pub fn finish(self) -> Result<(), SnapshotError> {
        let Some(whole) = self.whole else { return Ok(()) };
        let mut whole = whole.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        io::copy(&mut *whole, &mut io::sink()).map_err(read_error)?;
        let computed = whole.hash.clone().finalize();
        let mut hash = [0; HASH_BYTES as usize];
        whole.input.get_mut().read_exact(&mut hash).map_err(read_error)?;
        if computed[..] == hash {
            Ok(())
        } else {
            Err(SnapshotError::Damaged("its hash does not match"))
        }
    }
}

fn head(input: &mut impl Read) -> Result<(Manifest, Vec<Kept>), SnapshotError> {
    let mut magic = [0; MAGIC.len()];
    input.read_exact(&mut magic).map_err(read_error)?;
    let mut len = [0; 4];
    input.read_exact(&mut len).map_err(read_error)?;
    let len = u32::from_le_bytes(len);
    if len > MAX_MANIFEST_BYTES {
        return Err(SnapshotError::Damaged("a length is impossible"));
    }
    let mut text = vec![0; len as usize];
    input.read_exact(&mut text).map_err(read_error)?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|_| SnapshotError::Damaged("its manifest does not read"))?;
    if manifest.format > FORMAT {
        return Err(SnapshotError::Newer(manifest.format));
    }
    let mut files = Vec::new();
    for Entry { name, bytes } in &manifest.files {
        if *bytes > MAX_FILE_BYTES || !is_bare(name) {
            return Err(SnapshotError::Damaged("its manifest does not read"));
        }
        let mut content = vec![0; *bytes as usize];
        input.read_exact(&mut content).map_err(read_error)?;
        files.push(Kept { name: name.clone(), content });
    }
    Ok((manifest, files))
}

/// A name that leads nowhere else.
pub fn is_bare(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::super::format::tests::sample;
    use super::*;

    fn write(path: &Path) -> Vec<u8> {
        let files = [
            Kept { name: "ca.crt".into(), content: b"certificate".to_vec() },
            Kept { name: "ca.key".into(), content: b"key".to_vec() },
        ];
        let mut writer = BackupWriter::start(Vec::new(), "now".into(), "1".into(), &files).unwrap();
        writer.write_all(&sample()).unwrap();
        // What etcd's stream adds.
        writer.write_all(&[0; 100]).unwrap();
        let bytes = writer.finish().unwrap();
        std::fs::write(path, &bytes).unwrap();
        bytes
    }

    fn read(path: &Path) -> Result<(Vec<Kept>, u64), SnapshotError> {
        let mut reader = BackupReader::open(path)?;
        let mut records = 0;
        while reader.store.next_record()?.is_some() {
            records += 1;
        }
        let files = std::mem::take(&mut reader.files);
        reader.finish()?;
        Ok((files, records))
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        let bytes = write(&path);
        let (files, records) = read(&path).unwrap();
        assert_eq!((files[1].content.as_slice(), records), (&b"key"[..], 3));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, &flipped).unwrap();
            assert!(read(&path).is_err(), "byte {at}");
            std::fs::write(&path, &bytes[..at]).unwrap();
            assert!(read(&path).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn other_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let check = |bytes: &[u8], expect: &str| {
            std::fs::write(&path, bytes).unwrap();
            let text = BackupReader::open(&path).err().unwrap().to_string();
            assert!(text.contains(expect), "{text}");
        };
        check(b"", "not a snapshot");
        check(b"hello", "not a snapshot");
        let bolt = [&[0; 16][..], &BOLT_MAGIC.1, &[2, 0, 0, 0]].concat();
        check(&bolt, "etcdctl snapshot restore");
        std::fs::write(&path, sample()).unwrap();
        assert!(BackupReader::open(&path).unwrap().manifest.is_none());
    }

    #[test]
    fn names_lead_nowhere_else() {
        assert!(is_bare("store-ca.key") && is_bare("a_b.C9"));
        for bad in ["", "..", ".x", "a/b", "a\\b", "a\0"] {
            assert!(!is_bare(bad), "{bad:?}");
        }
    }
}

//! Snapshot files: written aside, synced, then given their name. One is kept.
//!
//! ```text
//! snapshots/00000003-0000000000001f40.snap      term and index it goes up to
//! snapshots/00000003-0000000000001f40.tmp       being written; removed at start
//! ```

use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::format::{Header, SnapshotError, SnapshotReader, SnapshotWriter};
use crate::wal::disk::{Disk, Stream, create_anew};

/// A snapshot on disk. A temporary one is removed with its last handle.
#[derive(Clone)]
pub struct SnapshotFile {
    inner: Arc<Inner>,
}

struct Inner {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    temporary: bool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.temporary {
            let _ = self.disk.remove(&self.path);
        }
    }
}

impl std::fmt::Debug for SnapshotFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SnapshotFile").field(&self.inner.path).finish()
    }
}

impl SnapshotFile {
    fn new(disk: Arc<dyn Disk>, path: PathBuf, temporary: bool) -> Self {
        Self { inner: Arc::new(Inner { disk, path, temporary }) }
    }

    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    pub fn open(&self) -> Result<Stream, SnapshotError> {
        let file = self.inner.disk.open(self.path()).map_err(io_error("open"))?;
        Ok(Stream::new(file))
    }

    pub fn bytes(&self) -> Result<u64, SnapshotError> {
        let file = self.inner.disk.open(self.path()).map_err(io_error("open"))?;
        file.len().map_err(io_error("look at"))
    }

    pub fn read(&self) -> Result<SnapshotReader<BufReader<Stream>>, SnapshotError> {
        SnapshotReader::start(BufReader::with_capacity(1 << 17, self.open()?))
    }

    /// Reads it all; only the header is returned.
    pub fn verify(&self) -> Result<Header, SnapshotError> {
        let mut reader = self.read()?;
        while reader.next_record()?.is_some() {}
        Ok(reader.header)
    }
}

pub struct SnapshotFolder {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    temporary: AtomicU64,
    keeping: Mutex<()>,
}

fn io_error(operation: &'static str) -> impl FnOnce(io::Error) -> SnapshotError {
    move |source| SnapshotError::Io { operation, source }
}

impl SnapshotFolder {
    /// Removes what a crash left half written.
    pub fn open(disk: Arc<dyn Disk>, path: PathBuf) -> Result<Self, SnapshotError> {
        if !disk.exists(&path) {
            disk.create_folder(&path).map_err(io_error("create its folder"))?;
            if let Some(parent) = path.parent() {
                // Snapshots that are synced must not vanish with their folder.
                disk.sync_folder(parent).map_err(io_error("sync the folder of its folder"))?;
            }
        }
        for path in disk.list(&path).map_err(io_error("list its folder"))? {
            if path.extension().is_some_and(|extension| extension == "tmp") {
                disk.remove(&path).map_err(io_error("remove an unfinished one"))?;
            }
        }
        Ok(Self { disk, path, temporary: AtomicU64::new(0), keeping: Mutex::default() })
    }

    fn all(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        let mut paths = self.disk.list(&self.path).map_err(io_error("list its folder"))?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "snap"));
        paths.sort();
        Ok(paths)
    }

    /// The newest one whose header can be read.
    pub fn current(&self) -> Result<Option<(SnapshotFile, Header)>, SnapshotError> {
        for path in self.all()?.into_iter().rev() {
            let file = SnapshotFile::new(self.disk.clone(), path, false);
            match file.read() {
                Ok(reader) => return Ok(Some((file, reader.header))),
                Err(error) => {
                    tracing::error!(path = %file.path().display(), %error, "a snapshot cannot be read; it is not used");
                }
            }
        }
        Ok(None)
    }

    /// A file to write a snapshot to.
    pub fn temporary(&self) -> Result<(SnapshotFile, Stream), SnapshotError> {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{number}.tmp"));
        let stream =
            create_anew(&*self.disk, &path).map(Stream::new).map_err(io_error("create"))?;
        Ok((SnapshotFile::new(self.disk.clone(), path, true), stream))
    }

    /// Writes a snapshot, to the disk.
    pub fn write(
        &self,
        header: &Header,
        fill: impl FnOnce(&mut SnapshotWriter<BufWriter<Stream>>) -> Result<(), SnapshotError>,
    ) -> Result<SnapshotFile, SnapshotError> {
        let (file, stream) = self.temporary()?;
        let mut writer = SnapshotWriter::start(BufWriter::with_capacity(1 << 17, stream), header)?;
        fill(&mut writer)?;
        let stream = writer.finish()?.into_inner().map_err(|error| SnapshotError::Io {
            operation: "write",
            source: error.into_error(),
        })?;
        stream.sync().map_err(io_error("sync"))?;
        Ok(file)
    }

    /// Gives a complete file its place, for good, and then removes the ones before it; `noted` is
    /// told of it in between, so that nobody is sent to one that is gone. `None` if there is a
    /// later one by now: one that was being written while another member's came must not take
    /// its place, for the log before that one may be gone.
    pub fn keep(
        &self,
        file: &SnapshotFile,
        term: u64,
        index: u64,
        noted: impl FnOnce(SnapshotFile),
    ) -> Result<Option<SnapshotFile>, SnapshotError> {
        let _one_at_a_time = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path.join(format!("{term:08x}-{index:016x}.snap"));
        if self.all()?.last().is_some_and(|newest| *newest > path) {
            return Ok(None);
        }
        if file.path() != path {
            file.open()?.sync().map_err(io_error("sync"))?;
            self.disk.rename(file.path(), &path).map_err(io_error("rename"))?;
        }
        self.disk.sync_folder(&self.path).map_err(io_error("sync its folder"))?;
        let kept = SnapshotFile::new(self.disk.clone(), path, false);
        noted(kept.clone());
        for old in self.all()? {
            if old != kept.path() {
                self.disk.remove(&old).map_err(io_error("remove the one before"))?;
            }
        }
        Ok(Some(kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::disk::RealDisk;

    #[test]
    fn one_of_an_earlier_state_does_not_take_the_place_of_a_later_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = SnapshotFolder::open(Arc::new(RealDisk), dir.path().join("s")).unwrap();
        let written = || {
            let header = Header { cluster_id: 1, meta: Default::default(), leases: Vec::new() };
            folder.write(&header, |_| Ok(())).unwrap()
        };
        let (early, late) = (written(), written());
        let late = folder.keep(&late, 2, 9, drop).unwrap().expect("the first one");
        assert!(folder.keep(&early, 2, 8, drop).unwrap().is_none());
        assert!(folder.keep(&early, 1, 10, drop).unwrap().is_none());
        assert_eq!(folder.all().unwrap(), [late.path()]);
        let latest = folder.keep(&written(), 3, 9, drop).unwrap().expect("it is later");
        drop((early, late));
        assert_eq!(folder.all().unwrap(), [latest.path()]);
    }
}

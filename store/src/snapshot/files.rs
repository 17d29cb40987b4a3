//! Snapshot files: written aside, synced, then given their name. One is kept.
//!
//! ```text
//! snapshots/00000003-0000000000001f40.snap      term and index it goes up to
//! snapshots/00000003-0000000000001f40.tmp       being written; removed at start
//! ```

use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
        Ok(Self { disk, path, temporary: AtomicU64::new(0) })
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

    /// Gives a complete file its place, for good, and removes the ones before it.
    pub fn keep(
        &self,
        file: &SnapshotFile,
        term: u64,
        index: u64,
    ) -> Result<SnapshotFile, SnapshotError> {
        let path = self.path.join(format!("{term:08x}-{index:016x}.snap"));
        if file.path() != path {
            file.open()?.sync().map_err(io_error("sync"))?;
            self.disk.rename(file.path(), &path).map_err(io_error("rename"))?;
        }
        self.disk.sync_folder(&self.path).map_err(io_error("sync its folder"))?;
        for old in self.all()? {
            if old != path {
                self.disk.remove(&old).map_err(io_error("remove the one before"))?;
            }
        }
        Ok(SnapshotFile::new(self.disk.clone(), path, false))
    }
}

//! Snapshot files: written aside, synced, then given their name. One is kept.
//!
//! ```text
//! snapshots/00000003-0000000000001f40.snap      term and index it goes up to
//! snapshots/00000003-0000000000001f40.tmp       being written; removed at start
//! ```

use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::format::{Header, SnapshotError, SnapshotReader, SnapshotWriter};

/// A snapshot on disk. A temporary one is removed with its last handle.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    temporary: bool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.temporary {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl SnapshotFile {
    fn new(path: PathBuf, temporary: bool) -> Self {
        Self { inner: Arc::new(Inner { path, temporary }) }
    }

    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    pub fn open(&self) -> Result<File, SnapshotError> {
        File::open(self.path()).map_err(|source| SnapshotError::Io { operation: "open", source })
    }

    pub fn read(&self) -> Result<SnapshotReader<BufReader<File>>, SnapshotError> {
        SnapshotReader::start(BufReader::with_capacity(1 << 17, self.open()?))
    }

    /// Reads it all; only the header is returned.
    pub fn verify(&self) -> Result<Header, SnapshotError> {
        let mut reader = self.read()?;
        while reader.next_record()?.is_some() {}
        Ok(reader.header)
    }
}

#[derive(Debug)]
pub struct SnapshotFolder {
    path: PathBuf,
    temporary: AtomicU64,
}

fn io_error(operation: &'static str) -> impl FnOnce(io::Error) -> SnapshotError {
    move |source| SnapshotError::Io { operation, source }
}

impl SnapshotFolder {
    /// Removes what a crash left half written.
    pub fn open(path: PathBuf) -> Result<Self, SnapshotError> {
        std::fs::create_dir_all(&path).map_err(io_error("create its folder"))?;
        for entry in std::fs::read_dir(&path).map_err(io_error("list its folder"))? {
            let path = entry.map_err(io_error("list its folder"))?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                std::fs::remove_file(&path).map_err(io_error("remove an unfinished one"))?;
            }
        }
        Ok(Self { path, temporary: AtomicU64::new(0) })
    }

    fn all(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(io_error("list its folder"))? {
            let path = entry.map_err(io_error("list its folder"))?.path();
            if path.extension().is_some_and(|extension| extension == "snap") {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// The newest one whose header can be read.
    pub fn current(&self) -> Result<Option<(SnapshotFile, Header)>, SnapshotError> {
        for path in self.all()?.into_iter().rev() {
            let file = SnapshotFile::new(path, false);
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
    pub fn temporary(&self) -> Result<(SnapshotFile, File), SnapshotError> {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let file = SnapshotFile::new(self.path.join(format!("{number}.tmp")), true);
        let handle = File::create(file.path()).map_err(io_error("create"))?;
        Ok((file, handle))
    }

    /// Writes a snapshot, to the disk.
    pub fn write(
        &self,
        header: &Header,
        fill: impl FnOnce(&mut SnapshotWriter<BufWriter<File>>) -> Result<(), SnapshotError>,
    ) -> Result<SnapshotFile, SnapshotError> {
        let (file, handle) = self.temporary()?;
        let mut writer = SnapshotWriter::start(BufWriter::with_capacity(1 << 17, handle), header)?;
        fill(&mut writer)?;
        let handle = writer.finish()?.into_inner().map_err(|error| SnapshotError::Io {
            operation: "write",
            source: error.into_error(),
        })?;
        handle.sync_all().map_err(io_error("sync"))?;
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
            File::open(file.path())
                .and_then(|handle| handle.sync_all())
                .map_err(io_error("sync"))?;
            std::fs::rename(file.path(), &path).map_err(io_error("rename"))?;
        }
        File::open(&self.path)
            .and_then(|folder| folder.sync_all())
            .map_err(io_error("sync its folder"))?;
        for old in self.all()? {
            if old != path {
                std::fs::remove_file(&old).map_err(io_error("remove the one before"))?;
            }
        }
        Ok(SnapshotFile::new(path, false))
    }
}

//! The disk as identity, log and snapshots see it. A small port, so that a simulator can
//! lose unsynced writes, tear them, or run out of space.

use std::any::Any;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub trait DiskFile: Send + Sync {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns when all that was written is on the medium.
    fn sync(&self) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

pub trait Disk: Send + Sync {
    /// A new file with `reserve` bytes that are its own: writing there cannot run out of space.
    fn create(&self, path: &Path, reserve: u64) -> io::Result<Arc<dyn DiskFile>>;
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    fn exists(&self, path: &Path) -> bool;
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// With its parents; one that is there is fine.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// With everything in it.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in the folder last.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
    /// Returns when a write that found no space is worth another try.
    fn wait_for_space(&self);
    /// Keeps others out until it is dropped; `WouldBlock` if somebody is in.
    fn lock(&self, path: &Path) -> io::Result<Lock>;
}

/// Held as long as it lives.
pub type Lock = Box<dyn Any + Send + Sync>;

/// A file that is not there yet; one that a crash has left is of no use.
pub fn create_anew(disk: &dyn Disk, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
    if disk.exists(path) {
        disk.remove(path)?;
    }
    disk.create(path, 0)
}

/// Reads or writes a file from its start to its end.
pub struct Stream {
    file: Arc<dyn DiskFile>,
    offset: u64,
}

impl Stream {
    pub fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file, offset: 0 }
    }

    pub fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(bytes, self.offset)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The kernel tells nobody that there is space again.
const NO_SPACE_PAUSE: Duration = Duration::from_millis(200);

/// The real one.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealDisk;

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

impl Disk for RealDisk {
    fn create(&self, path: &Path, reserve: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        if let Err(error) = reserve_space(&file, reserve) {
            drop(file);
            let _ = std::fs::remove_file(path);
            return Err(error);
        }
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            paths.push(entry?.path());
        }
        paths.sort();
        Ok(paths)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let stat = nix::sys::statvfs::statvfs(folder)?;
        Ok(stat.blocks_available() as u64 * stat.fragment_size() as u64)
    }

    fn wait_for_space(&self) {
        std::thread::sleep(NO_SPACE_PAUSE);
    }

    /// A killed process leaves no lock behind.
    fn lock(&self, path: &Path) -> io::Result<Lock> {
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(LockFile(file))),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// The lock goes with this and not with the last copy of the file: a program that is just
/// being started holds one until it is replaced by its own.
struct LockFile(File);

impl Drop for LockFile {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "cannot unlock the data folder");
        }
    }
}

fn reserve_space(file: &File, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    match nix::fcntl::fallocate(file, nix::fcntl::FallocateFlags::empty(), 0, bytes as i64) {
        // Some filesystems cannot reserve; there a full disk shows only when writing.
        Err(nix::errno::Errno::EOPNOTSUPP) => Ok(()),
        result => Ok(result?),
    }
}

pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

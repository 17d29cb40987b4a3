//! The real disk, with something happening before its operations.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use skiff_store::wal::disk::{Disk, DiskFile, Lock, RealDisk};

/// Longer than any test has a reason to wait.
const PATIENCE: Duration = Duration::from_secs(60);

pub trait Hooks: Send + Sync + 'static {
    /// Before a file is created or written to.
    fn before_write(&self) -> io::Result<()> {
        Ok(())
    }
    fn before_sync(&self) {}
    fn wait_for_space(&self) {}
}

pub struct HookedDisk<H>(pub Arc<H>);

struct HookedFile<H>(Arc<H>, Arc<dyn DiskFile>);

impl<H: Hooks> DiskFile for HookedFile<H> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.before_write()?;
        self.1.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.before_sync();
        self.1.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.1.len()
    }
}

impl<H: Hooks> Disk for HookedDisk<H> {
    fn create(&self, path: &Path, reserve: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.0.before_write()?;
        Ok(Arc::new(HookedFile(self.0.clone(), RealDisk.create(path, reserve)?)))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(HookedFile(self.0.clone(), RealDisk.open(path)?)))
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(folder)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        RealDisk.sync_folder(folder)
    }
    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(folder)
    }
    fn exists(&self, path: &Path) -> bool {
        RealDisk.exists(path)
    }
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_folder(path)
    }
    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_folder(path)
    }
    fn wait_for_space(&self) {
        self.0.wait_for_space();
    }
    fn lock(&self, path: &Path) -> io::Result<Lock> {
        RealDisk.lock(path)
    }
}

/// Goes up, and can be waited for.
#[derive(Default)]
pub struct Count(Mutex<u64>, Condvar);

impl Count {
    pub fn add_one(&self) {
        *self.0.lock().unwrap() += 1;
        self.1.notify_all();
    }

    pub fn now(&self) -> u64 {
        *self.0.lock().unwrap()
    }

    /// Until it has come so far.
    pub fn wait_for(&self, count: u64) {
        let less = |now: &mut u64| *now < count;
        let (now, waited) =
            self.1.wait_timeout_while(self.0.lock().unwrap(), PATIENCE, less).unwrap();
        assert!(!waited.timed_out(), "{} of {count} after {PATIENCE:?}", *now);
    }
}

/// Holds every sync until it is let go.
#[derive(Default)]
pub struct Gate {
    pub begun: Count,
    allowed: Count,
    open: AtomicBool,
}

impl Gate {
    pub fn allow_one(&self) {
        self.allowed.add_one();
    }

    pub fn allow_all(&self) {
        self.open.store(true, Ordering::Release);
        self.allowed.add_one();
    }
}

impl Hooks for Gate {
    fn before_sync(&self) {
        self.begun.add_one();
        if !self.open.load(Ordering::Acquire) {
            self.allowed.wait_for(self.begun.now());
        }
    }
}

/// Cannot reserve, and is full until somebody makes space.
#[derive(Default)]
pub struct Full {
    pub is_full: AtomicBool,
    pub waited: Count,
}

impl Full {
    pub fn set(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Release);
    }
}

impl Hooks for Full {
    fn before_write(&self) -> io::Result<()> {
        if self.is_full.load(Ordering::Acquire) {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    fn wait_for_space(&self) {
        self.waited.add_one();
        // The real disk pauses too, only longer.
        std::thread::sleep(Duration::from_millis(1));
    }
}

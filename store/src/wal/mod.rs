//! The write-ahead log: Raft's entries and its vote, on disk before anything is answered.
//!
//! One task does all the writing: [`LogWriter`]. It takes everything that has queued up, writes
//! it as one frame, syncs once, and then tells everyone: under load a sync is shared by many.
//! It also keeps a spare segment reserved, so that what has been admitted can be written even
//! when the disk is full.
//!
//! The log knows nothing of Raft: an entry has an index, a term, a kind and a body.

pub mod disk;
pub mod frame;
mod recover;
mod slots;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use self::disk::{Disk, DiskFile};
use self::frame::{Entry, Item};
use self::slots::{Location, Slots};
pub use self::writer::LogWriter;

/// Called by the log's writer once the disk has it, or with the error.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

#[derive(Debug, thiserror::Error)]
pub enum WalError {
    #[error("log: {operation} {path}")]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "log: {path} is damaged at byte {offset}: frame {expected} is broken but frame {found} follows. \
         This is no torn write, entries were lost: restore this member from a snapshot or rejoin it"
    )]
    Damaged { path: PathBuf, offset: u64, expected: u64, found: u64 },
    #[error("log: {path} holds entry {found} where {expected} has to be")]
    Order { path: PathBuf, expected: u64, found: u64 },
}

#[derive(Debug, Clone)]
pub struct WalOptions {
    pub segment_bytes: u64,
    /// Entries kept in memory for the appliers and the peers, once they are on disk.
    pub cache_bytes: usize,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20, cache_bytes: 1 << 20 }
    }
}

/// What the writer has to do.
enum Job {
    Write {
        items: Vec<Item>,
        ids: Vec<u64>,
        done: Done,
    },
    Purge {
        index: u64,
        term: u64,
    },
    /// Try again to reserve a spare segment.
    Reserve,
    Close,
}

/// Shared between the callers and the writer.
struct Shared {
    folder: PathBuf,
    slots: Mutex<Slots>,
    /// Bytes that can be written without asking the disk for more.
    reserved: AtomicU64,
    retrying: AtomicBool,
    syncs: AtomicU64,
    bytes_written: AtomicU64,
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Wal {
    shared: Arc<Shared>,
    jobs: mpsc::UnboundedSender<Job>,
    margin_bytes: u64,
}

/// Room for what Raft itself appends (votes, blank and membership entries, frame headers);
/// less if segments are small.
const MARGIN_BYTES: u64 = 64 << 10;

impl Wal {
    /// Opens the log in `folder`, which exists. Recovers from a torn last frame; refuses
    /// damage. Nothing is written until the writer runs.
    pub fn open(
        folder: &Path,
        disk: Arc<dyn Disk>,
        options: WalOptions,
    ) -> Result<(Self, LogWriter), WalError> {
        let recovered = recover::recover(folder, disk.as_ref(), &options)?;
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            slots: Mutex::new(recovered.slots),
            reserved: AtomicU64::new(0),
            retrying: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
        });
        // What is in it has its bound: each entry belongs to a proposal that waits, or to a call
        // of the leader.
        let (jobs, queue) = mpsc::unbounded_channel();
        let margin_bytes = MARGIN_BYTES.min(options.segment_bytes / 4);
        let writer = LogWriter::new(shared.clone(), disk, options, recovered.tail, queue)?;
        Ok((Self { shared, jobs, margin_bytes }, writer))
    }

    /// Entries are readable when this returns, and on disk when `done` is called.
    pub fn append(&self, entries: Vec<Entry>, done: Done) {
        let mut slots = self.shared.slots();
        let ids = entries.iter().map(|entry| slots.push(entry)).collect();
        let items = entries.into_iter().map(Item::Entry).collect();
        // Sent under the lock, so that the queue has the order of the slots.
        self.send(Job::Write { items, ids, done });
    }

    pub fn save_state(&self, state: Bytes, done: Done) {
        let mut slots = self.shared.slots();
        slots.state = Some(state.clone());
        self.write(Item::State(state), done);
    }

    pub fn truncate_after(&self, after: Option<u64>, done: Done) {
        let mut slots = self.shared.slots();
        slots.cut(after);
        self.write(Item::Cut { after }, done);
    }

    /// Entries up to `index` are not needed any more. Only after a snapshot that is on disk
    /// covers them.
    pub fn purge(&self, index: u64, term: u64) {
        let mut slots = self.shared.slots();
        slots.purge(index, term);
        self.send(Job::Purge { index, term });
    }

    // The callers hold the lock of the slots: the queue has their order.
    fn write(&self, item: Item, done: Done) {
        self.send(Job::Write { items: vec![item], ids: Vec::new(), done });
    }

    fn send(&self, job: Job) {
        if let Err(mpsc::error::SendError(Job::Write { done, .. })) = self.jobs.send(job) {
            done(Err(io::Error::other("the log is closed")));
        }
    }

    /// `Ok` if that many bytes can surely be written. If not, asks for more space, so that
    /// a later attempt finds it once there is some.
    pub fn admit(&self, bytes: u64) -> bool {
        if self.shared.reserved.load(Ordering::Relaxed) >= bytes + self.margin_bytes {
            return true;
        }
        if !self.shared.retrying.swap(true, Ordering::Relaxed) {
            self.send(Job::Reserve);
        }
        false
    }

    pub fn state(&self) -> Option<Bytes> {
        self.shared.slots().state.clone()
    }

    /// Index and term of the last purged entry.
    pub fn purged(&self) -> Option<(u64, u64)> {
        self.shared.slots().purged
    }

    /// Index and term of the last entry, purged or not.
    pub fn last(&self) -> Option<(u64, u64)> {
        self.shared.slots().last()
    }

    /// The entries of a range of indexes that there are.
    pub fn read(&self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        let mut fetch: Vec<(usize, Location, Arc<dyn DiskFile>)> = Vec::new();
        let mut entries = {
            let slots = self.shared.slots();
            slots.read(from, to, &mut fetch)?
        };
        for (at, location, file) in fetch {
            entries[at].body = read_body(&*file, &location, entries[at].index)?;
        }
        Ok(entries)
    }

    /// How many entries up to `index` take so many bytes at most.
    pub fn entries_within(&self, bytes: u64, index: u64) -> u64 {
        self.shared.slots().entries_within(bytes, index)
    }

    /// Bytes of entries that have not been purged.
    pub fn bytes(&self) -> u64 {
        self.shared.slots().bytes
    }

    /// How often the disk was asked to sync, and how much was written.
    pub fn written(&self) -> (u64, u64) {
        (
            self.shared.syncs.load(Ordering::Relaxed),
            self.shared.bytes_written.load(Ordering::Relaxed),
        )
    }

    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// Lets the writer end, after what is queued. So does dropping the log.
    pub fn close(&self) {
        self.send(Job::Close);
    }
}

fn read_body(file: &dyn DiskFile, location: &Location, index: u64) -> io::Result<Bytes> {
    let mut body = vec![0; location.len as usize];
    let read = file.read_at(&mut body, location.offset)?;
    if read < body.len() || crc32fast::hash(&body) != location.crc {
        let message =
            format!("log entry {index} cannot be read back from disk: its checksum does not match");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(body.into())
}

//! The log's thread: the only one that writes.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use tokio::sync::Notify;

use super::disk::{Disk, DiskFile, is_no_space};
use super::frame::{self, HEADER_BYTES, Item};
use super::recover::{Tail, segment_path, spare_path};
use super::slots::Location;
use super::{Done, Job, Shared, WalError, WalOptions};
use crate::background::Background;

/// One frame takes at most so much of what is queued; it bounds the buffer.
const MAX_FRAME_BYTES: usize = 8 << 20;

struct Segment {
    number: u64,
    file: Arc<dyn DiskFile>,
    offset: u64,
    size: u64,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    options: WalOptions,
    segment: Segment,
    spare: bool,
    sequence: u64,
    buffer: Vec<u8>,
    waiting: Waiting,
    /// After a failed write nothing more is written: its place in the log must stay last.
    failed: Option<String>,
}

#[derive(Default)]
struct Waiting {
    items: Vec<Item>,
    /// Index and slot id of each entry among the items.
    slots: Vec<(u64, u64)>,
    done: Vec<Done>,
    bytes: usize,
}

impl Writer {
    pub fn new(
        shared: Arc<Shared>,
        disk: Arc<dyn Disk>,
        options: WalOptions,
        tail: Tail,
    ) -> Result<Self, WalError> {
        let folder = shared.folder.clone();
        let error = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| WalError::Io { operation, path, source }
        };
        let fresh = tail.segment.is_none();
        let (number, offset, size) = tail.segment.unwrap_or((1, 0, options.segment_bytes));
        let path = segment_path(&folder, number);
        let file = if fresh {
            let file = disk.create(&path, size).map_err(error("create", &path))?;
            disk.sync_folder(&folder).map_err(error("sync", &folder))?;
            file
        } else {
            disk.open(&path).map_err(error("open", &path))?
        };
        shared.slots().files.insert(number, file.clone());
        let spare = spare_path(&folder);
        let mut writer = Self {
            spare: disk
                .open(&spare)
                .and_then(|file| file.len())
                .is_ok_and(|len| len >= options.segment_bytes),
            shared,
            disk,
            options,
            segment: Segment { number, file, offset, size },
            sequence: tail.sequence,
            buffer: Vec::new(),
            waiting: Waiting::default(),
            failed: None,
        };
        if !writer.spare {
            // One that is too short is of no use.
            let _ = writer.disk.remove(&spare);
        }
        writer.reserve();
        Ok(writer)
    }

    /// On a thread of its own.
    pub fn run(mut self, queue: mpsc::Receiver<Job>) {
        while let Ok(job) = queue.recv() {
            if self.round(job, &queue) {
                return;
            }
        }
    }

    /// On a simulation's one thread.
    pub async fn run_simulated(
        mut self,
        queue: mpsc::Receiver<Job>,
        wake: Arc<Notify>,
        background: Background,
    ) {
        loop {
            match queue.try_recv() {
                Ok(job) => {
                    background.take_time("log").await;
                    if self.round(job, &queue) {
                        return;
                    }
                }
                Err(mpsc::TryRecvError::Empty) => wake.notified().await,
                Err(mpsc::TryRecvError::Disconnected) => return,
            }
        }
    }

    /// Does the job and all that has queued up behind it, with one sync. Returns whether that
    /// was the end.
    fn round(&mut self, job: Job, queue: &mpsc::Receiver<Job>) -> bool {
        let mut next = Some(job);
        let mut open = true;
        while let Some(job) = next.take() {
            match job {
                Job::Write { items, ids, done } => self.waiting.add(items, ids, done),
                Job::Purge { index, term } => {
                    self.flush();
                    self.purge(index, term);
                }
                Job::Reserve => self.reserve(),
                Job::Close => open = false,
            }
            if open && self.waiting.bytes < MAX_FRAME_BYTES {
                next = queue.try_recv().ok();
            }
        }
        self.flush();
        !open
    }

    /// Writes what waits as one frame, syncs it, and tells everyone.
    fn flush(&mut self) {
        if self.waiting.items.is_empty() {
            return;
        }
        let items = std::mem::take(&mut self.waiting.items);
        let slots = std::mem::take(&mut self.waiting.slots);
        self.waiting.bytes = 0;
        let result = match &self.failed {
            Some(cause) => Err(cause.clone()),
            None => self.write(&items, &slots).map_err(|error| {
                let cause =
                    format!("write to the log in {}: {error}", self.shared.folder.display());
                tracing::error!("{cause}; this member stops taking writes");
                self.failed = Some(cause.clone());
                cause
            }),
        };
        for done in self.waiting.done.drain(..) {
            done(result.clone().map_err(io::Error::other));
        }
    }

    fn write(&mut self, items: &[Item], slots: &[(u64, u64)]) -> io::Result<()> {
        self.buffer.clear();
        let bodies = frame::encode(self.sequence, items, &mut self.buffer);
        if self.segment.offset + self.buffer.len() as u64 > self.segment.size {
            self.roll(self.buffer.len() as u64)?;
            // The segment's own first frame has taken the sequence.
            self.buffer.clear();
            frame::encode(self.sequence, items, &mut self.buffer);
        }
        let at = self.segment.offset;
        self.put_frame()?;
        let mut shared = self.shared.slots();
        for ((index, id), body) in slots.iter().zip(bodies) {
            let location = Location {
                segment: self.segment.number,
                offset: at + body.offset as u64,
                len: body.len,
                crc: body.crc,
            };
            shared.written(*index, *id, location);
        }
        shared.trim(self.options.cache_bytes);
        drop(shared);
        if self.buffer.capacity() > 1 << 20 {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Writes and syncs the buffer as the next frame. Waits for space if there is none: what
    /// was admitted cannot be refused any more, and Raft must not see a failed disk. That
    /// happens only on filesystems that cannot reserve.
    fn put_frame(&mut self) -> io::Result<()> {
        loop {
            let written = self.segment.file.write_at(&self.buffer, self.segment.offset);
            match written.and_then(|()| self.segment.file.sync()) {
                Ok(()) => break,
                Err(error) if is_no_space(&error) => {
                    tracing::warn!(folder = %self.shared.folder.display(), "no space left for the log; waiting for some");
                    self.disk.wait_for_space();
                }
                Err(error) => return Err(error),
            }
        }
        self.segment.offset += self.buffer.len() as u64;
        self.sequence += 1;
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        self.shared.bytes_written.fetch_add(self.buffer.len() as u64, Ordering::Relaxed);
        self.publish();
        Ok(())
    }

    /// Goes on in a new segment, which begins with the vote and the purge mark: the segments
    /// before it may go away.
    fn roll(&mut self, needed: u64) -> io::Result<()> {
        let folder = self.shared.folder.clone();
        let number = self.segment.number + 1;
        let path = segment_path(&folder, number);
        let size = self.options.segment_bytes.max(needed + 4096);
        let file = if self.spare && size == self.options.segment_bytes {
            self.disk.rename(&spare_path(&folder), &path)?;
            self.spare = false;
            self.disk.open(&path)?
        } else {
            self.create_waiting(&path, size)?
        };
        self.disk.sync_folder(&folder)?;
        self.shared.slots().files.insert(number, file.clone());
        self.segment = Segment { number, file, offset: 0, size };
        let (state, purged) = {
            let slots = self.shared.slots();
            (slots.state.clone(), slots.purged)
        };
        let mut head: Vec<_> = state.map(Item::State).into_iter().collect();
        head.extend(purged.map(|(index, term)| Item::Purge { index, term }));
        self.buffer.clear();
        frame::encode(self.sequence, &head, &mut self.buffer);
        self.put_frame()?;
        self.reserve();
        Ok(())
    }

    fn create_waiting(&mut self, path: &Path, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        loop {
            match self.disk.create(path, size) {
                Err(error) if is_no_space(&error) => self.disk.wait_for_space(),
                result => return result,
            }
        }
    }

    /// Makes sure of a spare segment, if the disk has room.
    fn reserve(&mut self) {
        if !self.spare {
            let path = spare_path(&self.shared.folder);
            match self.disk.create(&path, self.options.segment_bytes) {
                Ok(_) => self.spare = true,
                Err(error) => tracing::warn!(
                    path = %path.display(), %error,
                    "cannot reserve space for the log; writes are refused when what is left is used up"
                ),
            }
        }
        self.publish();
        self.shared.retrying.store(false, Ordering::Relaxed);
    }

    fn publish(&self) {
        let left = self.segment.size.saturating_sub(self.segment.offset);
        let spare = if self.spare { self.options.segment_bytes } else { 0 };
        // A frame is not split, so only the larger of the two counts in full.
        self.shared.reserved.store(left.max(spare), Ordering::Relaxed);
    }

    /// Records the purge, then gives back segments that hold nothing any more.
    fn purge(&mut self, index: u64, term: u64) {
        if self.failed.is_some() {
            return;
        }
        if let Err(error) = self.write(&[Item::Purge { index, term }], &[]) {
            self.failed = Some(format!("write to the log: {error}"));
            return;
        }
        let unused: Vec<u64> = {
            let mut slots = self.shared.slots();
            let needed =
                slots.oldest_segment().unwrap_or(self.segment.number).min(self.segment.number);
            let unused: Vec<_> = slots.files.range(..needed).map(|(number, _)| *number).collect();
            slots.files.retain(|number, _| *number >= needed);
            unused
        };
        for number in unused {
            let path = segment_path(&self.shared.folder, number);
            if let Err(error) = self.give_back(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove a segment that is not needed any more");
            }
        }
        self.publish();
    }

    fn give_back(&mut self, path: &Path) -> io::Result<()> {
        let size = self.disk.open(path)?.len()?;
        if !self.spare && size == self.options.segment_bytes && size > HEADER_BYTES as u64 {
            self.disk.rename(path, &spare_path(&self.shared.folder))?;
            self.spare = true;
            return Ok(());
        }
        self.disk.remove(path)
    }
}

impl Waiting {
    fn add(&mut self, items: Vec<Item>, ids: Vec<u64>, done: Done) {
        let mut ids = ids.into_iter();
        for item in &items {
            if let Item::Entry(entry) = item {
                self.bytes += entry.body.len();
                if let Some(id) = ids.next() {
                    self.slots.push((entry.index, id));
                }
            }
        }
        self.items.extend(items);
        self.done.push(done);
    }
}

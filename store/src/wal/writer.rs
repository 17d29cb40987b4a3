//! The log's writer: the only one that writes.
//!
//! Where a sync takes less than a switch to another thread and back, the task does it itself. A
//! disk that was slow the last time may be so again: then it is waited for on another thread, so
//! that Raft's other tasks go on, and a leader is heard.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::disk::{Disk, DiskFile, is_no_space};
use super::frame::{self, HEADER_BYTES, Item};
use super::recover::{Tail, segment_path, spare_path};
use super::slots::Location;
use super::{Done, Job, Shared, WalError, WalOptions};
use crate::background::Background;

/// A round that took longer makes the next ones slow, until one is not.
const SLOW: Duration = Duration::from_millis(10);
/// One frame takes at most so much of what is queued; it bounds the buffer.
const MAX_FRAME_BYTES: usize = 8 << 20;

struct Segment {
    number: u64,
    file: Arc<dyn DiskFile>,
    offset: u64,
    size: u64,
}

/// Runs as a task; until then what is queued waits.
pub struct LogWriter {
    writer: Writer,
    queue: mpsc::UnboundedReceiver<Job>,
}

struct Writer {
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    options: WalOptions,
    segment: Segment,
    spare: bool,
    sequence: u64,
    buffer: Vec<u8>,
    waiting: Waiting,
    /// What every segment begins with, so that those before it may go away.
    state: Option<Bytes>,
    purged: Option<(u64, u64)>,
    /// After a failed write nothing more is written: its place in the log must stay last.
    failed: Option<String>,
}

/// What queued up for the next frame.
#[derive(Default)]
struct Waiting {
    items: Vec<Item>,
    /// Index and slot id of each entry among the items.
    slots: Vec<(u64, u64)>,
    done: Vec<Done>,
    bytes: usize,
    /// Segments may not be needed any more afterwards.
    purges: bool,
}

/// Where a frame is written, and so what may be waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Among Raft's tasks.
    Here,
    /// Where waiting holds nobody up.
    Aside,
}

impl LogWriter {
    pub(super) fn new(
        shared: Arc<Shared>,
        disk: Arc<dyn Disk>,
        options: WalOptions,
        tail: Tail,
        queue: mpsc::UnboundedReceiver<Job>,
    ) -> Result<Self, WalError> {
        Ok(Self { writer: Writer::new(shared, disk, options, tail)?, queue })
    }

    /// Until the log is closed or dropped.
    pub async fn run(mut self, background: Background) {
        let mut slow = false;
        let mut open = true;
        while open && let Some(job) = self.queue.recv().await {
            // What Raft does with an entry besides, such as sending it to the others, does not
            // wait for this disk.
            tokio::task::yield_now().await;
            background.take_time("log").await;
            open = self.writer.collect(job, &mut self.queue);
            let begun = Instant::now();
            if slow || !self.writer.flush(Place::Here) {
                let mut writer = self.writer;
                let flushed = background.run("log aside", move || {
                    writer.flush(Place::Aside);
                    writer
                });
                self.writer = match flushed.await {
                    Ok(writer) => writer,
                    Err(error) => {
                        tracing::error!(%error, "the log's writer ended; this member stops taking writes");
                        return;
                    }
                };
            }
            slow = begun.elapsed() >= SLOW;
        }
    }
}

impl Writer {
    fn new(
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
        let (state, purged) = {
            let mut slots = shared.slots();
            slots.files.insert(number, file.clone());
            (slots.state.clone(), slots.purged)
        };
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
            state,
            purged,
            failed: None,
        };
        if !writer.spare {
            // One that is too short is of no use.
            let _ = writer.disk.remove(&spare);
        }
        writer.reserve();
        Ok(writer)
    }

    /// Takes the job and all that has queued up behind it. Returns whether more may come.
    fn collect(&mut self, job: Job, queue: &mut mpsc::UnboundedReceiver<Job>) -> bool {
        let mut next = Some(job);
        while let Some(job) = next.take() {
            match job {
                Job::Write { items, ids, done } => self.waiting.add(items, ids, done),
                Job::Purge { index, term } => {
                    self.waiting.items.push(Item::Purge { index, term });
                    self.waiting.purges = true;
                }
                Job::Reserve => self.reserve(),
                Job::Close => return false,
            }
            if self.waiting.bytes < MAX_FRAME_BYTES {
                next = queue.try_recv().ok();
            }
        }
        true
    }

    /// Writes what waits as one frame, syncs it, and tells everyone. Returns whether it did:
    /// space is waited for aside only.
    fn flush(&mut self, place: Place) -> bool {
        if self.waiting.items.is_empty() {
            return true;
        }
        let result = match &self.failed {
            Some(cause) => Err(cause.clone()),
            None => match self.write(place) {
                Err(error) if place == Place::Here && is_no_space(&error) => return false,
                Err(error) => {
                    let cause =
                        format!("write to the log in {}: {error}", self.shared.folder.display());
                    tracing::error!("{cause}; this member stops taking writes");
                    self.failed = Some(cause.clone());
                    Err(cause)
                }
                Ok(()) => Ok(()),
            },
        };
        let Waiting { items, done, purges, .. } = std::mem::take(&mut self.waiting);
        if result.is_ok() {
            self.follow(items);
        }
        let written = result.is_ok();
        for done in done {
            done(result.clone().map_err(io::Error::other));
        }
        if written && purges {
            self.give_back_unused();
        }
        true
    }

    /// Takes note of what the next segment has to begin with.
    fn follow(&mut self, items: Vec<Item>) {
        for item in items {
            match item {
                Item::State(state) => self.state = Some(state),
                Item::Purge { index, term } => self.purged = self.purged.max(Some((index, term))),
                Item::Entry(_) | Item::Cut { .. } => {}
            }
        }
    }

    /// Writes what waits. If it fails for want of space it can be called again.
    fn write(&mut self, place: Place) -> io::Result<()> {
        self.buffer.clear();
        let mut bodies = frame::encode(self.sequence, &self.waiting.items, &mut self.buffer);
        if self.segment.offset + self.buffer.len() as u64 > self.segment.size {
            self.roll(self.buffer.len() as u64, place)?;
        }
        if self.segment.offset == 0 && self.segment.number > 1 {
            self.put_head(place)?;
            // The segment's own first frame has taken the sequence.
            self.buffer.clear();
            bodies = frame::encode(self.sequence, &self.waiting.items, &mut self.buffer);
        }
        let at = self.segment.offset;
        self.put_frame(place)?;
        let mut shared = self.shared.slots();
        for ((index, id), body) in self.waiting.slots.iter().zip(bodies) {
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

    /// Writes and syncs the buffer as the next frame. Aside it waits for space if there is none:
    /// what was admitted cannot be refused any more, and Raft must not see a failed disk. That
    /// happens only on filesystems that cannot reserve.
    fn put_frame(&mut self, place: Place) -> io::Result<()> {
        loop {
            let written = self.segment.file.write_at(&self.buffer, self.segment.offset);
            match written.and_then(|()| self.segment.file.sync()) {
                Ok(()) => break,
                Err(error) if place == Place::Aside && is_no_space(&error) => {
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

    /// Goes on in a new segment.
    fn roll(&mut self, needed: u64, place: Place) -> io::Result<()> {
        let folder = self.shared.folder.clone();
        let number = self.segment.number + 1;
        let path = segment_path(&folder, number);
        let size = self.options.segment_bytes.max(needed + 4096);
        let file = if self.spare && size == self.options.segment_bytes {
            self.disk.rename(&spare_path(&folder), &path)?;
            self.spare = false;
            self.disk.open(&path)?
        } else {
            self.create(&path, size, place)?
        };
        self.disk.sync_folder(&folder)?;
        self.shared.slots().files.insert(number, file.clone());
        self.segment = Segment { number, file, offset: 0, size };
        self.reserve();
        Ok(())
    }

    /// A segment begins with the vote and the purge mark: those before it may go away.
    fn put_head(&mut self, place: Place) -> io::Result<()> {
        let mut head: Vec<_> = self.state.clone().map(Item::State).into_iter().collect();
        head.extend(self.purged.map(|(index, term)| Item::Purge { index, term }));
        self.buffer.clear();
        frame::encode(self.sequence, &head, &mut self.buffer);
        self.put_frame(place)
    }

    fn create(&mut self, path: &Path, size: u64, place: Place) -> io::Result<Arc<dyn DiskFile>> {
        loop {
            match self.disk.create(path, size) {
                Err(error) if place == Place::Aside && is_no_space(&error) => {
                    self.disk.wait_for_space()
                }
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

    /// Removes the segments that hold nothing any more.
    fn give_back_unused(&mut self) {
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
                break;
            }
        }
        self.publish();
    }

    /// It is gone for good before a later one is: a log with a gap is a damaged one.
    fn give_back(&mut self, path: &Path) -> io::Result<()> {
        let size = self.disk.open(path)?.len()?;
        if !self.spare && size == self.options.segment_bytes && size > HEADER_BYTES as u64 {
            self.disk.rename(path, &spare_path(&self.shared.folder))?;
            self.spare = true;
        } else {
            self.disk.remove(path)?;
        }
        self.disk.sync_folder(&self.shared.folder)
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

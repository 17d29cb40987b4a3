//! The engine: records in segments, files that are only ever written at their end.
//!
//! ```text
//! engine/0000000000000001.seg     cleaned: it stands for 1 to 6
//! engine/0000000000000007.seg
//! engine/0000000000000008.seg     grows: each batch is a frame behind the one before
//!
//! batch ──▶ frame at the end of the last segment          a full one is synced, the next begins
//!       ──▶ table of each segment: revision -> place      in memory
//! read  ──▶ table ──▶ one pread
//! tidy  ──▶ what is wanted of some neighbours ──▶ one segment in their place
//! ```
//!
//! Records come in the order of their revisions and never change, so the segments are sorted by
//! themselves, and no page is ever written a second time. That a record is not wanted any more is
//! a line in the newest segment; the record goes when its segment is cleaned (`plan.rs`). The
//! first frame of each segment has all leases and the meta, so the ones before it tell of records
//! alone.
//!
//! A batch is in the kernel's hands when `apply` returns: kill -9 loses nothing. Power loss may
//! take what has been written to the newest segment since its last sync, from the end. Reading
//! stops in each segment at the first frame that is not whole, and nothing is written behind one
//! that is not; whether what was read is what was meant, the digest in the meta tells.

mod clean;
mod folder;
pub mod frame;
mod load;
pub mod plan;
pub mod table;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use self::frame::{FrameWriter, State};
use self::table::{Slot, Table, reads};
use super::{Engine, EngineError, Meta, Tidy, Visit};
use crate::kv::LeaseId;
use crate::mvcc::record::Record;
use crate::mvcc::revision::Rev;
use crate::mvcc::{ReadFault, Records, WriteBatch};
use crate::wal::disk::{Disk, DiskFile, create_anew, is_no_space};

/// A scan reads so much at a time.
const READ_BYTES: u32 = 256 << 10;
/// A segment of a large store is larger, so that there are never too many files.
const SEGMENTS: u64 = 64;
const MAX_SEGMENT_BYTES: u64 = 64 << 20;

pub struct SegmentEngine {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    segment_bytes: u64,
    /// Held by who writes, for as long as that takes.
    writer: Mutex<Writer>,
    /// Held for moments; `None` once it is closed.
    content: RwLock<Option<Content>>,
}

struct Writer {
    /// The last segment's file; `None` before the first batch.
    active: Option<Active>,
    next_number: u64,
}

struct Active {
    file: Arc<dyn DiskFile>,
    end: u64,
    crc: u32,
    synced: bool,
    /// Takes no more frames: a crash has left something behind its end. Written over only in
    /// part, or with the same bytes once more, that could pass for frames again.
    full: bool,
}

#[derive(Default)]
struct Content {
    segments: Vec<Segment>,
    leases: BTreeMap<LeaseId, i64>,
    meta: Option<Meta>,
}

struct Segment {
    number: u64,
    /// The last of those that it stands for.
    covers: u64,
    file: Arc<dyn DiskFile>,
    bytes: u64,
    table: Table,
    /// No record in it or before it is later.
    upto: Rev,
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> EngineError {
    move |error| match is_no_space(&error) {
        true => EngineError::NoSpace { operation },
        false => EngineError::Failed { operation, fault: error.to_string() },
    }
}

fn closed(operation: &'static str) -> EngineError {
    EngineError::Failed { operation, fault: "the engine is closed".to_owned() }
}

/// The first revision behind another.
fn behind(rev: Rev) -> Rev {
    match rev.sub.checked_add(1) {
        Some(sub) => Rev::new(rev.main, sub),
        None => Rev::first_of(rev.main.saturating_add(1)),
    }
}

impl SegmentEngine {
    /// Writes nothing, but for what a crash has left to be cleared away.
    pub fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
        segment_bytes: u64,
    ) -> Result<Self, EngineError> {
        if !disk.exists(folder) {
            disk.create_folder(folder).map_err(failed("create its folder"))?;
        }
        let mut engine = Self {
            disk,
            folder: folder.to_owned(),
            segment_bytes,
            writer: Mutex::new(Writer { active: None, next_number: 1 }),
            content: RwLock::new(None),
        };
        let (content, writer) = load::load(&engine)?;
        engine.content = RwLock::new(Some(content));
        engine.writer = Mutex::new(writer);
        Ok(engine)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn content(&self) -> RwLockReadGuard<'_, Option<Content>> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn content_mut(&self) -> RwLockWriteGuard<'_, Option<Content>> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn upto(&self) -> Result<Rev, EngineError> {
        let content = self.content();
        let content = content.as_ref().ok_or_else(|| closed("write"))?;
        Ok(content.segments.last().map_or(Rev::default(), |last| last.upto))
    }

    /// How large a segment may get, of a store of this size.
    fn limit(&self, content: &Content) -> u64 {
        let bytes: u64 = content.segments.iter().map(|segment| segment.table.live_bytes()).sum();
        (bytes / SEGMENTS).clamp(self.segment_bytes, MAX_SEGMENT_BYTES.max(self.segment_bytes))
    }

    /// Begins a segment, with what has to be known if all before it only tell of records. On the
    /// disk before anything is written behind it.
    fn begin_segment(&self, writer: &mut Writer) -> Result<(), EngineError> {
        writer.sync()?;
        let number = writer.next_number;
        let state = {
            let content = self.content();
            let content = content.as_ref().ok_or_else(|| closed("write"))?;
            let leases = content.leases.iter().map(|(id, ttl)| (*id, Some(*ttl))).collect();
            State { meta: content.meta.clone(), leases, whole: true }
        };
        let (header, crc) = frame::header(number, number);
        let first = FrameWriter::default().finish(Some(&state), &[], crc);
        let path = self.path(number);
        let file = create_anew(&*self.disk, &path).map_err(failed("create a segment"))?;
        let bytes = [&header[..], &first.bytes].concat();
        let written = file.write_at(&bytes, 0).and_then(|()| file.sync());
        written.map_err(failed("begin a segment"))?;
        self.disk.sync_folder(&self.folder).map_err(failed("sync its folder"))?;
        let end = bytes.len() as u64;
        let mut content = self.content_mut();
        let content = content.as_mut().ok_or_else(|| closed("write"))?;
        let upto = content.segments.last().map_or(Rev::default(), |before| before.upto);
        content.segments.push(Segment {
            number,
            covers: number,
            file: file.clone(),
            bytes: end,
            table: Table::default(),
            upto,
        });
        writer.active = Some(Active { file, end, crc: first.crc, synced: true, full: false });
        writer.next_number = number + 1;
        Ok(())
    }

    /// The wanted records of the first segment that has some of a range, and where to go on.
    fn part(&self, from: Rev, to: Rev) -> Result<Option<Part>, EngineError> {
        let content = self.content();
        let content = content.as_ref().ok_or_else(|| closed("scan"))?;
        let first = content.segments.partition_point(|segment| segment.upto < from);
        let found = content.segments[first..].iter().find_map(|segment| {
            let slots = segment.table.within(from, to);
            let next = behind(segment.upto);
            (!slots.is_empty()).then(|| Part {
                file: segment.file.clone(),
                slots: slots.to_vec(),
                next,
            })
        });
        Ok(found)
    }
}

struct Part {
    file: Arc<dyn DiskFile>,
    slots: Vec<Slot>,
    next: Rev,
}

impl Writer {
    fn sync(&mut self) -> Result<(), EngineError> {
        if let Some(active) = self.active.as_mut().filter(|active| !active.synced) {
            active.file.sync().map_err(failed("sync a segment"))?;
            active.synced = true;
        }
        Ok(())
    }
}

impl Content {
    fn take_state(&mut self, state: State) {
        if state.whole {
            self.leases.clear();
        }
        for (id, ttl_seconds) in state.leases {
            match ttl_seconds {
                Some(ttl_seconds) => self.leases.insert(id, ttl_seconds),
                None => self.leases.remove(&id),
            };
        }
        self.meta = state.meta;
    }

    fn remove(&mut self, revs: &mut [Rev]) {
        revs.sort_unstable();
        for segment in &mut self.segments {
            segment.table.remove(revs);
        }
    }
}

impl Segment {
    fn push(&mut self, rev: Rev, at: usize, len: usize) -> Result<(), EngineError> {
        let small = |number: usize| u32::try_from(number).map_err(|_| EngineError::Inconsistent);
        self.table.push(Slot { rev, at: small(at)?, len: small(len)? });
        self.upto = rev;
        Ok(())
    }
}

impl Records for SegmentEngine {
    fn record(&self, rev: Rev) -> Result<Option<Record>, ReadFault> {
        let fault = |fault: String| ReadFault { rev, fault };
        let found = {
            let content = self.content();
            let content = content.as_ref().ok_or_else(|| fault(closed("get").to_string()))?;
            let at = content.segments.partition_point(|segment| segment.upto < rev);
            let segment = content.segments.get(at);
            segment.and_then(|segment| Some((segment.file.clone(), segment.table.get(rev)?)))
        };
        let Some((file, slot)) = found else { return Ok(None) };
        let mut bytes = vec![0; slot.len as usize];
        match file.read_at(&mut bytes, u64::from(slot.at)) {
            Ok(read) if read == bytes.len() => {}
            Ok(_) => return Err(fault("its segment was cut short".to_owned())),
            Err(error) => return Err(fault(error.to_string())),
        }
        Record::decode(bytes.into()).map(Some).map_err(|error| fault(error.to_string()))
    }
}

impl Engine for SegmentEngine {
    fn apply(&self, batch: &WriteBatch, meta: Option<&Meta>) -> Result<(), EngineError> {
        let mut writer = self.writer();
        let limit = self.content().as_ref().map_or(0, |content| self.limit(content));
        if writer.active.as_ref().is_none_or(|active| active.full || active.end >= limit) {
            self.begin_segment(&mut writer)?;
        }
        let mut upto = self.upto()?;
        let active = writer.active.as_mut().ok_or_else(|| closed("write"))?;
        let mut frame = FrameWriter::default();
        for (rev, record) in &batch.puts {
            if *rev <= upto {
                return Err(EngineError::Inconsistent);
            }
            upto = *rev;
            frame.record(*rev, &record.encode());
        }
        let mut removes = batch.removes.clone();
        removes.sort_unstable();
        let state = State { meta: meta.cloned(), leases: batch.leases.clone(), whole: false };
        let written = frame.finish(Some(&state), &removes, active.crc);
        active.synced = false;
        // If this fails, the next one is written to the same place.
        active.file.write_at(&written.bytes, active.end).map_err(failed("write"))?;
        let begin = active.end as usize;
        active.end += written.bytes.len() as u64;
        active.crc = written.crc;
        let mut content = self.content_mut();
        let content = content.as_mut().ok_or_else(|| closed("write"))?;
        if let Some(segment) = content.segments.last_mut() {
            for (rev, place) in written.places {
                segment.push(rev, begin + place.start, place.len())?;
            }
            segment.table.removals += removes.len();
            segment.bytes = active.end;
        }
        if !removes.is_empty() {
            content.remove(&mut removes);
        }
        content.take_state(state);
        Ok(())
    }

    fn meta(&self) -> Result<Option<Meta>, EngineError> {
        let content = self.content();
        let content = content.as_ref().ok_or_else(|| closed("read meta"))?;
        let blank = content.segments.iter().all(|segment| segment.table.slots().is_empty());
        match &content.meta {
            None if !blank => Err(EngineError::Inconsistent),
            meta => Ok(meta.clone()),
        }
    }

    fn leases(&self) -> Result<Vec<(LeaseId, i64)>, EngineError> {
        let content = self.content();
        let content = content.as_ref().ok_or_else(|| closed("read leases"))?;
        Ok(content.leases.iter().map(|(id, ttl_seconds)| (*id, *ttl_seconds)).collect())
    }

    fn scan(&self, mut from: Rev, to: Rev, visit: Visit) -> Result<(), EngineError> {
        // Segment by segment: what is cleaned meanwhile keeps its order.
        while let Some(part) = self.part(from, to)? {
            for (range, slots) in reads(&part.slots, READ_BYTES) {
                let mut bytes = vec![0; range.len()];
                let read = part.file.read_at(&mut bytes, u64::from(range.start));
                if read.map_err(failed("scan"))? < bytes.len() {
                    return Err(EngineError::Inconsistent);
                }
                let bytes = Bytes::from(bytes);
                for slot in slots {
                    let at = (slot.at - range.start) as usize;
                    let record = Record::decode(bytes.slice(at..at + slot.len as usize))?;
                    if !visit(slot.rev, record) {
                        return Ok(());
                    }
                }
            }
            from = part.next;
        }
        Ok(())
    }

    fn clear(&self) -> Result<(), EngineError> {
        let mut writer = self.writer();
        writer.active = None;
        // The newest first: what a crash leaves is an earlier state, or known as none.
        let mut numbers = self.numbers()?;
        numbers.reverse();
        self.remove(&numbers)?;
        *self.content_mut() = Some(Content::default());
        Ok(())
    }

    fn tidy(&self, what: Tidy) -> Result<bool, EngineError> {
        clean::step(self, what)
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.writer().sync()
    }

    fn close(&self) -> Result<(), EngineError> {
        let mut writer = self.writer();
        let synced = writer.sync();
        writer.active = None;
        *self.content_mut() = None;
        synced
    }

    fn disk_bytes(&self) -> u64 {
        let content = self.content();
        content.iter().flat_map(|content| &content.segments).map(|segment| segment.bytes).sum()
    }
}

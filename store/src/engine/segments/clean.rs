//! Cleaning: some neighbouring segments become one, with what is still wanted of them.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::folder::whole;
use super::frame::{self, FrameWriter, Frames};
use super::table::{REMOVAL_BYTES, Table};
use super::{Content, Segment, SegmentEngine, Writer, closed, failed, plan};
use crate::engine::{EngineError, Tidy};
use crate::mvcc::revision::Rev;
use crate::wal::disk::{DiskFile, create_anew};

/// A frame of a cleaned segment.
const FRAME_BYTES: usize = 256 << 10;

/// Cleans once, if that is worth it; tells whether it was.
pub fn step(engine: &SegmentEngine, what: Tidy) -> Result<bool, EngineError> {
    let mut writer = engine.writer();
    let Some(work) = choose(engine, &mut writer, what)? else { return Ok(false) };
    // What says that records are not wanted has to last before they go.
    writer.sync()?;
    let cleaned = match work.write(engine) {
        Ok(cleaned) => cleaned,
        Err(error) => {
            // It would be removed at the next start; nothing depends on it.
            let _ = engine.disk.remove(&engine.path(work.number).with_extension("tmp"));
            return Err(error);
        }
    };
    replace(engine, work, cleaned)?;
    Ok(true)
}

/// Some segments, and what is needed of them.
struct Work {
    run: Range<usize>,
    number: u64,
    covers: u64,
    sources: Vec<Source>,
    /// Not wanted any more, and still in the files of earlier segments: that must stay known.
    dead: HashSet<Rev>,
}

struct Source {
    number: u64,
    file: Arc<dyn DiskFile>,
    wanted: Vec<Rev>,
}

fn choose(
    engine: &SegmentEngine,
    writer: &mut Writer,
    what: Tidy,
) -> Result<Option<Work>, EngineError> {
    if what == Tidy::Everything && last_has_garbage(engine)? {
        engine.begin_segment(writer)?;
    }
    let content = engine.content();
    let content = content.as_ref().ok_or_else(|| closed("tidy"))?;
    let usages = usages(content);
    let run = match what {
        Tidy::Needed => plan::next(&usages, engine.limit(content)),
        Tidy::Everything => plan::all(&usages, engine.limit(content)),
    };
    let Some(run) = run else { return Ok(None) };
    let segments = &content.segments[run.clone()];
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return Ok(None) };
    let tells_of_others = segments.iter().any(|segment| segment.table.removals > 0);
    let before = content.segments[..run.start].iter().filter(|_| tells_of_others);
    Ok(Some(Work {
        number: first.number,
        covers: last.covers,
        sources: segments.iter().map(Source::of).collect(),
        dead: before.flat_map(|segment| segment.table.dead()).copied().collect(),
        run,
    }))
}

fn last_has_garbage(engine: &SegmentEngine) -> Result<bool, EngineError> {
    let content = engine.content();
    let content = content.as_ref().ok_or_else(|| closed("tidy"))?;
    let last = content.segments.last();
    Ok(last.is_some_and(|last| last.table.dead_bytes() * 16 > last.bytes))
}

/// Of all segments but the last, which grows.
fn usages(content: &Content) -> Vec<plan::Usage> {
    let mut dead = 0;
    let sealed = content.segments.split_last().map_or(&[][..], |(_, sealed)| sealed);
    let usage = |segment: &Segment| {
        let table = &segment.table;
        // More removals than there are records for, here and before, are of no use for sure.
        dead += table.dead().len();
        let stale = table.removals.saturating_sub(dead) as u64;
        plan::Usage {
            live_bytes: table.live_bytes(),
            dead_bytes: table.dead_bytes() + stale * REMOVAL_BYTES,
        }
    };
    sealed.iter().map(usage).collect()
}

impl Source {
    fn of(segment: &Segment) -> Self {
        Self {
            number: segment.number,
            file: segment.file.clone(),
            wanted: segment.table.slots().iter().map(|slot| slot.rev).collect(),
        }
    }
}

/// Writes frames to a new segment.
struct Output {
    file: Arc<dyn DiskFile>,
    end: u64,
    crc: u32,
    frame: FrameWriter,
    removes: Vec<Rev>,
    places: Vec<(Rev, Range<usize>)>,
    removals: usize,
}

impl Output {
    fn flush(&mut self) -> Result<(), EngineError> {
        let frame = std::mem::take(&mut self.frame);
        let written = frame.finish(None, &self.removes, self.crc);
        self.file.write_at(&written.bytes, self.end).map_err(failed("clean"))?;
        let begin = self.end as usize;
        let moved = |place: Range<usize>| begin + place.start..begin + place.end;
        self.places.extend(written.places.into_iter().map(|(rev, place)| (rev, moved(place))));
        self.removals += self.removes.len();
        self.removes.clear();
        self.end += written.bytes.len() as u64;
        self.crc = written.crc;
        Ok(())
    }
}

impl Work {
    /// Even if nothing is left of them: of many files a crash may leave any, and only the one that
    /// stands for them all says that none of them counts.
    fn write(&self, engine: &SegmentEngine) -> Result<Segment, EngineError> {
        let path = engine.path(self.number);
        let aside = path.with_extension("tmp");
        let file = create_anew(&*engine.disk, &aside).map_err(failed("clean"))?;
        let (header, crc) = frame::header(self.number, self.covers);
        file.write_at(&header, 0).map_err(failed("clean"))?;
        let mut output = Output {
            file,
            end: header.len() as u64,
            crc,
            frame: FrameWriter::default(),
            removes: Vec::new(),
            places: Vec::new(),
            removals: 0,
        };
        for source in &self.sources {
            self.copy(source, &mut output)?;
        }
        output.flush()?;
        output.file.sync().map_err(failed("clean"))?;
        engine.disk.rename(&aside, &path).map_err(failed("clean"))?;
        engine.disk.sync_folder(&engine.folder).map_err(failed("sync its folder"))?;
        let mut segment = Segment {
            number: self.number,
            covers: self.covers,
            file: output.file,
            bytes: output.end,
            table: Table::default(),
            upto: Rev::default(),
        };
        segment.table.removals = output.removals;
        for (rev, place) in output.places {
            segment.push(rev, place.start, place.len())?;
        }
        Ok(segment)
    }

    fn copy(&self, source: &Source, output: &mut Output) -> Result<(), EngineError> {
        let bytes = whole(&*source.file).map_err(failed("read a segment"))?;
        let frames = Frames::start(source.number, bytes.clone());
        let mut frames = frames.ok_or(EngineError::Inconsistent)?;
        let mut wanted = source.wanted.iter().peekable();
        while let Some(frame) = frames.read()? {
            for (rev, place) in frame.records {
                if wanted.next_if(|next| **next == rev).is_some() {
                    output.frame.record(rev, &bytes[place]);
                }
            }
            output.removes.extend(frame.removes.iter().filter(|rev| self.dead.contains(rev)));
            if output.frame.bytes() >= FRAME_BYTES {
                output.flush()?;
            }
        }
        // A frame has gone bad since it was written.
        if wanted.next().is_some() { Err(EngineError::Inconsistent) } else { Ok(()) }
    }
}

/// Readers find the new one from here on; who still reads an old one has its file.
fn replace(engine: &SegmentEngine, work: Work, mut cleaned: Segment) -> Result<(), EngineError> {
    {
        let mut content = engine.content_mut();
        let content = content.as_mut().ok_or_else(|| closed("tidy"))?;
        // Even if the last record is not wanted: none before is later, and none behind earlier.
        cleaned.upto = content.segments[work.run.end - 1].upto;
        content.segments.splice(work.run, [cleaned]);
    }
    let numbers = work.sources.iter().map(|source| source.number);
    engine.remove(&numbers.filter(|number| *number != work.number).collect::<Vec<_>>())
}

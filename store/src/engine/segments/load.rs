//! What the segments hold, when the engine is opened.

use super::folder::whole;
use super::frame::{self, Frames};
use super::table::Table;
use super::{Active, Content, Segment, SegmentEngine, Writer, failed};
use crate::engine::EngineError;
use crate::mvcc::revision::Rev;

/// Reads every segment. Writes nothing, but for what a crash has left to be cleared away.
pub fn load(engine: &SegmentEngine) -> Result<(Content, Writer), EngineError> {
    let numbers = engine.numbers()?;
    let mut content = Content::default();
    let mut writer = Writer { active: None, next_number: 1 };
    let (mut removes, mut covered, mut gone) = (Vec::new(), 0, Vec::new());
    for number in &numbers {
        let path = engine.path(*number);
        writer.next_number = number + 1;
        if *number <= covered {
            // The one that stands for it is in its place already.
            gone.push(*number);
            continue;
        }
        let file = engine.disk.open(&path).map_err(failed("open a segment"))?;
        let bytes = whole(&*file).map_err(failed("read a segment"))?;
        let len = bytes.len();
        let begun = frame::covers(*number, &bytes).zip(Frames::start(*number, bytes));
        let Some((covers, frames)) = begun.filter(|(_, frames)| frames.has_more()) else {
            if Some(number) == numbers.last() {
                // Its beginning is synced before anything else is written to it.
                gone.push(*number);
                break;
            }
            return Err(EngineError::Inconsistent);
        };
        covered = covers;
        let upto = content.segments.last().map_or(Rev::default(), |before| before.upto);
        let table = Table::default();
        let mut segment = Segment { number: *number, covers, file, bytes: 0, table, upto };
        let (end, crc) = content.take_frames(&mut segment, frames, &mut removes)?;
        let (file, full) = (segment.file.clone(), end < len);
        segment.bytes = end as u64;
        writer.active = Some(Active { file, end: end as u64, crc, synced: false, full });
        content.segments.push(segment);
        writer.next_number = covers + 1;
    }
    content.remove(&mut removes);
    engine.remove(&gone)?;
    if writer.active.is_some() {
        // Killed between making a segment and this, the process before has not done it.
        engine.disk.sync_folder(&engine.folder).map_err(failed("sync its folder"))?;
    }
    Ok((content, writer))
}

impl Content {
    /// What a segment's frames say. Returns where the last one ends, and its CRC.
    fn take_frames(
        &mut self,
        segment: &mut Segment,
        mut frames: Frames,
        removes: &mut Vec<Rev>,
    ) -> Result<(usize, u32), EngineError> {
        while let Some(frame) = frames.read()? {
            if let Some(state) = frame.state {
                self.take_state(state);
            }
            for (rev, place) in frame.records {
                if rev <= segment.upto {
                    return Err(EngineError::Inconsistent);
                }
                segment.push(rev, place.start, place.len())?;
            }
            segment.table.removals += frame.removes.len();
            removes.extend(frame.removes);
        }
        Ok(frames.end())
    }
}

//! The bytes of a segment.
//!
//! ```text
//! header   "SKIFFSG1" | covers u64 LE | CRC of number and these u32 LE
//! frame    length u32 LE | CRC u32 LE | body
//! frame    ...
//!
//! body     state | removes: count, revisions | records: count, (revision, length, record)
//! state    0: not in this frame                    what follows is as it was before
//!          1: meta or none, leases that changed     a batch
//!          2: meta or none, all leases              the first frame of a new segment
//! ```
//!
//! `covers` is the number of the last segment that this one replaces, its own if none. Each CRC
//! begins with the one before it, the first with the header's. So a frame that a crash has left
//! behind the place where the next one was written is never taken for its successor.

use std::ops::Range;

use bytes::Bytes;

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::engine::Meta;
use crate::kv::LeaseId;
use crate::mvcc::revision::Rev;

const MAGIC: &[u8; 8] = b"SKIFFSG1";
pub const HEADER_BYTES: usize = 20;
const PREFIX_BYTES: usize = 8;

const NO_STATE: u8 = 0;
const CHANGED: u8 = 1;
const WHOLE: u8 = 2;

/// A segment's first bytes, and what its first frame's CRC begins with.
pub fn header(number: u64, covers: u64) -> ([u8; HEADER_BYTES], u32) {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&covers.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&number.to_le_bytes());
    crc.update(&bytes[..16]);
    let crc = crc.finalize();
    bytes[16..].copy_from_slice(&crc.to_le_bytes());
    (bytes, crc)
}

/// Which segments this one stands for.
pub fn covers(number: u64, bytes: &[u8]) -> Option<u64> {
    let covers = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    (bytes.get(..HEADER_BYTES)? == header(number, covers).0).then_some(covers)
}

/// Meta and leases, as one frame tells of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub meta: Option<Meta>,
    /// `None`: the lease is gone.
    pub leases: Vec<(LeaseId, Option<i64>)>,
    /// The leases are all there are.
    pub whole: bool,
}

/// Collects what a frame is made of.
#[derive(Default)]
pub struct FrameWriter {
    records: Encoder,
    count: u64,
    last: i64,
    /// Where each record lies in `records`.
    places: Vec<(Rev, Range<usize>)>,
}

/// A frame as it is written, and where its records are in it.
pub struct Written {
    pub bytes: Vec<u8>,
    pub crc: u32,
    pub places: Vec<(Rev, Range<usize>)>,
}

impl FrameWriter {
    pub fn record(&mut self, rev: Rev, record: &[u8]) {
        put_rev(&mut self.records, &mut self.last, rev);
        self.records.bytes(record);
        self.count += 1;
        let end = self.records.len();
        self.places.push((rev, end - record.len()..end));
    }

    /// Of its records so far.
    pub fn bytes(&self) -> usize {
        self.records.len()
    }

    /// `before`: the CRC of the frame before.
    pub fn finish(self, state: Option<&State>, removes: &[Rev], before: u32) -> Written {
        let mut e = Encoder::with_capacity(self.records.len() + 6 * removes.len() + 256);
        e.raw(&[0; PREFIX_BYTES]);
        put_state(&mut e, state);
        e.u64(removes.len() as u64);
        let mut last = 0;
        for rev in removes {
            put_rev(&mut e, &mut last, *rev);
        }
        e.u64(self.count);
        let shift = e.len();
        e.raw(&self.records.finish());
        let mut bytes = e.finish();
        let length = ((bytes.len() - PREFIX_BYTES) as u32).to_le_bytes();
        let crc = chained(before, &length, &bytes[PREFIX_BYTES..]);
        bytes[..4].copy_from_slice(&length);
        bytes[4..PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
        let moved = |range: Range<usize>| range.start + shift..range.end + shift;
        let places = self.places.into_iter().map(|(rev, range)| (rev, moved(range))).collect();
        Written { bytes, crc, places }
    }
}

fn chained(before: u32, length: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&before.to_le_bytes());
    crc.update(length);
    crc.update(body);
    crc.finalize()
}

fn put_rev(e: &mut Encoder, last: &mut i64, rev: Rev) {
    e.i64(rev.main.wrapping_sub(*last));
    e.u64(u64::from(rev.sub));
    *last = rev.main;
}

fn take_rev(d: &mut Decoder, last: &mut i64) -> Result<Rev, DecodeError> {
    *last = last.wrapping_add(d.i64()?);
    let sub = u32::try_from(d.u64()?).map_err(|_| d.fault("a place is too large"))?;
    Ok(Rev::new(*last, sub))
}

fn put_state(e: &mut Encoder, state: Option<&State>) {
    let Some(state) = state else { return e.u8(NO_STATE) };
    e.u8(if state.whole { WHOLE } else { CHANGED });
    e.bool(state.meta.is_some());
    if let Some(meta) = &state.meta {
        e.bytes(&meta.encode());
    }
    e.u64(state.leases.len() as u64);
    for (id, ttl_seconds) in &state.leases {
        e.i64(*id);
        e.bool(ttl_seconds.is_some());
        e.i64(ttl_seconds.unwrap_or_default());
    }
}

fn take_state(d: &mut Decoder) -> Result<Option<State>, DecodeError> {
    let whole = match d.u8()? {
        NO_STATE => return Ok(None),
        CHANGED => false,
        WHOLE => true,
        _ => return Err(d.fault("unknown state")),
    };
    let meta = if d.bool()? { Some(Meta::decode(d.bytes()?)?) } else { None };
    let mut leases = Vec::new();
    for _ in 0..d.count()? {
        let (id, granted, ttl_seconds) = (d.i64()?, d.bool()?, d.i64()?);
        leases.push((id, granted.then_some(ttl_seconds)));
    }
    Ok(Some(State { meta, leases, whole }))
}

/// A frame that was read back.
pub struct Frame {
    pub state: Option<State>,
    pub removes: Vec<Rev>,
    /// Each with its place in the segment.
    pub records: Vec<(Rev, Range<usize>)>,
}

/// Reads a segment's frames up to the first that is not whole.
pub struct Frames {
    segment: Bytes,
    crc: u32,
    end: usize,
}

impl Frames {
    /// `None`: this is not that segment.
    pub fn start(number: u64, segment: Bytes) -> Option<Self> {
        let covers = covers(number, &segment)?;
        Some(Self { segment, crc: header(number, covers).1, end: HEADER_BYTES })
    }

    /// Behind the last frame that was read, and its CRC.
    pub fn end(&self) -> (usize, u32) {
        (self.end, self.crc)
    }

    /// Whether the next frame is whole.
    pub fn has_more(&self) -> bool {
        self.body().is_some()
    }

    fn body(&self) -> Option<(Bytes, u32)> {
        let prefix = self.segment.get(self.end..self.end + PREFIX_BYTES)?;
        let length = u32::from_le_bytes(prefix[..4].try_into().ok()?);
        let from = self.end + PREFIX_BYTES;
        let to = from.checked_add(length as usize)?;
        if length == 0 || to > self.segment.len() {
            return None;
        }
        let crc = chained(self.crc, &prefix[..4], &self.segment[from..to]);
        (crc.to_le_bytes() == prefix[4..]).then(|| (self.segment.slice(from..to), crc))
    }

    /// The next one; an error is a frame that is whole and makes no sense.
    pub fn read(&mut self) -> Result<Option<Frame>, DecodeError> {
        let Some((body, crc)) = self.body() else { return Ok(None) };
        let to = self.end + PREFIX_BYTES + body.len();
        let mut d = Decoder::new("frame", body);
        let state = take_state(&mut d)?;
        let mut last = 0;
        let count = d.count()?;
        let removes = (0..count).map(|_| take_rev(&mut d, &mut last)).collect::<Result<_, _>>()?;
        last = 0;
        let count = d.count()?;
        let mut records = Vec::with_capacity(count);
        for _ in 0..count {
            let rev = take_rev(&mut d, &mut last)?;
            let length = d.bytes()?.len();
            let end = to - d.left();
            records.push((rev, end - length..end));
        }
        d.end()?;
        (self.end, self.crc) = (to, crc);
        Ok(Some(Frame { state, removes, records }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Records<'a> = &'a [(i64, &'a [u8])];

    fn segment(frames: &[(Records, &[i64])]) -> (Vec<u8>, Vec<usize>) {
        let (header, mut crc) = header(7, 7);
        let (mut bytes, mut starts) = (header.to_vec(), Vec::new());
        for (records, removes) in frames {
            let mut writer = FrameWriter::default();
            for (main, record) in *records {
                writer.record(Rev::first_of(*main), record);
            }
            let removes: Vec<_> = removes.iter().map(|main| Rev::new(*main, 3)).collect();
            let written = writer.finish(None, &removes, crc);
            starts.push(bytes.len());
            bytes.extend(written.bytes);
            crc = written.crc;
        }
        (bytes, starts)
    }

    struct Read {
        records: Vec<(i64, Vec<u8>)>,
        removes: Vec<Rev>,
        end: usize,
    }

    fn read(bytes: Vec<u8>) -> Read {
        let mut frames = Frames::start(7, bytes.clone().into()).unwrap();
        let (mut records, mut removes) = (Vec::new(), Vec::new());
        while let Some(frame) = frames.read().unwrap() {
            let found = frame.records.into_iter();
            records.extend(found.map(|(rev, at)| (rev.main, bytes[at].to_vec())));
            removes.extend(frame.removes);
        }
        Read { records, removes, end: frames.end().0 }
    }

    #[test]
    fn records_and_removals_come_back() {
        let (bytes, _) = segment(&[(&[(2, b"one"), (900, b"")], &[]), (&[(901, b"three")], &[2])]);
        let end = bytes.len();
        let read = read(bytes);
        let wanted = [(2, b"one".to_vec()), (900, vec![]), (901, b"three".to_vec())];
        assert_eq!(read.records, wanted);
        assert_eq!((read.removes, read.end), (vec![Rev::new(2, 3)], end));
    }

    #[test]
    fn state_comes_back() {
        let state = |meta, whole| State { meta, leases: vec![(5, Some(60)), (-6, None)], whole };
        for state in
            [state(None, true), state(Some(Meta { revision: 9, ..Meta::default() }), false)]
        {
            let (header, crc) = header(1, 3);
            let mut bytes = header.to_vec();
            bytes.extend(FrameWriter::default().finish(Some(&state), &[], crc).bytes);
            assert_eq!(covers(1, &bytes), Some(3));
            let frame = Frames::start(1, bytes.into()).unwrap().read().unwrap().unwrap();
            assert_eq!(frame.state, Some(state));
        }
    }

    #[test]
    fn reading_stops_at_any_bit_that_is_wrong() {
        let (bytes, starts) = segment(&[(&[(2, b"one")], &[]), (&[(3, b"two")], &[])]);
        for at in starts[1]..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            assert_eq!(read(bytes).records, [(2, b"one".to_vec())], "byte {at}");
        }
        for len in starts[1]..bytes.len() {
            assert_eq!(read(bytes[..len].to_vec()).end, starts[1]);
        }
        for at in 0..HEADER_BYTES {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            assert!(Frames::start(7, bytes.into()).is_none(), "byte {at}");
        }
        assert!(Frames::start(8, bytes.into()).is_none(), "it has another's name");
    }

    /// A crash lost the second frame and kept the third; the place is written again.
    #[test]
    fn what_a_crash_left_behind_a_new_frame_is_not_its_successor() {
        let (old, starts) =
            segment(&[(&[(2, b"one")], &[]), (&[(3, b"two")], &[]), (&[(4, b"lost")], &[])]);
        let (new, _) = segment(&[(&[(2, b"one")], &[]), (&[(3, b"TWO")], &[])]);
        let mut bytes = old;
        bytes[starts[1]..starts[2]].copy_from_slice(&new[starts[1]..]);
        let read = read(bytes);
        assert_eq!(read.records, [(2, b"one".to_vec()), (3, b"TWO".to_vec())]);
        assert_eq!(read.end, starts[2]);
    }
}

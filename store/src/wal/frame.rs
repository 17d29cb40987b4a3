//! The bytes of the log. Pure.
//!
//! Everything that is synced together is one frame, and the next frame is written only
//! after that sync. So a crash can tear at most the last frame, and a broken frame with a
//! whole one after it is damage, not a crash.
//!
//! ```text
//! frame  magic u32 | crc u32 | length u32 | 0 u32 | sequence u64 | items, padded to 8
//! item   tag u8 | ..            crc covers length, sequence and items
//! entry  1 | index u64 | term u64 | kind u8 | length u32 | crc u32 of the body | body
//! state  2 | length u32 | bytes                 the vote; the last one counts
//! cut    3 | index u64                          entries after it do not exist any more
//! purge  4 | index u64 | term u64               entries up to it do not exist any more
//! ```
//!
//! All numbers are little-endian. Sequences count frames over all segments, so what is left
//! in a reused segment is told from what was written last.

use bytes::Bytes;

pub const MAGIC: u32 = 0x3157_4b53; // "SKW1"
pub const HEADER_BYTES: usize = 24;
pub const ALIGN: usize = 8;
const ENTRY_HEADER_BYTES: usize = 26;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Entry(Entry),
    State(Bytes),
    /// Entries after `index` are dropped; `None`: all.
    Cut {
        after: Option<u64>,
    },
    Purge {
        index: u64,
        term: u64,
    },
}

/// A log entry. What kinds there are, and what the body says, is the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub index: u64,
    pub term: u64,
    pub kind: u8,
    pub body: Bytes,
}

/// Where an entry's body is within its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyAt {
    pub offset: usize,
    pub len: u32,
    pub crc: u32,
}

/// Appends a frame; returns where the bodies of its entries are, in order.
pub fn encode(sequence: u64, items: &[Item], buffer: &mut Vec<u8>) -> Vec<BodyAt> {
    let start = buffer.len();
    let mut bodies = Vec::new();
    buffer.resize(start + HEADER_BYTES, 0);
    for item in items {
        match item {
            Item::Entry(entry) => {
                let crc = crc32fast::hash(&entry.body);
                buffer.push(1);
                buffer.extend_from_slice(&entry.index.to_le_bytes());
                buffer.extend_from_slice(&entry.term.to_le_bytes());
                buffer.push(entry.kind);
                buffer.extend_from_slice(&(entry.body.len() as u32).to_le_bytes());
                buffer.extend_from_slice(&crc.to_le_bytes());
                bodies.push(BodyAt {
                    offset: buffer.len() - start,
                    len: entry.body.len() as u32,
                    crc,
                });
                buffer.extend_from_slice(&entry.body);
            }
            Item::State(state) => {
                buffer.push(2);
                buffer.extend_from_slice(&(state.len() as u32).to_le_bytes());
                buffer.extend_from_slice(state);
            }
            Item::Cut { after } => {
                buffer.push(3);
                // Shifted by one, so that "all" has a number too.
                buffer.extend_from_slice(&after.map_or(0, |index| index + 1).to_le_bytes());
            }
            Item::Purge { index, term } => {
                buffer.push(4);
                buffer.extend_from_slice(&index.to_le_bytes());
                buffer.extend_from_slice(&term.to_le_bytes());
            }
        }
    }
    let length = (buffer.len() - start - HEADER_BYTES) as u32;
    let padded = (buffer.len() - start).next_multiple_of(ALIGN);
    buffer.resize(start + padded, 0);
    let frame = &mut buffer[start..];
    frame[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    frame[8..12].copy_from_slice(&length.to_le_bytes());
    frame[16..24].copy_from_slice(&sequence.to_le_bytes());
    let crc = checksum(frame, length as usize);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    bodies
}

fn checksum(frame: &[u8], length: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[8..HEADER_BYTES + length]);
    hasher.finalize()
}

/// A whole frame at the start of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub sequence: u64,
    pub items: Vec<(Item, Option<BodyAt>)>,
    /// Padding included.
    pub len: usize,
}

/// What stands at the start of some bytes of a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    Frame(Frame),
    /// No header of a frame: never written.
    Nothing,
    /// A header, but what follows is not what was written.
    Broken,
}

/// Entry bodies are slices of `bytes`.
pub fn parse(bytes: &Bytes) -> Parsed {
    if bytes.len() < HEADER_BYTES || read_u32(bytes, 0) != MAGIC {
        let blank = bytes.iter().take(HEADER_BYTES).all(|byte| *byte == 0);
        return if blank { Parsed::Nothing } else { Parsed::Broken };
    }
    let length = read_u32(bytes, 8) as usize;
    if bytes.len() - HEADER_BYTES < length || checksum(bytes, length) != read_u32(bytes, 4) {
        return Parsed::Broken;
    }
    match parse_items(bytes, HEADER_BYTES, HEADER_BYTES + length) {
        Some(items) => Parsed::Frame(Frame {
            sequence: read_u64(bytes, 16),
            items,
            len: (HEADER_BYTES + length).next_multiple_of(ALIGN).min(bytes.len()),
        }),
        None => Parsed::Broken,
    }
}

fn parse_items(bytes: &Bytes, mut at: usize, end: usize) -> Option<Vec<(Item, Option<BodyAt>)>> {
    let mut items = Vec::new();
    while at < end {
        let left = end - at;
        match bytes[at] {
            1 if left >= ENTRY_HEADER_BYTES => {
                let len = read_u32(bytes, at + 18);
                let body = at + ENTRY_HEADER_BYTES;
                if (end - body) < len as usize {
                    return None;
                }
                let entry = Entry {
                    index: read_u64(bytes, at + 1),
                    term: read_u64(bytes, at + 9),
                    kind: bytes[at + 17],
                    body: bytes.slice(body..body + len as usize),
                };
                let crc = read_u32(bytes, at + 22);
                items.push((Item::Entry(entry), Some(BodyAt { offset: body, len, crc })));
                at = body + len as usize;
            }
            2 if left >= 5 => {
                let len = read_u32(bytes, at + 1) as usize;
                if left - 5 < len {
                    return None;
                }
                items.push((Item::State(bytes.slice(at + 5..at + 5 + len)), None));
                at += 5 + len;
            }
            3 if left >= 9 => {
                let after = read_u64(bytes, at + 1).checked_sub(1);
                items.push((Item::Cut { after }, None));
                at += 9;
            }
            4 if left >= 17 => {
                let (index, term) = (read_u64(bytes, at + 1), read_u64(bytes, at + 9));
                items.push((Item::Purge { index, term }, None));
                at += 17;
            }
            _ => return None,
        }
    }
    Some(items)
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |n, byte| n << 8 | u32::from(*byte))
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

/// Why the frames of a segment end where they do.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing of this log follows.
    Clean,
    /// The last frame was not written whole.
    Torn,
    /// The frame is broken, yet a later one is there.
    Damaged { next_sequence: u64 },
}

/// Judges what follows the last whole frame; `expected` is the sequence that is missing.
pub fn judge_end(bytes: &Bytes, at: usize, expected: u64) -> End {
    let torn = match parse(&bytes.slice(at..)) {
        Parsed::Nothing => false,
        // Left over from the segment's earlier use.
        Parsed::Frame(frame) if frame.sequence < expected => false,
        Parsed::Frame(frame) => return End::Damaged { next_sequence: frame.sequence },
        // Without this frame's own header it is the middle of something older.
        Parsed::Broken => {
            let header = bytes.len() >= at + HEADER_BYTES && read_u32(bytes, at) == MAGIC;
            header && read_u64(bytes, at + 16) == expected
        }
    };
    let mut search = at + ALIGN;
    while search + HEADER_BYTES <= bytes.len() {
        if read_u32(bytes, search) == MAGIC && read_u64(bytes, search + 16) > expected {
            // Only a whole frame counts; torn ones have no right to be believed.
            if let Parsed::Frame(frame) = parse(&bytes.slice(search..)) {
                return End::Damaged { next_sequence: frame.sequence };
            }
        }
        search += ALIGN;
    }
    if torn { End::Torn } else { End::Clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(n: u64) -> Vec<Item> {
        vec![
            Item::Entry(Entry {
                index: n,
                term: 3,
                kind: 1,
                body: Bytes::from(format!("body {n}")),
            }),
            Item::State(Bytes::from_static(b"vote")),
            Item::Cut { after: Some(0) },
            Item::Cut { after: None },
            Item::Purge { index: 2, term: 1 },
        ]
    }

    fn log(frames: u64) -> (Vec<u8>, Vec<usize>) {
        let mut buffer = Vec::new();
        let mut starts = Vec::new();
        for n in 0..frames {
            starts.push(buffer.len());
            encode(10 + n, &items(n), &mut buffer);
        }
        (buffer, starts)
    }

    #[test]
    fn a_frame_comes_back() {
        let (buffer, _) = log(1);
        let bytes = Bytes::from(buffer);
        let Parsed::Frame(frame) = parse(&bytes) else { panic!() };
        assert_eq!(frame.sequence, 10);
        assert_eq!(frame.len, bytes.len());
        let got: Vec<_> = frame.items.iter().map(|(item, _)| item.clone()).collect();
        assert_eq!(got, items(0));
        let body = frame.items[0].1.unwrap();
        assert_eq!(&bytes[body.offset..body.offset + body.len as usize], b"body 0");
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let (buffer, _) = log(1);
        let unpadded = HEADER_BYTES + read_u32(&buffer, 8) as usize;
        // The four reserved bytes are covered as well.
        for at in 0..unpadded {
            let mut flipped = buffer.clone();
            flipped[at] ^= 1;
            assert_eq!(parse(&flipped.into()), Parsed::Broken, "byte {at}");
        }
    }

    #[test]
    fn a_torn_tail_is_told_from_damage() {
        let (buffer, starts) = log(3);
        let end = buffer.len();
        let judge = |change: &dyn Fn(&mut Vec<u8>), at: usize, expected: u64| {
            let mut bytes = buffer.clone();
            bytes.resize(end + 64, 0);
            change(&mut bytes);
            judge_end(&bytes.into(), at, expected)
        };
        assert_eq!(judge(&|_| {}, end, 13), End::Clean);
        assert_eq!(judge(&|b| b[starts[2] + 30] ^= 1, starts[2], 12), End::Torn);
        assert_eq!(judge(&|b| b[starts[2] + 40..].fill(0), starts[2], 12), End::Torn);
        assert_eq!(
            judge(&|b| b[starts[1] + 30] ^= 1, starts[1], 11),
            End::Damaged { next_sequence: 12 }
        );
        assert_eq!(
            judge(&|b| b[starts[1]] ^= 1, starts[1], 11),
            End::Damaged { next_sequence: 12 }
        );
        assert_eq!(
            judge(&|b| b[starts[1]..starts[2]].fill(0), starts[1], 11),
            End::Damaged { next_sequence: 12 }
        );
    }

    #[test]
    fn what_a_reused_segment_held_before_is_ignored() {
        let (mut buffer, _) = log(3);
        let mut new = Vec::new();
        encode(20, &items(9), &mut new);
        buffer[..new.len()].copy_from_slice(&new);
        assert_eq!(judge_end(&buffer.into(), new.len(), 21), End::Clean);
    }
}

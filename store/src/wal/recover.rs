//! Opening the log: reads every segment, in order, up to the last whole frame.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::disk::Disk;
use super::frame::{self, End, Item, Parsed};
use super::slots::{Location, Slots};
use super::{WalError, WalOptions};

/// Where writing goes on.
pub(super) struct Tail {
    /// Number, offset and size of the last segment, if there is one.
    pub segment: Option<(u64, u64, u64)>,
    pub sequence: u64,
}

pub(super) struct Recovered {
    pub slots: Slots,
    pub tail: Tail,
}

pub(super) fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016x}.log"))
}

pub(super) fn spare_path(folder: &Path) -> PathBuf {
    folder.join("spare")
}

fn segment_number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
    u64::from_str_radix(name, 16).ok()
}

pub(super) fn recover(
    folder: &Path,
    disk: &dyn Disk,
    _options: &WalOptions,
) -> Result<Recovered, WalError> {
    let io = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| WalError::Io { operation, path, source }
    };
    let paths = disk.list(folder).map_err(io("list", folder))?;
    let mut segments: Vec<_> =
        paths.iter().filter_map(|p| Some((segment_number(p)?, p.clone()))).collect();
    segments.sort();
    let mut recovery = Recovery { slots: Slots::default(), sequence: None };
    let mut tail = None;
    let last = segments.len().saturating_sub(1);
    for (at, (number, path)) in segments.iter().enumerate() {
        let file = disk.open(path).map_err(io("open", path))?;
        let bytes = read_all(&*file).map_err(io("read", path))?;
        let end = recovery.segment(*number, path, &bytes, at == last)?;
        recovery.slots.files.insert(*number, file);
        tail = Some((*number, end, bytes.len() as u64));
    }
    recovery.check_start(folder)?;
    Ok(Recovered {
        slots: recovery.slots,
        tail: Tail { segment: tail, sequence: recovery.sequence.unwrap_or(1) },
    })
}

fn read_all(file: &dyn super::DiskFile) -> io::Result<Bytes> {
    let mut bytes = vec![0; file.len()? as usize];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes.into())
}

struct Recovery {
    slots: Slots,
    /// Of the next frame; unknown before the first one.
    sequence: Option<u64>,
}

impl Recovery {
    /// Returns where the frames end.
    fn segment(
        &mut self,
        number: u64,
        path: &Path,
        bytes: &Bytes,
        last: bool,
    ) -> Result<u64, WalError> {
        let mut at = 0;
        while at < bytes.len() {
            let Parsed::Frame(frame) = frame::parse(&bytes.slice(at..)) else { break };
            let expected = self.sequence.unwrap_or(frame.sequence);
            if frame.sequence != expected {
                break;
            }
            self.sequence = Some(expected + 1);
            for (item, body) in frame.items {
                let location = body.map(|body| Location {
                    segment: number,
                    offset: (at + body.offset) as u64,
                    len: body.len,
                    crc: body.crc,
                });
                self.item(path, item, location)?;
            }
            at += frame.len;
        }
        self.check_end(path, bytes, at, last)?;
        Ok(at as u64)
    }

    fn check_end(&self, path: &Path, bytes: &Bytes, at: usize, last: bool) -> Result<(), WalError> {
        let expected = self.sequence.unwrap_or(1);
        match frame::judge_end(bytes, at, expected) {
            End::Clean => Ok(()),
            // The next segment has to begin with this very frame; that is checked there.
            End::Torn if !last => Ok(()),
            End::Torn => {
                tracing::warn!(
                    segment = %path.display(), offset = at, frame = expected,
                    "the last write to the log was torn by a crash; it was never acknowledged and is dropped"
                );
                Ok(())
            }
            End::Damaged { next_sequence } => Err(WalError::Damaged {
                path: path.to_owned(),
                offset: at as u64,
                expected,
                found: next_sequence,
            }),
        }
    }

    fn check_start(&self, folder: &Path) -> Result<(), WalError> {
        let (Some(found), Some((purged, _))) = (self.slots.first(), self.slots.purged) else {
            return Ok(());
        };
        if found > purged + 1 {
            return Err(WalError::Order { path: folder.to_owned(), expected: purged + 1, found });
        }
        Ok(())
    }

    fn item(
        &mut self,
        path: &Path,
        item: Item,
        location: Option<Location>,
    ) -> Result<(), WalError> {
        match item {
            Item::Entry(entry) => {
                let expected = self.slots.next_index().unwrap_or(entry.index);
                // Segments before the first one that is left were purged; a later item says so.
                let first = self.slots.first().is_none() && entry.index > expected;
                if entry.index != expected && !first {
                    return Err(WalError::Order {
                        path: path.to_owned(),
                        expected,
                        found: entry.index,
                    });
                }
                if let Some(location) = location {
                    self.slots.push_recovered(&entry, location);
                }
            }
            Item::State(state) => self.slots.state = Some(Bytes::copy_from_slice(&state)),
            Item::Cut { after } => self.slots.cut(after),
            Item::Purge { index, term } => self.slots.purge(index, term),
        }
        Ok(())
    }
}

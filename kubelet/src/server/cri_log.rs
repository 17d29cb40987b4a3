//! Reads a container's log in the CRI format, through its rotations, from any place in it.
//!
//! ```text
//! 2024-05-01T10:00:00.000000000Z stdout F the rest of the line
//! 2024-05-01T10:00:00.000000000Z stdout P the beginning of a long one
//! ```
//!
//! `0.log` is written; `0.log.1` is what it was before, and so on. Blocking.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use skiff_proto::Timestamp;

const CHUNK_BYTES: usize = 64 * 1024;
const MAX_ROTATIONS: usize = 10;

#[derive(Debug, Clone, Default)]
pub struct Selection {
    pub tail_lines: Option<u64>,
    pub since: Option<Timestamp>,
    pub timestamps: bool,
    pub limit_bytes: Option<u64>,
}

pub struct Reader {
    path: PathBuf,
    file: Option<File>,
    /// Bytes after the last complete line.
    rest: Vec<u8>,
    /// The last line shown was a partial one: its continuation gets no second time stamp.
    within_line: bool,
    since: Option<Timestamp>,
    timestamps: bool,
    left_bytes: Option<u64>,
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    if number == 0 {
        return path.to_path_buf();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The rotations that exist, the newest first.
fn files(path: &Path) -> Vec<PathBuf> {
    let all = (0..MAX_ROTATIONS).map(|n| numbered(path, n));
    all.filter(|p| p.exists()).collect()
}

impl Reader {
    /// A log that does not exist yet is an empty one.
    pub fn open(path: &Path, selection: &Selection) -> io::Result<Self> {
        let mut reader = Self {
            path: path.to_path_buf(),
            file: None,
            rest: Vec::new(),
            within_line: false,
            since: selection.since,
            timestamps: selection.timestamps,
            left_bytes: selection.limit_bytes,
        };
        let files = files(path);
        match selection.tail_lines {
            None => reader.file = files.last().map(File::open).transpose()?,
            Some(lines) => reader.file = tail(&files, lines)?,
        }
        Ok(reader)
    }

    /// Nothing more is wanted.
    pub fn is_done(&self) -> bool {
        self.left_bytes == Some(0)
    }

    /// The next lines, rendered; nothing at the present end of the log.
    pub fn read_lines(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if self.is_done() {
                return Ok(None);
            }
            if self.file.is_none() {
                self.file = match File::open(&self.path) {
                    Ok(file) => Some(file),
                    Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(why) => return Err(why),
                };
            }
            let Some(file) = &mut self.file else { return Ok(None) };
            let mut buffer = vec![0; CHUNK_BYTES];
            let count = file.read(&mut buffer)?;
            if count == 0 {
                if !self.switch()? {
                    return Ok(None);
                }
                continue;
            }
            self.rest.extend_from_slice(&buffer[..count]);
            let shown = self.render();
            if !shown.is_empty() {
                return Ok(Some(shown));
            }
        }
    }

    /// At the end of a file that was rotated away goes on with the one after it.
    fn switch(&mut self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let own = file.metadata()?.ino();
        let place = (0..MAX_ROTATIONS)
            .find(|n| std::fs::metadata(numbered(&self.path, *n)).is_ok_and(|m| m.ino() == own));
        let next = match place {
            Some(0) => return Ok(false),
            Some(number) => numbered(&self.path, number - 1),
            None => self.path.clone(),
        };
        match File::open(&next) {
            Ok(file) => {
                self.file = Some(file);
                Ok(true)
            }
            // Between the rename and the new file.
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(why) => Err(why),
        }
    }

    fn render(&mut self) -> Vec<u8> {
        let end = self.rest.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.rest.drain(..end).collect();
        let mut shown = Vec::with_capacity(lines.len());
        for line in lines.split_inclusive(|b| *b == b'\n') {
            self.line(&line[..line.len() - 1], &mut shown);
        }
        if let Some(left) = &mut self.left_bytes {
            shown.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= shown.len() as u64;
        }
        shown
    }

    fn line(&mut self, line: &[u8], shown: &mut Vec<u8>) {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let (Some(time), Some(_), Some(tag)) = (parts.next(), parts.next(), parts.next()) else {
            // Torn by a crash in the middle of a write.
            return;
        };
        let content = parts.next().unwrap_or_default();
        if let Some(since) = self.since {
            let at = std::str::from_utf8(time).ok().and_then(Timestamp::parse);
            if at.is_some_and(|at| at < since) {
                return;
            }
        }
        if self.timestamps && !self.within_line {
            shown.extend_from_slice(time);
            shown.push(b' ');
        }
        shown.extend_from_slice(content);
        self.within_line = tag == b"P";
        if !self.within_line {
            shown.push(b'\n');
        }
    }
}

/// Opens the file in which the last `lines` lines begin, at their beginning. `files`: newest first.
fn tail(files: &[PathBuf], lines: u64) -> io::Result<Option<File>> {
    let mut wanted = lines;
    for (place, path) in files.iter().enumerate() {
        let mut file = File::open(path)?;
        let (found, offset) = last_lines(&mut file, wanted)?;
        if found >= wanted || place + 1 == files.len() {
            file.seek(SeekFrom::Start(offset))?;
            return Ok(Some(file));
        }
        wanted -= found;
    }
    Ok(None)
}

/// How many of the wanted lines this file has, and where the first of them begins.
fn last_lines(file: &mut File, wanted: u64) -> io::Result<(u64, u64)> {
    let size = file.metadata()?.len();
    if wanted == 0 {
        return Ok((0, size));
    }
    let (mut position, mut ends) = (size, 0);
    let mut buffer = vec![0; CHUNK_BYTES];
    while position > 0 {
        let count = position.min(CHUNK_BYTES as u64);
        position -= count;
        file.seek(SeekFrom::Start(position))?;
        let chunk = &mut buffer[..count as usize];
        file.read_exact(chunk)?;
        for at in (0..chunk.len()).rev().filter(|at| chunk[*at] == b'\n') {
            // The end of the line before the wanted ones.
            if ends == wanted {
                return Ok((wanted, position + at as u64 + 1));
            }
            ends += 1;
        }
    }
    Ok((ends, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    fn lines(from: u32, to: u32) -> String {
        (from..to)
            .map(|n| format!("2024-05-01T10:00:{n:02}.000000000Z stdout F line {n}\n"))
            .collect()
    }

    fn all(reader: &mut Reader) -> String {
        let mut text = Vec::new();
        while let Some(chunk) = reader.read_lines().expect("reads") {
            text.extend(chunk);
        }
        String::from_utf8(text).expect("text")
    }

    fn read(path: &Path, selection: Selection) -> String {
        all(&mut Reader::open(path, &selection).expect("opens"))
    }

    #[test]
    fn reads_through_rotations_and_from_the_tail() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("0.log");
        assert_eq!(read(&path, Selection::default()), "");
        fs::write(numbered(&path, 2), lines(0, 2)).expect("writes");
        fs::write(numbered(&path, 1), lines(2, 4)).expect("writes");
        fs::write(&path, lines(4, 6)).expect("writes");
        assert_eq!(
            read(&path, Selection::default()),
            "line 0\nline 1\nline 2\nline 3\nline 4\nline 5\n"
        );
        let tail = |n| read(&path, Selection { tail_lines: Some(n), ..Default::default() });
        assert_eq!(tail(1), "line 5\n");
        assert_eq!(tail(2), "line 4\nline 5\n");
        assert_eq!(tail(3), "line 3\nline 4\nline 5\n");
        assert_eq!(tail(0), "");
        assert_eq!(tail(99).lines().count(), 6);
    }

    #[test]
    fn partial_lines_since_stamps_and_limits() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("0.log");
        let text = "2024-05-01T10:00:00Z stdout P long \n2024-05-01T10:00:00Z stdout F one\n\
            2024-05-01T10:00:05Z stderr F \n2024-05-01T10:00:06Z stdout F two\ntorn";
        fs::write(&path, text).expect("writes");
        assert_eq!(read(&path, Selection::default()), "long one\n\ntwo\n");
        let since = Timestamp::parse("2024-05-01T10:00:06Z");
        assert_eq!(
            read(&path, Selection { since, timestamps: true, ..Default::default() }),
            "2024-05-01T10:00:06Z two\n"
        );
        assert_eq!(read(&path, Selection { limit_bytes: Some(6), ..Default::default() }), "long o");
        assert_eq!(
            read(
                &path,
                Selection { timestamps: true, limit_bytes: Some(30), ..Default::default() }
            ),
            "2024-05-01T10:00:00Z long one\n"
        );
    }

    #[test]
    fn goes_on_after_a_rotation() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("0.log");
        fs::write(&path, lines(0, 1)).expect("writes");
        let mut reader = Reader::open(&path, &Selection::default()).expect("opens");
        assert_eq!(all(&mut reader), "line 0\n");
        let mut old = fs::OpenOptions::new().append(true).open(&path).expect("opens");
        old.write_all(lines(1, 2).as_bytes()).expect("writes");
        fs::rename(&path, numbered(&path, 1)).expect("renames");
        assert_eq!(all(&mut reader), "line 1\n");
        fs::write(&path, lines(2, 3)).expect("writes");
        assert_eq!(all(&mut reader), "line 2\n");
    }
}

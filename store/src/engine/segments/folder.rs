//! The engine's files: their names, and how they go for good.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{SegmentEngine, failed};
use crate::engine::EngineError;
use crate::wal::disk::DiskFile;

fn extended<'a>(path: &'a Path, extension: &str) -> Option<&'a str> {
    let found = path.extension().is_some_and(|found| found == extension);
    found.then(|| path.file_stem()?.to_str()).flatten()
}

pub fn whole(file: &dyn DiskFile) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes.into())
}

impl SegmentEngine {
    pub fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:016x}.seg"))
    }

    /// The numbers of the segments, in order; removes what was not finished.
    pub fn numbers(&self) -> Result<Vec<u64>, EngineError> {
        let mut numbers = Vec::new();
        for path in self.disk.list(&self.folder).map_err(failed("list its folder"))? {
            let number = extended(&path, "seg").map(|name| u64::from_str_radix(name, 16));
            if let Some(Ok(number)) = number {
                numbers.push(number);
            } else if extended(&path, "tmp").is_some() {
                self.disk.remove(&path).map_err(failed("remove an unfinished segment"))?;
            } else {
                let fault = format!("{} is not a segment of it", path.display());
                return Err(EngineError::Failed { operation: "look into its folder", fault });
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// For good: what is known of removed records is forgotten once their segment is gone, and it
    /// must not come back.
    pub fn remove(&self, numbers: &[u64]) -> Result<(), EngineError> {
        for number in numbers {
            self.disk.remove(&self.path(*number)).map_err(failed("remove a segment"))?;
        }
        if numbers.is_empty() {
            return Ok(());
        }
        self.disk.sync_folder(&self.folder).map_err(failed("sync its folder"))
    }
}

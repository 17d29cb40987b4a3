//! Snapshots: the whole state in one file that proves itself.
//!
//! A snapshot that is on disk and complete is what allows the log before it to go. It is
//! also what a member that is far behind is sent, what a broken engine is rebuilt from, and
//! what a backup is.

pub mod backup;
pub mod files;
pub mod format;

pub use backup::{BackupReader, BackupWriter, Kept, Manifest};
pub use files::{SnapshotFile, SnapshotFolder};
pub use format::{Header, SnapshotError, SnapshotReader, SnapshotWriter};

//! Saves a snapshot of a running store: etcd's Snapshot call, into a backup file.
//!
//! ```text
//! FILE.part, mode 0600 --> written, synced, read through again --> renamed to FILE
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::BoxFuture;
use skiff_proto::grpc::etcdserverpb as pb;

use super::Options;
use super::endpoints::{ConnectError, Endpoints};
use crate::snapshot::backup::kind;
use crate::snapshot::{BackupWriter, Kept};
use crate::store::{OpenError, SnapshotStatus, Store};

/// Between two chunks; the first one is counted before it is sent.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("snapshot save: {operation} {path}: {source}")]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("snapshot save: {url} stopped sending: {why}")]
    Stream { url: String, why: String },
    /// Nothing was kept.
    #[error("snapshot save: what {url} sent cannot be restored: {source}")]
    Useless { url: String, source: OpenError },
}

/// Writes a snapshot of the store at `options`, with `files` beside it, and verifies it.
/// Boxed: see "Build time" in ARCHITECTURE.md.
pub fn save<'a>(
    options: &'a Options,
    path: &'a Path,
    created: String,
    files: &'a [Kept],
) -> BoxFuture<'a, Result<SnapshotStatus, SaveError>> {
    Box::pin(async move {
        let (channel, url) = Endpoints::new(options)?.connect_first().await?;
        let stream = |why: String| SaveError::Stream { url: url.to_string(), why };
        let mut client = pb::maintenance_client::MaintenanceClient::new(channel)
            .max_decoding_message_size(super::MAX_ANSWER_BYTES);
        let asked = client.snapshot(pb::SnapshotRequest {}).await;
        let mut chunks = asked.map_err(|status| stream(status.message().to_owned()))?.into_inner();

        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        let part = Part(PathBuf::from(name));
        let fault = |operation| {
            let path = part.0.clone();
            move |source| SaveError::Io { operation, path, source }
        };
        let _ = std::fs::remove_file(&part.0);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part.0);
        let out = BufWriter::new(file.map_err(fault("create"))?);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let started = BackupWriter::start(out, created, version, files);
        let mut writer = started.map_err(io::Error::other).map_err(fault("write"))?;
        let mut remaining = None;
        let useless = |source| SaveError::Useless { url: url.to_string(), source };
        loop {
            let next = tokio::time::timeout(CHUNK_TIMEOUT, chunks.message()).await;
            let next = next.map_err(|_| stream("nothing came for two minutes".into()))?;
            match next.map_err(|status| stream(status.message().to_owned()))? {
                Some(chunk) => {
                    if remaining.is_none() {
                        let source = kind(&chunk.blob).err();
                        let refused = |source| OpenError::Backup { path: path.to_owned(), source };
                        source.map_or(Ok(()), |source| Err(useless(refused(source))))?;
                    }
                    writer.write_all(&chunk.blob).map_err(fault("write"))?;
                    remaining = Some(chunk.remaining_bytes);
                }
                None => break,
            }
        }
        if remaining != Some(0) {
            return Err(stream("it ended early".into()));
        }
        let out = writer.finish().map_err(fault("write"))?;
        let file = out.into_inner().map_err(|error| fault("write")(error.into_error()))?;
        file.sync_all().map_err(fault("sync"))?;
        let status = Store::snapshot_status(&part.0).map_err(useless)?;
        std::fs::rename(&part.0, path).map_err(fault("rename"))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))
            .and_then(|folder| folder.sync_all())
            .map_err(fault("sync the folder of"))?;
        Ok(status)
    })
}

/// A file half written is of no use to anybody.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

//! The snapshot stream: the state as it is now, as one file, while writes go on.
//!
//! ```text
//! the store's snapshot      proves itself by its own hash at its end
//! zeros                     up to a multiple of 512
//! SHA-256 of all before     as etcd's clients expect it behind a file of etcd's pages
//! ```
//!
//! The file is skiff's own, not a bbolt file of etcd's: `skiff snapshot restore` reads it,
//! ignoring what follows its end. `etcdctl snapshot save` can save it; `etcdctl snapshot
//! status` opens a bolt database, and says that this is none.
//!
//! It is written twice: once to count it, for clients are told how much is to come, and
//! once to send it. So a nearly full disk can be backed up too. Nothing that either pass
//! reads can change or be removed meanwhile.

use std::io::{self, Write};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use sha2::{Digest as _, Sha256};
use skiff_proto::grpc::etcdserverpb as pb;
use tokio::sync::mpsc;
use tonic::Status;

use super::{Face, error};
use crate::kv::KvError;
use crate::raft::machine::View;
use crate::snapshot::{SnapshotError, SnapshotWriter};

/// As large as etcd's.
const CHUNK_BYTES: usize = 32 << 10;
/// Chunks that wait for the client; the writer waits when they are full.
const QUEUE: usize = 16;
const PAGE_BYTES: u64 = 512;
const HASH_BYTES: u64 = 32;

fn internal(error: impl std::fmt::Display) -> Status {
    error::kv(KvError::Internal(format!("snapshot: {error}")))
}

pub async fn stream(
    face: &Face,
) -> Result<impl Stream<Item = Result<pb::SnapshotResponse, Status>> + Send + use<>, Status> {
    let view = View::new(face.store.inner.core.clone());
    view.settle().await.map_err(|_| error::stopped())?;
    let counted = tokio::task::spawn_blocking(move || {
        let bytes = write(&view, Counter::default())?.0;
        Ok::<_, SnapshotError>((view, bytes))
    });
    let (view, bytes) = counted.await.map_err(internal)?.map_err(internal)?;
    let header = face.header(view.meta.revision);
    let (queue, chunks) = mpsc::channel(QUEUE);
    let total = bytes.next_multiple_of(PAGE_BYTES) + HASH_BYTES;
    // Ends with the stream: a queue that nobody takes from fails the writer.
    tokio::task::spawn_blocking(move || {
        let sender = Sender::new(header, total, queue.clone());
        if let Err(failure) = write(&view, sender).map_err(internal).and_then(|sender| {
            drop(view);
            sender.finish().map_err(internal)
        }) {
            let _ = queue.blocking_send(Err(failure));
        }
    });
    let open = Some((chunks, face.shutdown.clone()));
    Ok(futures_util::stream::unfold(open, |open| async move {
        let (mut chunks, shutdown) = open?;
        let chunk: Chunk = tokio::select! {
            () = shutdown.cancelled() => Err(error::stopped()),
            chunk = chunks.recv() => chunk?,
        };
        let next = chunk.is_ok().then_some((chunks, shutdown));
        Some((chunk, next))
    }))
}

fn write<W: Write>(view: &View, out: W) -> Result<W, SnapshotError> {
    let mut writer = SnapshotWriter::start(out, &view.header())?;
    view.fill(&mut writer)?;
    writer.finish()
}

/// Counts what is written to it.
#[derive(Default)]
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Chunk = Result<pb::SnapshotResponse, Status>;

/// Cuts what is written to it into chunks.
struct Sender {
    header: Option<pb::ResponseHeader>,
    remaining: u64,
    hash: Sha256,
    chunk: BytesMut,
    queue: mpsc::Sender<Chunk>,
}

impl Sender {
    fn new(header: Option<pb::ResponseHeader>, total: u64, queue: mpsc::Sender<Chunk>) -> Self {
        let chunk = BytesMut::with_capacity(CHUNK_BYTES);
        Self { header, remaining: total, hash: Sha256::new(), chunk, queue }
    }

    fn send(&mut self) -> io::Result<()> {
        let blob = self.chunk.split().freeze();
        self.hash.update(&blob);
        self.send_blob(blob)
    }

    fn send_blob(&mut self, blob: Bytes) -> io::Result<()> {
        let left = self.remaining.checked_sub(blob.len() as u64);
        self.remaining = left.ok_or_else(|| io::Error::other("it has grown since it began"))?;
        let (header, remaining_bytes) = (self.header, self.remaining);
        let response = pb::SnapshotResponse { header, remaining_bytes, blob };
        let sent = self.queue.blocking_send(Ok(response));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone away"))
    }

    /// Fills the last page up and adds the hash.
    fn finish(mut self) -> io::Result<()> {
        let padding = self.remaining.checked_sub(self.chunk.len() as u64 + HASH_BYTES);
        let padding = padding.filter(|padding| *padding < PAGE_BYTES);
        let padding = padding.ok_or_else(|| io::Error::other("it has changed since it began"))?;
        self.chunk.extend_from_slice(&[0; PAGE_BYTES as usize][..padding as usize]);
        self.send()?;
        let hash = self.hash.clone().finalize();
        self.send_blob(Bytes::copy_from_slice(&hash))
    }
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == CHUNK_BYTES {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_padded_hashed_and_counted_down() {
        let content: Vec<u8> = (0..CHUNK_BYTES + 100).map(|i| i as u8).collect();
        let total = (content.len() as u64).next_multiple_of(PAGE_BYTES) + HASH_BYTES;
        let (queue, mut chunks) = mpsc::channel(QUEUE);
        let mut sender = Sender::new(None, total, queue);
        sender.write_all(&content).unwrap();
        sender.finish().unwrap();
        let mut file = Vec::new();
        while let Some(chunk) = chunks.blocking_recv() {
            let chunk = chunk.unwrap();
            file.extend_from_slice(&chunk.blob);
            assert_eq!(chunk.remaining_bytes, total - file.len() as u64);
        }
        assert_eq!(file.len() as u64, total);
        assert_eq!(file.len() % 512, 32, "what etcdctl looks for");
        let (body, hash) = file.split_at(file.len() - 32);
        assert_eq!(Sha256::digest(body)[..], *hash);
        assert!(body.starts_with(&content));
        assert!(body[content.len()..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_snapshot_that_changes_between_the_passes_is_an_error() {
        let (queue, _chunks) = mpsc::channel(QUEUE);
        let mut sender = Sender::new(None, 512 + HASH_BYTES, queue);
        sender.write_all(&[0; 600]).unwrap();
        assert!(sender.finish().is_err());
    }
}

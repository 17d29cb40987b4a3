//! The content store: blobs named by their digest, written in pieces and verified by containerd.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use containerd_client::services::v1 as api;
use containerd_client::services::v1::WriteAction;
use futures_util::{Stream, StreamExt};
use prost_types::FieldMask;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::super::connection::{Connection, Lease, already_exists};
use super::super::record::{hex, nanos};
use super::manifest::sha256;

/// Below containerd's message limit of 16 MiB, and big enough that the calls do not count.
pub(super) const CHUNK_BYTES: usize = 1 << 20;
/// Documents are kilobytes; nobody needs one of this size.
const DOCUMENT_MAX_BYTES: i64 = 8 << 20;
/// A lease that a killed skiff leaves behind ends by itself.
const LEASE_LIFE: Duration = Duration::from_secs(3600);

/// Makes the names of ingests and leases unique in this process; the time does it between processes.
static NUMBER: AtomicU64 = AtomicU64::new(0);

pub(super) fn unique(prefix: &str) -> String {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("skiff-{prefix}-{}-{number}", nanos(SystemTime::now()))
}

pub(super) async fn create_lease(connection: &Connection) -> Result<Lease, Status> {
    let id = unique("lease");
    let lease = Lease::new(&id).ok_or_else(|| Status::internal("lease name"))?;
    let until = prost_types::Timestamp::from(SystemTime::now() + LEASE_LIFE).to_string();
    let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), until)]);
    connection.leases().create(connection.request(api::CreateRequest { id, labels })).await?;
    Ok(lease)
}

pub(super) async fn delete_lease(connection: &Connection, lease: &Lease) {
    let request = api::DeleteRequest { id: lease.id().to_owned(), sync: false };
    if let Err(status) = connection.leases().delete(connection.request(request)).await {
        tracing::debug!(
            lease = lease.id(),
            why = status.message(),
            "lease was not deleted; it ends in an hour"
        );
    }
}

/// A whole document.
pub(super) async fn read(connection: &Connection, digest: &str) -> Result<Vec<u8>, Status> {
    let request =
        api::ReadContentRequest { digest: digest.to_owned(), offset: 0, size: DOCUMENT_MAX_BYTES };
    let mut stream = connection.content().read(connection.request(request)).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.message().await? {
        bytes.extend_from_slice(&piece.data);
    }
    Ok(bytes)
}

/// Writes a document; one that is there already gets the labels.
pub(super) async fn write_document(
    connection: &Connection,
    lease: &Lease,
    bytes: Vec<u8>,
    labels: HashMap<String, String>,
) -> Result<String, Status> {
    let digest = sha256(&bytes);
    let length = bytes.len() as i64;
    let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(bytes))]);
    let mut writer = Writer::open(connection, lease, Some((&digest, length))).await?;
    writer.write_all(stream).await?;
    writer.commit(labels.clone()).await?;
    if writer.present && !labels.is_empty() {
        set_labels(connection, &digest, labels).await?;
    }
    Ok(digest)
}

/// Sets these labels and leaves the others.
pub(super) async fn set_labels(
    connection: &Connection,
    digest: &str,
    labels: HashMap<String, String>,
) -> Result<(), Status> {
    let paths = labels.keys().map(|name| format!("labels.{name}")).collect();
    let info = api::Info { digest: digest.to_owned(), labels, ..Default::default() };
    let request = api::UpdateRequest { info: Some(info), update_mask: Some(FieldMask { paths }) };
    connection.content().update(connection.request(request)).await.map(drop)
}

/// One blob on its way in. Every piece is answered before the next goes out.
pub(super) struct Writer {
    requests: mpsc::Sender<api::WriteContentRequest>,
    /// `None`: containerd had it before we began.
    answers: Option<Streaming<api::WriteContentResponse>>,
    name: String,
    /// Empty: not known before the end.
    expected: String,
    total: i64,
    offset: i64,
    digest: Option<Sha256>,
    /// Nothing needs to be written: it is there, or another namespace of this containerd has it.
    present: bool,
}

impl Writer {
    /// `expected`: digest and size, where they are known before. What is there already comes under the lease.
    pub async fn open(
        connection: &Connection,
        lease: &Lease,
        expected: Option<(&str, i64)>,
    ) -> Result<Writer, Status> {
        // Lockstep: one piece is under way at a time.
        let (requests, receiver) = mpsc::channel(1);
        let (digest, total) = expected.unwrap_or(("", 0));
        let mut writer = Writer {
            requests,
            answers: None,
            name: unique("ingest"),
            expected: digest.to_owned(),
            total,
            offset: 0,
            digest: expected.is_none().then(Sha256::new),
            present: false,
        };
        writer.send(writer.request(WriteAction::Stat)).await;
        let request = connection.leased(lease, ReceiverStream::new(receiver));
        match connection.content().write(request).await {
            Ok(answers) => writer.answers = Some(answers.into_inner()),
            Err(status) => return writer.present_or(status).map(|()| writer),
        }
        if let Some(answer) = writer.answer().await?
            && answer.offset > 0
        {
            (writer.offset, writer.present) = (answer.offset, answer.offset == total);
        }
        Ok(writer)
    }

    /// It was in the store already: nothing needs to be written.
    pub fn present(&self) -> bool {
        self.present
    }

    pub async fn write_all<S, E>(&mut self, mut pieces: S) -> Result<(), Status>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: std::fmt::Display,
    {
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|why| Status::aborted(why.to_string()))?;
            self.write(&piece).await?;
        }
        Ok(())
    }

    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Status> {
        for data in bytes.chunks(CHUNK_BYTES) {
            if self.present {
                return Ok(());
            }
            if let Some(digest) = &mut self.digest {
                digest.update(data);
            }
            let mut request = self.request(WriteAction::Write);
            request.data = data.to_vec();
            self.send(request).await;
            self.answer().await?;
            self.offset += data.len() as i64;
        }
        Ok(())
    }

    /// Returns the digest.
    pub async fn commit(&mut self, labels: HashMap<String, String>) -> Result<String, Status> {
        if let Some(digest) = self.digest.take() {
            self.expected = format!("sha256:{}", hex(&digest.finalize()));
            self.total = self.offset;
        }
        if self.answers.is_some() {
            let mut request = self.request(WriteAction::Commit);
            request.labels = labels;
            self.send(request).await;
            self.answer().await?;
        }
        Ok(self.expected.clone())
    }

    fn request(&self, action: WriteAction) -> api::WriteContentRequest {
        api::WriteContentRequest {
            action: action as i32,
            r#ref: self.name.clone(),
            total: self.total,
            expected: self.expected.clone(),
            offset: self.offset,
            ..Default::default()
        }
    }

    /// A closed stream has its reason in the answers.
    async fn send(&self, request: api::WriteContentRequest) {
        let _ = self.requests.send(request).await;
    }

    async fn answer(&mut self) -> Result<Option<api::WriteContentResponse>, Status> {
        let Some(answers) = &mut self.answers else { return Ok(None) };
        match answers.message().await {
            Ok(Some(answer)) => Ok(Some(answer)),
            Ok(None) => Err(Status::unavailable("containerd ended the write stream")),
            Err(status) => self.present_or(status).map(|()| None),
        }
    }

    /// There already, or another writer was faster: as good as written.
    fn present_or(&mut self, status: Status) -> Result<(), Status> {
        if !already_exists(&status) || self.expected.is_empty() {
            return Err(status);
        }
        (self.present, self.answers) = (true, None);
        Ok(())
    }
}

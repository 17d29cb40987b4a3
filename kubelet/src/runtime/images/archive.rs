//! Image archives: `docker save` and OCI layouts, plain or gzipped. Read once from front to end: blobs go
//! straight into the content store, small documents are kept, and the sense is made afterwards. What turns
//! out to be unneeded is collected when the lease ends.

mod layout;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use self::layout::{Blob, Found, Step};
use super::super::connection::{Connection, Lease};
use super::content::{self, CHUNK_BYTES, Writer};
use super::manifest::Descriptor;

/// Documents beside the blobs: `index.json`, `manifest.json`, a legacy configuration.
const DOCUMENT_MAX_BYTES: u64 = 4 << 20;
/// Between the thread that reads and the task that writes: a few megabytes.
const PIECES_UNDER_WAY: usize = 4;

enum Piece {
    Begin { path: String, size: u64 },
    Data(Vec<u8>),
    End,
    Document { path: String, bytes: Vec<u8> },
    Link { path: String, target: String },
}

/// Brings an archive's content in; returns names and what they stand for.
pub(super) async fn read(
    connection: &Connection,
    lease: &Lease,
    archive: &Path,
) -> Result<Vec<(String, Descriptor)>, String> {
    let (sender, mut pieces) = mpsc::channel(PIECES_UNDER_WAY);
    let path = archive.to_path_buf();
    let reader = tokio::task::spawn_blocking(move || send_pieces(&path, &sender));
    let found = store(connection, lease, &mut pieces).await;
    drop(pieces);
    // The reader's error goes first: it is why the pieces ended.
    reader.await.map_err(|e| e.to_string())??;
    let stem = stem(archive);
    let mut images = Vec::new();
    for step in layout::plan(&found?, &stem)? {
        match step {
            Step::Write { document, bytes } => {
                let written =
                    content::write_document(connection, lease, bytes, document.gc_labels()).await;
                written.map_err(|status| status.message().to_owned())?;
            }
            Step::Label { digest, labels } => {
                let labelled = content::set_labels(connection, &digest, labels).await;
                labelled.map_err(|status| format!("{digest}: {}", status.message()))?;
            }
            Step::Image { name, target } => images.push((name, target)),
        }
    }
    Ok(images)
}

/// `/tmp/web.tar.gz` may name an image that has no other name: `web`.
fn stem(archive: &Path) -> String {
    let name =
        archive.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.split('.').next().unwrap_or_default().to_ascii_lowercase()
}

fn send_pieces(path: &Path, sender: &mpsc::Sender<Piece>) -> Result<(), String> {
    let unreadable = |e: std::io::Error| format!("read: {e}");
    let mut file = File::open(path).map_err(|e| format!("open: {e}"))?;
    let mut magic = [0u8; 2];
    let gzipped = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
    let file = BufReader::with_capacity(CHUNK_BYTES, file);
    let input: Box<dyn Read> = match gzipped {
        true => Box::new(flate2::read::MultiGzDecoder::new(file)),
        false => Box::new(file),
    };
    let mut archive = tar::Archive::new(input);
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(|e| format!("not a tar archive, or cut off: {e}"))?;
        if !send_entry(&mut entry, sender).map_err(unreadable)? {
            // Nobody listens any more; they know why.
            return Ok(());
        }
    }
    Ok(())
}

fn send_entry(
    entry: &mut tar::Entry<'_, Box<dyn Read>>,
    sender: &mpsc::Sender<Piece>,
) -> std::io::Result<bool> {
    let path = clean(&entry.path()?);
    let kind = entry.header().entry_type();
    if kind.is_symlink() || kind.is_hard_link() {
        let target = entry.link_name()?.map(|name| name.into_owned()).unwrap_or_default();
        let target = match kind.is_symlink() {
            true => clean(&Path::new(&path).parent().unwrap_or(Path::new("")).join(target)),
            false => clean(&target),
        };
        return Ok(sender.blocking_send(Piece::Link { path, target }).is_ok());
    }
    if !kind.is_file() {
        return Ok(true);
    }
    let size = entry.size();
    if layout::is_document(&path) && size <= DOCUMENT_MAX_BYTES {
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        return Ok(sender.blocking_send(Piece::Document { path, bytes }).is_ok());
    }
    if sender.blocking_send(Piece::Begin { path, size }).is_err() {
        return Ok(false);
    }
    loop {
        let mut data = Vec::new();
        entry.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut data)?;
        let piece = if data.is_empty() { Piece::End } else { Piece::Data(data) };
        let last = matches!(piece, Piece::End);
        if sender.blocking_send(piece).is_err() {
            return Ok(false);
        }
        if last {
            return Ok(true);
        }
    }
}

/// `./a/../b` is `b`: links of archives are only ever looked up among its own names.
fn clean(path: &Path) -> String {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(part) => clean.push(part),
            std::path::Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean.to_string_lossy().into_owned()
}

/// Writes blobs as they come.
async fn store(
    connection: &Connection,
    lease: &Lease,
    pieces: &mut mpsc::Receiver<Piece>,
) -> Result<Found, String> {
    let mut found = Found::default();
    while let Some(piece) = pieces.recv().await {
        match piece {
            Piece::Document { path, bytes } => drop(found.documents.insert(path, bytes)),
            Piece::Link { path, target } => drop(found.links.insert(path, target)),
            Piece::Begin { path, size } => {
                let blob = store_blob(connection, lease, pieces, &path, size).await;
                found.blobs.insert(path.clone(), blob.map_err(|why| format!("{path}: {why}"))?);
            }
            Piece::Data(_) | Piece::End => {}
        }
    }
    load_documents(connection, &mut found).await?;
    Ok(found)
}

async fn store_blob(
    connection: &Connection,
    lease: &Lease,
    pieces: &mut mpsc::Receiver<Piece>,
    path: &str,
    size: u64,
) -> Result<Blob, String> {
    let words = |status: tonic::Status| status.message().to_owned();
    let size = i64::try_from(size).map_err(|e| e.to_string())?;
    let named = layout::digest_of_path(path);
    let expected = named.as_deref().map(|digest| (digest, size));
    let mut writer = Writer::open(connection, lease, expected).await.map_err(words)?;
    let mut head = Vec::new();
    loop {
        match pieces.recv().await {
            Some(Piece::Data(data)) => {
                if head.is_empty() {
                    head.extend_from_slice(&data[..data.len().min(4)]);
                }
                writer.write(&data).await.map_err(words)?;
            }
            Some(Piece::End) => break,
            _ => return Err("the archive is cut off".to_owned()),
        }
    }
    let digest = writer.commit(HashMap::new()).await.map_err(words)?;
    Ok(Blob { digest, size, gzipped: head.starts_with(&[0x1f, 0x8b]) })
}

/// Manifests and indexes of a layout lie among the blobs: read back those that are named.
async fn load_documents(connection: &Connection, found: &mut Found) -> Result<(), String> {
    while let Some(digest) = found.wanted_document() {
        let bytes = content::read(connection, &digest).await;
        let bytes = bytes.map_err(|status| format!("{digest}: {}", status.message()))?;
        found.by_digest.insert(digest, bytes);
    }
    Ok(())
}

//! Pulls: the documents of an image from its registry into the content store, then its blobs, several at once.

mod challenge;
mod dial;
mod http;

use futures_util::{StreamExt, TryStreamExt, stream};
use tonic::Status;

use self::http::{Client, HttpError};
use super::super::connection::{Connection, Lease};
use super::super::keyed::Keyed;
use super::super::reference::Reference;
use super::content::{self, Writer};
use super::manifest::{self, Descriptor, Document};
use crate::ports::RegistryAuth;

/// As containerd's own default.
const BLOBS_AT_ONCE: usize = 3;
/// Names the document that was sent, by the digest of its bytes.
const DIGEST_HEADER: &str = "docker-content-digest";
const ACCEPTED: [&str; 4] =
    [manifest::OCI_INDEX, manifest::DOCKER_LIST, manifest::OCI_MANIFEST, manifest::DOCKER_MANIFEST];

pub(super) struct Registry<'a> {
    connection: &'a Connection,
    lease: &'a Lease,
    /// Two images with a blob in common fetch it once.
    blobs: &'a Keyed,
    client: Client,
    reference: &'a Reference,
}

impl<'a> Registry<'a> {
    pub fn new(
        connection: &'a Connection,
        lease: &'a Lease,
        blobs: &'a Keyed,
        reference: &'a Reference,
        auth: Option<RegistryAuth>,
    ) -> Result<Registry<'a>, String> {
        let tls = if reference.is_loopback() { None } else { Some(http::host_tls()) };
        let tls = tls.transpose().map_err(|error| error.to_string())?;
        let client = Client::new(reference.registry_host(), &reference.path, tls, auth);
        Ok(Registry { connection, lease, blobs, client, reference })
    }

    /// Brings everything that this machine needs of the image, and returns what the name stands for.
    pub async fn fetch(&self) -> Result<Descriptor, String> {
        let tag = self.reference.tag.as_deref().unwrap_or("latest");
        let (target, document) = self
            .fetch_document(self.reference.digest.as_deref().unwrap_or(tag))
            .await
            .map_err(|why| format!("failed to resolve reference \"{}\": {why}", self.reference))?;
        let manifest = match &document.manifests {
            None => document,
            Some(manifests) => {
                let chosen =
                    manifest::choose(manifests, manifest::architecture()).ok_or_else(|| {
                        format!(
                            "no match for platform in manifest: linux/{}: not found",
                            manifest::architecture()
                        )
                    })?;
                self.fetch_document(&chosen.digest).await?.1
            }
        };
        let blobs: Vec<Descriptor> =
            manifest.config.into_iter().chain(manifest.layers.unwrap_or_default()).collect();
        stream::iter(blobs)
            .map(Ok::<_, String>)
            .try_for_each_concurrent(
                BLOBS_AT_ONCE,
                |blob| async move { self.fetch_blob(&blob).await },
            )
            .await?;
        Ok(target)
    }

    /// A manifest or an index, by its tag or digest.
    async fn fetch_document(&self, name: &str) -> Result<(Descriptor, Document), String> {
        let answer = self.client.document(&format!("manifests/{name}"), &ACCEPTED).await;
        let (headers, bytes) = answer.map_err(|error| self.words(&error))?;
        let told = headers.get(DIGEST_HEADER).and_then(|value| value.to_str().ok());
        let digest = match name.contains(':') {
            true => name.to_owned(),
            false => told.map_or_else(|| manifest::sha256(&bytes), str::to_owned),
        };
        let document = Document::parse(&bytes)?;
        let target = Descriptor {
            media_type: document.kind().to_owned(),
            digest: digest.clone(),
            size: bytes.len() as i64,
            ..Descriptor::default()
        };
        let written = content::write_document(
            self.connection,
            self.lease,
            bytes.to_vec(),
            document.gc_labels(),
        )
        .await;
        let written = written.map_err(|status| format!("write {digest}: {}", status.message()))?;
        if written != digest {
            return Err(format!("the registry names the manifest {digest}, but it is {written}"));
        }
        Ok((target, document))
    }

    async fn fetch_blob(&self, blob: &Descriptor) -> Result<(), String> {
        let failed =
            |status: Status| format!("failed to copy {}: {}", blob.digest, status.message());
        let _only = self.blobs.lock(&blob.digest).await;
        // Opening a writer also puts a blob that is there under our lease.
        let mut writer = Writer::open(self.connection, self.lease, Some((&blob.digest, blob.size)))
            .await
            .map_err(failed)?;
        if writer.present() {
            return Ok(());
        }
        let pieces = self.client.blob(&blob.digest).await.map_err(|error| self.words(&error))?;
        writer.write_all(pieces).await.map_err(failed)?;
        writer.commit(Default::default()).await.map(drop).map_err(failed)
    }

    /// Upstream's words, which users search for.
    fn words(&self, error: &HttpError) -> String {
        match error.status().map(|status| status.as_u16()) {
            Some(404) => format!("{}: not found", self.reference),
            Some(401 | 403) => format!(
                "pull access denied, repository does not exist or may require authorization: {error}"
            ),
            _ => error.to_string(),
        }
    }
}

//! Pulls: the documents of an image from its registry into the content store, then its blobs, several at once.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth as Login;
use tonic::Status;

use super::super::connection::{Connection, Lease};
use super::super::keyed::Keyed;
use super::super::reference::Reference;
use super::content::{self, Writer};
use super::manifest::{self, Descriptor, Document};
use crate::ports::RegistryAuth;

/// As containerd's own default.
const BLOBS_AT_ONCE: usize = 3;
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
/// No byte for so long: the registry is gone.
const READ_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);
const ACCEPTED: [&str; 4] =
    [manifest::OCI_INDEX, manifest::DOCKER_LIST, manifest::OCI_MANIFEST, manifest::DOCKER_MANIFEST];

pub(super) struct Registry<'a> {
    connection: &'a Connection,
    lease: &'a Lease,
    /// Two images with a blob in common fetch it once.
    blobs: &'a Keyed,
    client: oci_client::Client,
    login: Login,
    reference: &'a Reference,
    remote: oci_client::Reference,
}

impl<'a> Registry<'a> {
    pub fn new(
        connection: &'a Connection,
        lease: &'a Lease,
        blobs: &'a Keyed,
        reference: &'a Reference,
        auth: Option<RegistryAuth>,
    ) -> Registry<'a> {
        let (domain, path) = (reference.domain.clone(), reference.path.clone());
        let remote = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => oci_client::Reference::with_digest(domain, path, digest.clone()),
            (None, tag) => {
                let tag = tag.clone().unwrap_or_else(|| "latest".to_owned());
                oci_client::Reference::with_tag(domain, path, tag)
            }
        };
        let protocol = match reference.is_loopback() {
            true => ClientProtocol::Http,
            false => ClientProtocol::Https,
        };
        let client = oci_client::Client::new(ClientConfig {
            protocol,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: concat!("skiff/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        });
        let login = match auth {
            Some(auth) => Login::Basic(auth.username, auth.password),
            None => Login::Anonymous,
        };
        Registry { connection, lease, blobs, client, login, reference, remote }
    }

    /// Brings everything that this machine needs of the image, and returns what the name stands for.
    pub async fn fetch(&self) -> Result<Descriptor, String> {
        let (target, document) = self
            .fetch_document(&self.remote)
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
                let remote = self.remote.clone_with_digest(chosen.digest.clone());
                self.fetch_document(&remote).await?.1
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

    async fn fetch_document(
        &self,
        remote: &oci_client::Reference,
    ) -> Result<(Descriptor, Document), String> {
        let answer = self.client.pull_manifest_raw(remote, &self.login, &ACCEPTED).await;
        let (bytes, digest) = answer.map_err(|error| self.words(&error))?;
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
        let answer = self.client.pull_blob_stream(&self.remote, blob.digest.as_str()).await;
        let pieces = answer.map_err(|error| self.words(&error))?.stream;
        writer.write_all(pieces.map_ok(Bytes::from)).await.map_err(failed)?;
        writer.commit(Default::default()).await.map(drop).map_err(failed)
    }

    /// Upstream's words, which users search for.
    fn words(&self, error: &OciDistributionError) -> String {
        let reference = self.reference;
        let not_found = |code: &OciErrorCode| {
            matches!(
                code,
                OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::NotFound
            )
        };
        match error {
            OciDistributionError::ImageManifestNotFoundError(_) => {
                format!("{reference}: not found")
            }
            OciDistributionError::RegistryError { envelope, .. }
                if envelope.errors.iter().any(|one| not_found(&one.code)) =>
            {
                format!("{reference}: not found")
            }
            OciDistributionError::ServerError { code: 404, .. } => {
                format!("{reference}: not found")
            }
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_)
            | OciDistributionError::ServerError { code: 401 | 403, .. } => format!(
                "pull access denied, repository does not exist or may require authorization: {error}"
            ),
            other => chain(other),
        }
    }
}

/// An error with its causes: of a refused connection the first line alone says nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words.push_str(": ");
            words.push_str(&cause_words);
        }
        source = cause.source();
    }
    words
}

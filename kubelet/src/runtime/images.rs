//! Images: records by name, what they mean for this machine, and how they get in (pull, import).
//! Content is immutable, so what was once read of an image is kept by its digest.

mod archive;
mod content;
pub(super) mod manifest;
mod registry;
mod unpack;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use containerd_client::services::v1 as api;
use containerd_client::types;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tonic::Status;

use self::manifest::{ConfigFile, Descriptor, Document};
use super::connection::{Connection, Lease, already_exists, ignore_not_found, is_not_found};
use super::reference::Reference;
use crate::ports::{Image, ImageConfig, RegistryAuth, RuntimeError};

/// An image as this machine runs it.
#[derive(Debug)]
pub(super) struct Resolved {
    pub config_digest: String,
    pub layers: Vec<Descriptor>,
    pub diff_ids: Vec<String>,
    /// Names of the layers' snapshots, bottom first.
    pub chain_ids: Vec<String>,
    pub size_bytes: u64,
    pub config: ImageConfig,
}

type PullResult = Result<Image, Arc<RuntimeError>>;
type Pull = BoxFuture<'static, PullResult>;

pub(super) struct Images {
    connection: Connection,
    unpacker: unpack::Unpacker,
    resolved: Mutex<HashMap<String, Arc<Resolved>>>,
    /// Pulls under way: the same image is pulled once for everybody who wants it now.
    pulls: Mutex<HashMap<(String, String), WeakShared<Pull>>>,
    blobs: super::keyed::Keyed,
}

impl Images {
    pub fn new(connection: Connection, snapshotter: &str) -> Images {
        Images {
            unpacker: unpack::Unpacker::new(connection.clone(), snapshotter),
            connection,
            resolved: Mutex::default(),
            pulls: Mutex::default(),
            blobs: super::keyed::Keyed::default(),
        }
    }

    pub async fn list(&self) -> Result<Vec<Image>, RuntimeError> {
        let mut images = Vec::new();
        for record in self.records().await? {
            match self.describe(&record).await {
                Ok(image) => images.push(image),
                Err(status) => {
                    // One broken record must not hide the others.
                    tracing::warn!(
                        image = record.name,
                        why = status.message(),
                        "image cannot be read"
                    );
                }
            }
        }
        Ok(images)
    }

    pub async fn get(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        let Some(record) = self.find(reference).await? else { return Ok(None) };
        let described = self.describe(&record).await;
        let image = described.map_err(|status| self.failed("read image", reference, &status))?;
        Ok(Some(image))
    }

    /// Forgets the image's names; its content goes when nothing else uses it.
    pub async fn remove(&self, reference: &str) -> Result<(), RuntimeError> {
        let Some(found) = self.find(reference).await? else { return Ok(()) };
        let by_digest = reference.contains("sha256:");
        let digest = digest_of(&found).to_owned();
        let names: Vec<String> = match by_digest {
            true => {
                let records = self.records().await?;
                records
                    .into_iter()
                    .filter(|one| digest_of(one) == digest)
                    .map(|one| one.name)
                    .collect()
            }
            false => vec![found.name],
        };
        for name in names {
            let request = api::DeleteImageRequest { name, sync: true, target: None };
            let result = self.connection.images().delete(self.connection.request(request)).await;
            ignore_not_found(result)
                .map_err(|status| self.failed("remove image", reference, &status))?;
        }
        Ok(())
    }

    pub async fn import(&self, archive: &Path) -> Result<Vec<Image>, RuntimeError> {
        let failed = |why: String| RuntimeError::Failed {
            operation: format!("import image archive {}", archive.display()),
            why,
        };
        let lease = content::create_lease(&self.connection).await;
        let lease = lease.map_err(|status| failed(status.message().to_owned()))?;
        let result = self.import_leased(archive, &lease).await;
        content::delete_lease(&self.connection, &lease).await;
        result.map_err(failed)
    }

    async fn import_leased(&self, archive: &Path, lease: &Lease) -> Result<Vec<Image>, String> {
        let words = |status: Status| status.message().to_owned();
        let found = archive::read(&self.connection, lease, archive).await?;
        let mut images = Vec::new();
        for (name, target) in found {
            let resolved = self.resolve(&target.digest).await.map_err(words)?;
            self.unpacker.unpack(&resolved, lease).await.map_err(words)?;
            let record = self.register(&name, &target).await.map_err(words)?;
            images.push(self.describe(&record).await.map_err(words)?);
        }
        Ok(images)
    }

    pub async fn pull(
        self: &Arc<Self>,
        reference: &str,
        auth: Option<&RegistryAuth>,
    ) -> Result<Image, RuntimeError> {
        let parsed = Reference::parse(reference)?;
        let user = auth.map(|auth| auth.username.clone()).unwrap_or_default();
        let pull = self.shared_pull((parsed.to_string(), user), || {
            let (images, auth) = (self.clone(), auth.cloned());
            async move { images.pull_now(&parsed, auth).await.map_err(Arc::new) }.boxed()
        });
        pull.await.map_err(|error| copy(&error))
    }

    fn shared_pull(&self, key: (String, String), begin: impl FnOnce() -> Pull) -> Shared<Pull> {
        let mut pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        pulls.retain(|_, pull| pull.upgrade().is_some_and(|pull| pull.peek().is_none()));
        if let Some(running) = pulls.get(&key).and_then(WeakShared::upgrade) {
            return running;
        }
        let pull = begin().shared();
        if let Some(weak) = pull.downgrade() {
            pulls.insert(key, weak);
        }
        pull
    }

    async fn pull_now(
        &self,
        reference: &Reference,
        auth: Option<RegistryAuth>,
    ) -> Result<Image, RuntimeError> {
        let failed = |why: String| RuntimeError::Pull {
            reference: reference.to_string(),
            why: format!("failed to pull and unpack image \"{reference}\": {why}"),
        };
        let words = |status: Status| status.message().to_owned();
        let lease = content::create_lease(&self.connection).await.map_err(|s| failed(words(s)))?;
        let result = async {
            let registry =
                registry::Registry::new(&self.connection, &lease, &self.blobs, reference, auth)?;
            let target = registry.fetch().await?;
            let resolved = self.resolve(&target.digest).await.map_err(words)?;
            self.unpacker.unpack(&resolved, &lease).await.map_err(words)?;
            let record = self.register(&reference.to_string(), &target).await.map_err(words)?;
            self.describe(&record).await.map_err(words)
        }
        .await;
        content::delete_lease(&self.connection, &lease).await;
        result.map_err(failed)
    }

    /// The image behind a container's `Image`, its layers unpacked (another program may have brought it).
    pub async fn unpacked(&self, image: &Image) -> Result<Arc<Resolved>, RuntimeError> {
        self.resolve(&image.id)
            .await
            .map_err(|status| self.failed("read image", &image.reference, &status))
    }

    /// For images that were brought by another program and never unpacked.
    pub async fn unpack_again(&self, resolved: &Arc<Resolved>) -> Result<(), Status> {
        let lease = content::create_lease(&self.connection).await?;
        let result = self.unpacker.unpack(resolved, &lease).await;
        content::delete_lease(&self.connection, &lease).await;
        result
    }

    async fn register(&self, name: &str, target: &Descriptor) -> Result<api::Image, Status> {
        let image = api::Image {
            name: name.to_owned(),
            target: Some(unpack::wire(target)),
            ..Default::default()
        };
        let request =
            api::CreateImageRequest { image: Some(image.clone()), source_date_epoch: None };
        match self.connection.images().create(self.connection.request(request)).await {
            Ok(_) => Ok(image),
            Err(status) if already_exists(&status) => {
                let request =
                    api::UpdateImageRequest { image: Some(image.clone()), ..Default::default() };
                self.connection.images().update(self.connection.request(request)).await?;
                Ok(image)
            }
            Err(status) => Err(status),
        }
    }

    async fn records(&self) -> Result<Vec<api::Image>, RuntimeError> {
        let request = self.connection.request(api::ListImagesRequest { filters: Vec::new() });
        let answer = self.connection.images().list(request).await;
        Ok(answer.map_err(|s| self.connection.failed("list images", &s))?.into_inner().images)
    }

    /// By name, by digest within a repository, or by bare digest.
    async fn find(&self, reference: &str) -> Result<Option<api::Image>, RuntimeError> {
        if reference.starts_with("sha256:") {
            return Ok(self.records().await?.into_iter().find(|one| digest_of(one) == reference));
        }
        let parsed = Reference::parse(reference)?;
        let request = self.connection.request(api::GetImageRequest { name: parsed.to_string() });
        match self.connection.images().get(request).await {
            Ok(answer) => return Ok(answer.into_inner().image),
            Err(status) if is_not_found(&status) => {}
            Err(status) => return Err(self.failed("get image", reference, &status)),
        }
        let Some(digest) = &parsed.digest else { return Ok(None) };
        let same = |one: &api::Image| {
            digest_of(one) == digest
                && Reference::parse(&one.name)
                    .is_ok_and(|name| name.repository() == parsed.repository())
        };
        Ok(self.records().await?.into_iter().find(same))
    }

    async fn describe(&self, record: &api::Image) -> Result<Image, Status> {
        let digest = digest_of(record);
        let resolved = self.resolve(digest).await?;
        let repository = Reference::parse(&record.name).map(|name| name.repository());
        Ok(Image {
            reference: record.name.clone(),
            id: digest.to_owned(),
            repo_digest: format!("{}@{digest}", repository.unwrap_or_else(|_| record.name.clone())),
            size_bytes: resolved.size_bytes,
            config: resolved.config.clone(),
        })
    }

    async fn resolve(&self, digest: &str) -> Result<Arc<Resolved>, Status> {
        let known =
            self.resolved.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let resolved = Arc::new(self.resolve_now(digest).await?);
        let mut all = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(digest.to_owned(), resolved.clone());
        Ok(resolved)
    }

    async fn resolve_now(&self, digest: &str) -> Result<Resolved, Status> {
        let mut digest = digest.to_owned();
        let mut document = self.document(&digest).await?;
        // An index of an archive may hold another index; deeper ones nobody makes.
        for _ in 0..2 {
            let Some(manifests) = &document.manifests else { break };
            let chosen =
                manifest::choose(manifests, manifest::architecture()).ok_or_else(|| {
                    Status::not_found(format!(
                        "no match for platform in manifest {digest}: linux/{}",
                        manifest::architecture()
                    ))
                })?;
            digest = chosen.digest.clone();
            document = self.document(&digest).await?;
        }
        let (Some(config), Some(layers)) = (document.config, document.layers) else {
            return Err(Status::data_loss(format!("{digest} is no image manifest")));
        };
        let bytes = content::read(&self.connection, &config.digest).await?;
        let file = ConfigFile::parse(&bytes).map_err(Status::data_loss)?;
        if file.rootfs.diff_ids.len() != layers.len() {
            return Err(Status::data_loss(format!(
                "{digest} has {} layers, its configuration another number",
                layers.len()
            )));
        }
        let size: i64 = config.size + layers.iter().map(|layer| layer.size).sum::<i64>();
        Ok(Resolved {
            config_digest: config.digest,
            chain_ids: manifest::chain_ids(&file.rootfs.diff_ids),
            size_bytes: u64::try_from(size).unwrap_or(0),
            config: file.run_config(),
            diff_ids: file.rootfs.diff_ids,
            layers,
        })
    }

    async fn document(&self, digest: &str) -> Result<Document, Status> {
        let bytes = content::read(&self.connection, digest).await?;
        Document::parse(&bytes).map_err(|why| Status::data_loss(format!("{digest}: {why}")))
    }

    fn failed(&self, operation: &str, reference: &str, status: &Status) -> RuntimeError {
        self.connection.failed(format!("{operation} {reference}"), status)
    }
}

fn digest_of(record: &api::Image) -> &str {
    record.target.as_ref().map_or("", |target: &types::Descriptor| target.digest.as_str())
}

/// An error that several waiters get.
fn copy(error: &RuntimeError) -> RuntimeError {
    match error {
        RuntimeError::NotFound { kind, id } => RuntimeError::NotFound { kind, id: id.clone() },
        RuntimeError::InvalidImageName { reference, why } => {
            RuntimeError::InvalidImageName { reference: reference.clone(), why: why.clone() }
        }
        RuntimeError::Pull { reference, why } => {
            RuntimeError::Pull { reference: reference.clone(), why: why.clone() }
        }
        RuntimeError::Failed { operation, why } => {
            RuntimeError::Failed { operation: operation.clone(), why: why.clone() }
        }
        RuntimeError::Unavailable { address, why } => {
            RuntimeError::Unavailable { address: address.clone(), why: why.clone() }
        }
    }
}

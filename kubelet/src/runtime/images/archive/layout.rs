//! What the files of an image archive mean: pure, from names and documents to what has to be written,
//! labelled and named.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::super::super::reference::Reference;
use super::super::manifest::{self, Descriptor, Document};

const NAME_CONTAINERD: &str = "io.containerd.image.name";
const NAME_OCI: &str = "org.opencontainers.image.ref.name";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// An archive with more links in a row than this is a trap.
const LINKS_MAX: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob {
    pub digest: String,
    pub size: i64,
    pub gzipped: bool,
}

/// Everything an archive held, by path.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub documents: HashMap<String, Vec<u8>>,
    pub blobs: HashMap<String, Blob>,
    pub links: HashMap<String, String>,
    /// Manifests and indexes that lay among the blobs.
    pub by_digest: HashMap<String, Vec<u8>>,
}

#[derive(Debug)]
pub(super) enum Step {
    /// A document that is not in the store yet.
    Write {
        document: Document,
        bytes: Vec<u8>,
    },
    /// What a document names is to be kept with it.
    Label {
        digest: String,
        labels: HashMap<String, String>,
    },
    Image {
        name: String,
        target: Descriptor,
    },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Kept in memory; everything else is a blob.
pub(super) fn is_document(path: &str) -> bool {
    !path.starts_with("blobs/")
        && (path.ends_with(".json") || path == "oci-layout" || path == "repositories")
}

/// `blobs/sha256/<hex>` says what it holds.
pub(super) fn digest_of_path(path: &str) -> Option<String> {
    let hex = path.strip_prefix("blobs/sha256/")?;
    (hex.len() == 64).then(|| format!("sha256:{hex}"))
}

impl Found {
    fn index(&self) -> Option<Result<Document, String>> {
        // Newer `docker save` writes both; the OCI side has the names too then.
        let index = self
            .documents
            .get("index.json")
            .filter(|_| self.documents.contains_key("oci-layout"))?;
        Some(Document::parse(index).map_err(|why| format!("index.json: {why}")))
    }

    /// A document that is needed and not read yet. Those that the archive lacks (other platforms) do not count.
    pub fn wanted_document(&self) -> Option<String> {
        let mut queue = self.index()?.ok()?.manifests.unwrap_or_default();
        while let Some(descriptor) = queue.pop() {
            match self.by_digest.get(&descriptor.digest) {
                Some(bytes) => {
                    queue.extend(Document::parse(bytes).ok()?.manifests.unwrap_or_default())
                }
                None if self.has(&descriptor.digest) => return Some(descriptor.digest),
                None => {}
            }
        }
        None
    }

    fn has(&self, digest: &str) -> bool {
        self.blobs.values().any(|blob| blob.digest == digest)
    }

    fn follow<'a>(&'a self, path: &'a str) -> &'a str {
        let mut at = path;
        for _ in 0..LINKS_MAX {
            match self.links.get(at) {
                Some(target) => at = target,
                None => break,
            }
        }
        at
    }
}

pub(super) fn plan(found: &Found, stem: &str) -> Result<Vec<Step>, String> {
    if let Some(index) = found.index() {
        return plan_layout(found, &index?, stem);
    }
    match found.documents.get("manifest.json") {
        Some(bytes) => plan_docker(found, bytes, stem),
        None => Err(
            "neither an OCI layout (oci-layout, index.json) nor a docker archive (manifest.json)"
                .to_owned(),
        ),
    }
}

fn plan_layout(found: &Found, index: &Document, stem: &str) -> Result<Vec<Step>, String> {
    let entries = index.manifests.as_deref().unwrap_or_default();
    if entries.is_empty() {
        return Err("index.json names no image".to_owned());
    }
    let mut steps = Vec::new();
    // In the order of their digests, so that the plan is always the same.
    for (digest, bytes) in found.by_digest.iter().collect::<BTreeMap<_, _>>() {
        let document = Document::parse(bytes).map_err(|why| format!("{digest}: {why}"))?;
        let mut labels = document.gc_labels();
        labels.retain(|_, named| found.has(named));
        if !labels.is_empty() {
            steps.push(Step::Label { digest: digest.clone(), labels });
        }
    }
    for entry in entries {
        if !found.by_digest.contains_key(&entry.digest) {
            return Err(format!("index.json names {}, which is not in the archive", entry.digest));
        }
        let target = Descriptor { annotations: None, platform: None, ..entry.clone() };
        steps.push(Step::Image { name: layout_name(entry, stem)?, target });
    }
    Ok(steps)
}

/// The full name where the writer gave one; a bare tag goes to the archive's own name.
fn layout_name(entry: &Descriptor, stem: &str) -> Result<String, String> {
    let annotation = |key: &str| entry.annotations.as_ref().and_then(|all| all.get(key)).cloned();
    let name = match (annotation(NAME_CONTAINERD), annotation(NAME_OCI)) {
        (Some(name), _) => name,
        (None, Some(name)) if name.contains(['/', ':']) => name,
        (None, Some(tag)) => format!("{stem}:{tag}"),
        (None, None) => stem.to_owned(),
    };
    normal(&name)
}

fn normal(name: &str) -> Result<String, String> {
    Reference::parse(name).map(|name| name.to_string()).map_err(|error| error.to_string())
}

/// A docker archive has no manifest of its own: one is made.
fn plan_docker(found: &Found, bytes: &[u8], stem: &str) -> Result<Vec<Step>, String> {
    let images: Vec<DockerImage> =
        serde_json::from_slice(bytes).map_err(|e| format!("manifest.json: {e}"))?;
    if images.is_empty() {
        return Err("manifest.json names no image".to_owned());
    }
    let mut steps = Vec::new();
    for image in &images {
        let config = docker_config(found, &image.config, &mut steps)?;
        let layers: Result<Vec<_>, _> =
            image.layers.iter().map(|path| docker_layer(found, path)).collect();
        let document = Document {
            schema_version: 2,
            media_type: manifest::DOCKER_MANIFEST.to_owned(),
            config: Some(config),
            layers: Some(layers?),
            manifests: None,
        };
        let bytes = serde_json::to_vec(&document).map_err(|e| e.to_string())?;
        let target = Descriptor {
            media_type: document.media_type.clone(),
            digest: manifest::sha256(&bytes),
            size: bytes.len() as i64,
            ..Descriptor::default()
        };
        steps.push(Step::Write { document, bytes });
        let names = image.repo_tags.clone().filter(|tags| !tags.is_empty());
        for name in names.unwrap_or_else(|| vec![stem.to_owned()]) {
            steps.push(Step::Image { name: normal(&name)?, target: target.clone() });
        }
    }
    Ok(steps)
}

fn docker_config(found: &Found, path: &str, steps: &mut Vec<Step>) -> Result<Descriptor, String> {
    let descriptor = |digest: String, size: i64| Descriptor {
        media_type: DOCKER_CONFIG.to_owned(),
        digest,
        size,
        ..Descriptor::default()
    };
    let path = found.follow(path);
    if let Some(blob) = found.blobs.get(path) {
        return Ok(descriptor(blob.digest.clone(), blob.size));
    }
    let bytes = found.documents.get(path).ok_or_else(|| missing(path))?;
    steps.push(Step::Write { document: Document::default(), bytes: bytes.clone() });
    Ok(descriptor(manifest::sha256(bytes), bytes.len() as i64))
}

fn docker_layer(found: &Found, path: &str) -> Result<Descriptor, String> {
    let blob = found.blobs.get(found.follow(path)).ok_or_else(|| missing(path))?;
    Ok(Descriptor {
        media_type: if blob.gzipped { DOCKER_LAYER_GZIP } else { DOCKER_LAYER }.to_owned(),
        digest: blob.digest.clone(),
        size: blob.size,
        ..Descriptor::default()
    })
}

fn missing(path: &str) -> String {
    format!("manifest.json names {path}, which is not in the archive")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(steps: Result<Vec<Step>, String>) -> Vec<String> {
        let word = |step: Step| match step {
            Step::Write { document, .. } => match document.config {
                Some(config) => format!("write manifest of {}", config.digest),
                None => "write config".to_owned(),
            },
            Step::Label { digest, labels } => {
                format!("label {digest} {:?}", labels.values().collect::<Vec<_>>())
            }
            Step::Image { name, .. } => format!("image {name}"),
        };
        match steps {
            Ok(steps) => steps.into_iter().map(word).collect(),
            Err(why) => vec![why],
        }
    }

    fn blob(digest: &str) -> Blob {
        Blob { digest: digest.into(), size: 1, gzipped: false }
    }

    #[test]
    fn a_docker_archive_gets_a_manifest() {
        let mut found = Found::default();
        found.documents.insert("c.json".into(), b"{}".to_vec());
        found.documents.insert(
            "manifest.json".into(),
            br#"[{"Config":"c.json","RepoTags":["web:1","a/web:2"],"Layers":["x/layer.tar","y/layer.tar"]}]"#.to_vec(),
        );
        found.blobs.insert("x/layer.tar".into(), blob("sha256:x"));
        found.links.insert("y/layer.tar".into(), "x/layer.tar".into());
        let config = manifest::sha256(b"{}");
        assert_eq!(
            words(plan(&found, "file")),
            [
                "write config".to_owned(),
                format!("write manifest of {config}"),
                "image docker.io/library/web:1".to_owned(),
                "image docker.io/a/web:2".to_owned()
            ]
        );
        found.links.clear();
        assert_eq!(
            words(plan(&found, "file")),
            ["manifest.json names y/layer.tar, which is not in the archive"]
        );
    }

    #[test]
    fn a_layout_is_labelled_and_named() {
        let mut found = Found::default();
        found.documents.insert("oci-layout".into(), b"{}".to_vec());
        let index = br#"{"schemaVersion":2,"manifests":[{"digest":"m","size":1,
            "annotations":{"org.opencontainers.image.ref.name":"v1"}}]}"#;
        found.documents.insert("index.json".into(), index.to_vec());
        assert_eq!(words(plan(&found, "web")), ["index.json names m, which is not in the archive"]);
        found.blobs.insert("blobs/m".into(), blob("m"));
        assert_eq!(found.wanted_document(), Some("m".to_owned()));
        let document = br#"{"schemaVersion":2,"config":{"digest":"c","size":1},"layers":[{"digest":"gone","size":1}]}"#;
        found.by_digest.insert("m".into(), document.to_vec());
        found.blobs.insert("blobs/c".into(), blob("c"));
        assert_eq!(found.wanted_document(), None);
        assert_eq!(
            words(plan(&found, "web")),
            ["label m [\"c\"]", "image docker.io/library/web:v1"]
        );
    }

    #[test]
    fn something_else_is_refused() {
        assert!(words(plan(&Found::default(), "x"))[0].starts_with("neither an OCI layout"));
    }
}

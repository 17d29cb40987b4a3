//! What image documents say: indexes, manifests and configurations of OCI and docker, the choice of a
//! platform, chain ids, and the labels by which containerd's garbage collector finds what belongs together.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::super::record::hex;
use crate::ports::ImageConfig;

pub(in crate::runtime) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(in crate::runtime) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(in crate::runtime) const DOCKER_LIST: &str =
    "application/vnd.docker.distribution.manifest.list.v2+json";
pub(in crate::runtime) const DOCKER_MANIFEST: &str =
    "application/vnd.docker.distribution.manifest.v2+json";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::runtime) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    pub size: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::runtime) struct Platform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// An index or a manifest: which one, its fields tell.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::runtime) struct Document {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Vec<Descriptor>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<Descriptor>>,
}

impl Document {
    pub fn parse(bytes: &[u8]) -> Result<Document, String> {
        let document: Document =
            serde_json::from_slice(bytes).map_err(|e| format!("not a manifest: {e}"))?;
        if document.schema_version != 2 {
            return Err(format!("schema version {} is not supported", document.schema_version));
        }
        if document.manifests.is_none() && (document.config.is_none() || document.layers.is_none())
        {
            return Err("neither an index nor a manifest".to_owned());
        }
        Ok(document)
    }

    /// The media type, also where the document leaves it out, as OCI allows.
    pub fn kind(&self) -> &str {
        match (&*self.media_type, &self.manifests) {
            ("", Some(_)) => OCI_INDEX,
            ("", None) => OCI_MANIFEST,
            (kind, _) => kind,
        }
    }

    /// The labels that keep what the document names: containerd's own scheme.
    pub fn gc_labels(&self) -> HashMap<String, String> {
        let mut labels = HashMap::new();
        for (at, child) in self.manifests.iter().flatten().enumerate() {
            labels.insert(format!("containerd.io/gc.ref.content.m.{at}"), child.digest.clone());
        }
        if let Some(config) = &self.config {
            labels.insert("containerd.io/gc.ref.content.config".to_owned(), config.digest.clone());
        }
        for (at, layer) in self.layers.iter().flatten().enumerate() {
            labels.insert(format!("containerd.io/gc.ref.content.l.{at}"), layer.digest.clone());
        }
        labels
    }
}

/// The manifest of an index for this machine. Attestations carry the platform `unknown`.
pub(in crate::runtime) fn choose<'a>(
    manifests: &'a [Descriptor],
    architecture: &str,
) -> Option<&'a Descriptor> {
    let fits = |one: &&Descriptor| match &one.platform {
        Some(platform) => platform.os == "linux" && platform.architecture == architecture,
        None => false,
    };
    let plain = |one: &&Descriptor| match &one.platform {
        Some(platform) => matches!(&*platform.variant, "" | "v8"),
        None => false,
    };
    manifests
        .iter()
        .filter(fits)
        .find(plain)
        .or_else(|| manifests.iter().find(fits))
        .or_else(|| manifests.iter().find(|one| one.platform.is_none()))
}

/// This machine's architecture in Go's words.
pub(in crate::runtime) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// An image's configuration file.
#[derive(Debug, Clone, Default, Deserialize)]
pub(in crate::runtime) struct ConfigFile {
    #[serde(default)]
    config: Option<ConfigPart>,
    pub rootfs: RootFs,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(in crate::runtime) struct RootFs {
    pub diff_ids: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConfigPart {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    stop_signal: Option<String>,
}

impl ConfigFile {
    pub fn parse(bytes: &[u8]) -> Result<ConfigFile, String> {
        serde_json::from_slice(bytes).map_err(|e| format!("not an image configuration: {e}"))
    }

    pub fn run_config(&self) -> ImageConfig {
        let part = self.config.clone().unwrap_or_default();
        ImageConfig {
            entrypoint: part.entrypoint.unwrap_or_default(),
            cmd: part.cmd.unwrap_or_default(),
            env: part.env.unwrap_or_default(),
            working_dir: part.working_dir.unwrap_or_default(),
            user: part.user.unwrap_or_default(),
            stop_signal: part.stop_signal.unwrap_or_default(),
        }
    }
}

/// The names of the snapshots of the layers, bottom first: each is the digest of the one below and its own.
pub(in crate::runtime) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(below) => sha256(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

pub(in crate::runtime) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(os: &str, architecture: &str, variant: &str) -> Descriptor {
        Descriptor {
            digest: format!("{os}/{architecture}/{variant}"),
            platform: Some(Platform {
                os: os.into(),
                architecture: architecture.into(),
                variant: variant.into(),
            }),
            ..Descriptor::default()
        }
    }

    #[test]
    fn the_platform_of_this_machine_is_chosen() {
        let list = [
            entry("unknown", "unknown", ""),
            entry("windows", "amd64", ""),
            entry("linux", "amd64", "v3"),
            entry("linux", "amd64", ""),
            entry("linux", "arm64", "v8"),
        ];
        let chosen = |architecture| choose(&list, architecture).map(|one| one.digest.as_str());
        assert_eq!(chosen("amd64"), Some("linux/amd64/"));
        assert_eq!(chosen("arm64"), Some("linux/arm64/v8"));
        assert_eq!(chosen("riscv64"), None);
        let bare = [Descriptor { digest: "bare".into(), ..Descriptor::default() }];
        assert_eq!(choose(&bare, "amd64").map(|one| one.digest.as_str()), Some("bare"));
    }

    #[test]
    fn a_chain_id_is_the_digest_of_two() {
        let ids = ["sha256:aa".to_owned(), "sha256:bb".to_owned()];
        assert_eq!(chain_ids(&ids), ["sha256:aa".to_owned(), sha256(b"sha256:aa sha256:bb")]);
        assert_eq!(chain_ids(&[]), Vec::<String>::new());
    }

    #[test]
    fn documents_tell_what_they_are() {
        let manifest = br#"{"schemaVersion":2,"config":{"digest":"c","size":1},"layers":[{"digest":"l","size":2}]}"#;
        let document = Document::parse(manifest).expect("a manifest");
        assert_eq!(document.kind(), OCI_MANIFEST);
        let mut labels: Vec<_> = document.gc_labels().into_iter().collect();
        labels.sort();
        assert_eq!(
            labels,
            [
                ("containerd.io/gc.ref.content.config".to_owned(), "c".to_owned()),
                ("containerd.io/gc.ref.content.l.0".to_owned(), "l".to_owned())
            ]
        );
        assert!(
            Document::parse(br#"{"schemaVersion":1}"#)
                .expect_err("refused")
                .contains("schema version 1")
        );
        assert!(
            Document::parse(br#"{"schemaVersion":2}"#).expect_err("refused").contains("neither")
        );
    }

    #[test]
    fn a_configuration_may_have_nulls() {
        let file = br#"{"config":{"Cmd":["sh"],"Entrypoint":null,"User":"1"},"rootfs":{"type":"layers","diff_ids":["a"]}}"#;
        let config = ConfigFile::parse(file).expect("a configuration");
        assert_eq!(config.run_config().cmd, ["sh"]);
        assert_eq!(config.run_config().user, "1");
        assert_eq!(config.rootfs.diff_ids, ["a"]);
    }
}

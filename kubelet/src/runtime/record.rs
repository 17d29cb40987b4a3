//! What skiff keeps with its containers in containerd, so that a restarted skiff, or a rebooted host,
//! finds everything again: a few labels to filter by, and one JSON record as an extension.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use containerd_client::services::v1::Container;
use prost_types::Any;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ports::{ContainerConfig, PodRef, SandboxConfig};

pub(super) const LABEL_KIND: &str = "skiff.io/kind";
pub(super) const LABEL_POD_UID: &str = "skiff.io/pod-uid";
const LABEL_POD_NAMESPACE: &str = "skiff.io/pod-namespace";
const LABEL_POD_NAME: &str = "skiff.io/pod-name";
pub(super) const LABEL_SANDBOX: &str = "skiff.io/sandbox";
const LABEL_CONTAINER_NAME: &str = "skiff.io/container-name";
/// How a container ended: an `ExitRecord` as JSON. There from the moment its task is gone.
pub(super) const LABEL_EXIT: &str = "skiff.io/exit";
const EXTENSION: &str = "skiff.io/record";
const EXTENSION_TYPE: &str = "skiff.io/Record";

/// Shown as the image of sandboxes.
pub(super) const PAUSE_IMAGE: &str = "skiff.local/pause:1";

/// Written once, when a sandbox or container is created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub attempt: u32,
    /// The boot it was made in: tasks do not outlive one.
    pub boot_id: String,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Sandbox {
        network_namespace: Option<PathBuf>,
        cgroup_parent: String,
        host_ipc: bool,
        host_pid: bool,
        share_process_namespace: bool,
        hostname: String,
    },
    Container {
        name: String,
        sandbox_id: String,
        image_id: String,
        log_path: PathBuf,
        stop_signal: String,
        cgroup: String,
        tty: bool,
        annotations: BTreeMap<String, String>,
    },
}

impl Record {
    pub fn sandbox(config: &SandboxConfig, boot_id: &str) -> Record {
        let kind = Kind::Sandbox {
            network_namespace: config.network_namespace.clone(),
            cgroup_parent: config.cgroup_parent.clone(),
            host_ipc: config.host_ipc,
            host_pid: config.host_pid,
            share_process_namespace: config.share_process_namespace,
            hostname: config.hostname.clone(),
        };
        Record::new(&config.pod, config.attempt, boot_id, kind)
    }

    pub fn container(
        config: &ContainerConfig,
        sandbox_id: &str,
        cgroup: String,
        boot_id: &str,
    ) -> Record {
        let kind = Kind::Container {
            name: config.name.clone(),
            sandbox_id: sandbox_id.to_owned(),
            image_id: config.image.repo_digest.clone(),
            log_path: config.log_path.clone(),
            stop_signal: config.image.config.stop_signal.clone(),
            cgroup,
            tty: config.tty,
            annotations: config.annotations.clone(),
        };
        Record::new(&config.pod, config.attempt, boot_id, kind)
    }

    fn new(pod: &PodRef, attempt: u32, boot_id: &str, kind: Kind) -> Record {
        Record {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            attempt,
            boot_id: boot_id.to_owned(),
            kind,
        }
    }

    pub fn pod(&self) -> PodRef {
        PodRef { namespace: self.namespace.clone(), name: self.name.clone(), uid: self.uid.clone() }
    }

    /// `None`: not one of ours (or of a version that this one cannot read).
    pub fn of(container: &Container) -> Option<Record> {
        let extension = container.extensions.get(EXTENSION)?;
        serde_json::from_slice(&extension.value).ok()
    }

    pub fn extensions(&self) -> HashMap<String, Any> {
        let value = serde_json::to_vec(self).unwrap_or_default();
        HashMap::from([(EXTENSION.to_owned(), Any { type_url: EXTENSION_TYPE.to_owned(), value })])
    }

    pub fn labels(&self) -> HashMap<String, String> {
        let mut labels = HashMap::from([
            (LABEL_POD_UID.to_owned(), self.uid.clone()),
            (LABEL_POD_NAMESPACE.to_owned(), self.namespace.clone()),
            (LABEL_POD_NAME.to_owned(), self.name.clone()),
        ]);
        match &self.kind {
            Kind::Sandbox { .. } => {
                labels.insert(LABEL_KIND.to_owned(), "sandbox".to_owned());
            }
            Kind::Container { name, sandbox_id, .. } => {
                labels.insert(LABEL_SANDBOX.to_owned(), sandbox_id.clone());
                labels.insert(LABEL_KIND.to_owned(), "container".to_owned());
                labels.insert(LABEL_CONTAINER_NAME.to_owned(), name.clone());
            }
        }
        labels
    }
}

/// How a container's first process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ExitRecord {
    pub code: i32,
    /// Nanoseconds since 1970.
    pub started: Option<u64>,
    pub finished: u64,
    #[serde(default)]
    pub oom: bool,
}

impl ExitRecord {
    pub fn of(container: &Container) -> Option<ExitRecord> {
        serde_json::from_str(container.labels.get(LABEL_EXIT)?).ok()
    }
}

/// The same pod and attempt have the same id, so that a repeated call finds what the first one made.
pub(super) fn sandbox_id(pod: &PodRef, attempt: u32) -> String {
    digest_of(&["sandbox", &pod.uid, &attempt.to_string()])
}

pub(super) fn container_id(sandbox_id: &str, name: &str, attempt: u32) -> String {
    digest_of(&["container", sandbox_id, name, &attempt.to_string()])
}

fn digest_of(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hex(&hash.finalize())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(super) fn time(stamp: Option<&prost_types::Timestamp>) -> Option<SystemTime> {
    let stamp = stamp?;
    let seconds = u64::try_from(stamp.seconds).ok()?;
    // The zero time of Go is in year 1: negative, and so no time at all.
    Some(UNIX_EPOCH + Duration::new(seconds, u32::try_from(stamp.nanos).unwrap_or(0)))
}

pub(super) fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn from_nanos(nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_attempt_has_the_same_id() {
        let pod = PodRef { namespace: "a".into(), name: "b".into(), uid: "u".into() };
        assert_eq!(sandbox_id(&pod, 0), sandbox_id(&pod, 0));
        assert_ne!(sandbox_id(&pod, 0), sandbox_id(&pod, 1));
        assert_ne!(container_id("s", "ab", 1), container_id("s", "a", 1));
        assert_eq!(sandbox_id(&pod, 0).len(), 64);
    }

    #[test]
    fn a_record_comes_back_from_a_container() {
        let record = Record {
            namespace: "ns".into(),
            name: "pod".into(),
            uid: "uid".into(),
            attempt: 3,
            boot_id: "boot".into(),
            kind: Kind::Container {
                name: "app".into(),
                sandbox_id: "s".into(),
                image_id: "r@sha256:1".into(),
                log_path: "/var/log/x".into(),
                stop_signal: "SIGQUIT".into(),
                cgroup: "/skiff/pod".into(),
                tty: true,
                annotations: BTreeMap::from([("hash".to_owned(), "1".to_owned())]),
            },
        };
        let container = Container {
            extensions: record.extensions(),
            labels: record.labels(),
            ..Default::default()
        };
        assert_eq!(Record::of(&container), Some(record));
        assert_eq!(Record::of(&Container::default()), None);
    }
}

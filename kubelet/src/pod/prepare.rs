//! What a pod needs on the node's disk before its first container: folders, volumes, and a
//! note by which leftovers are found again.

use std::collections::BTreeSet;
use std::sync::Arc;

use skiff_proto::model::{Pod, Secret, Service};

use super::context::about_pod;
use super::execute::Trouble;
use super::worker::{Seen, Worker};
use crate::downward::Facts;
use crate::env::service_variables;
use crate::objects::{Kind, Reference, references};
use crate::volume;

/// The key of a network that was asked for; written before it is made.
pub const NETWORK_NOTE: &str = "network";
/// Namespace, name and cgroup of the pod that a folder belongs to.
pub const POD_NOTE: &str = "pod.json";

impl Worker {
    pub fn facts(&self, pod: &Pod) -> Facts {
        let config = &self.ctx.config;
        let pod_ips = if pod.spec.host_network {
            vec![config.node_ip]
        } else {
            self.memory().pod_ips.clone()
        };
        Facts {
            pod_ips,
            host_ip: Some(config.node_ip),
            allocatable_milli_cpu: self.ctx.node.milli_cpu,
            allocatable_memory_bytes: self.ctx.node.memory_bytes,
        }
    }

    /// Volumes before the first container starts. `needed` is false when nothing starts.
    pub async fn prepare(&self, pod: &Arc<Pod>, needed: bool) -> Result<(), Trouble> {
        if !needed {
            return Ok(());
        }
        self.note_pod(pod).await?;
        self.make_volumes(pod).await
    }

    /// Brings volumes of a running pod up to date with what they are made from.
    pub async fn refresh_volumes(&self, pod: &Arc<Pod>, seen: &Seen) -> Result<(), Trouble> {
        self.ctx.objects.follow(pod, &self.slot.wake, &references(pod));
        if seen.live_sandbox().is_none() {
            return Ok(());
        }
        match self.memory().volumes_of.clone() {
            Some(before) if before == self.volume_versions(pod) => return Ok(()),
            // They are made with the first container.
            None if seen.containers.is_empty() => return Ok(()),
            _ => {}
        }
        // A running pod keeps its volumes as they are when a source is gone.
        if let Err(why) = self.make_volumes(pod).await {
            tracing::warn!(pod = %self.pod_ref.name, "volumes not refreshed: {why}");
        }
        Ok(())
    }

    fn volume_versions(&self, pod: &Pod) -> Vec<String> {
        let meta = &pod.metadata;
        let mut versions = self.ctx.objects.versions(&meta.namespace, &references(pod));
        let downward =
            pod.spec.volumes.iter().any(|v| v.downward_api.is_some() || v.projected.is_some());
        if downward {
            versions.push(format!("{:?} {:?}", meta.labels, meta.annotations));
        }
        versions
    }

    async fn make_volumes(&self, pod: &Arc<Pod>) -> Result<(), Trouble> {
        let versions = self.volume_versions(pod);
        let wanted = references(pod);
        let lookups = self
            .ctx
            .objects
            .lookup(&pod.metadata.namespace, &wanted)
            .await
            .map_err(Trouble::Objects)?;
        let (pod_dir, facts) = (self.ctx.config.pod_dir(&self.pod_ref.uid), self.facts(pod));
        let of = pod.clone();
        let made =
            tokio::task::spawn_blocking(move || volume::set_up(&pod_dir, &of, &lookups, &facts))
                .await;
        let made = made.map_err(|why| Trouble::Files {
            operation: "make volumes of",
            what: self.pod_ref.name.clone(),
            why: std::io::Error::other(why),
        })?;
        match made {
            Ok(places) => {
                let mut memory = self.memory();
                memory.places = places;
                memory.volumes_of = Some(versions);
                Ok(())
            }
            Err(why) => {
                self.ctx.recorder.warning(&about_pod(pod), "FailedMount", why.to_string());
                Err(Trouble::Volume(why))
            }
        }
    }

    /// The pull secrets that exist; a missing one is the registry's to complain about.
    pub async fn pull_secrets(&self, pod: &Pod) -> Vec<Secret> {
        let wanted: BTreeSet<Reference> = pod
            .spec
            .image_pull_secrets
            .iter()
            .map(|r| Reference { kind: Kind::Secret, name: r.name.clone() })
            .collect();
        if wanted.is_empty() {
            return Vec::new();
        }
        let found = self.ctx.objects.lookup(&pod.metadata.namespace, &wanted).await;
        found.map(|lookups| lookups.secrets.into_values().collect()).unwrap_or_default()
    }

    /// Variables of the Services that the pod is told about.
    pub fn service_env(&self, pod: &Pod) -> std::collections::BTreeMap<String, String> {
        let links = pod.spec.enable_service_links.unwrap_or(true);
        let own = &pod.metadata.namespace;
        let mut services = self.ctx.services.filter(|entry| {
            let (namespace, name) = (entry.object.namespace(), entry.object.name());
            (links && namespace == own) || (namespace == "default" && name == "kubernetes")
        });
        // The pod's own namespace wins over the API server's Service of the same name.
        services.sort_by_key(|e| e.object.namespace() == own);
        let services: Vec<&Service> = services.iter().map(|e| &*e.value).collect();
        service_variables(services.into_iter())
    }

    async fn note_pod(&self, pod: &Pod) -> Result<(), Trouble> {
        let note = serde_json::json!({
            "namespace": self.pod_ref.namespace, "name": self.pod_ref.name,
            "cgroup": self.cgroup_parent(pod),
        });
        self.write_note(POD_NOTE, &note.to_string()).await
    }

    /// Written before the network is made: what this names may exist.
    pub async fn note_network(&self, key: &str) -> Result<(), Trouble> {
        self.write_note(NETWORK_NOTE, key).await
    }

    async fn write_note(&self, name: &str, text: &str) -> Result<(), Trouble> {
        let dir = self.ctx.config.pod_dir(&self.pod_ref.uid);
        let path = dir.join(name);
        if tokio::fs::read_to_string(&path).await.is_ok_and(|known| known == text) {
            return Ok(());
        }
        let written = async {
            tokio::fs::create_dir_all(&dir).await?;
            tokio::fs::write(&path, text).await
        };
        written.await.map_err(|why| Trouble::Files {
            operation: "write",
            what: path.display().to_string(),
            why,
        })
    }
}

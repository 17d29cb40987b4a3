//! What controllers want to know of a pod: a small part of it, since there are many.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::Value;
use skiff_client::cache::Entry;
use skiff_proto::model::{Container, PodStatus, Toleration};
use skiff_proto::{Object, OwnerReference, Timestamp};

/// A pod's object beside its view.
pub type Pod = Entry<PodView>;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodView {
    pub node_name: String,
    pub hostname: String,
    pub subdomain: String,
    pub phase: Phase,
    /// Of both families, the primary first.
    pub ips: Vec<String>,
    pub ready: bool,
    pub ready_since: Option<Timestamp>,
    /// Of the container that restarted most.
    pub restarts: i32,
    /// `controller.kubernetes.io/pod-deletion-cost`.
    pub deletion_cost: i32,
    pub ports: Vec<NamedPort>,
    pub tolerations: Vec<Toleration>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

/// A container port that a Service may refer to by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPort {
    pub name: String,
    pub protocol: String,
    pub port: u16,
}

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

#[derive(Default, Deserialize)]
#[serde(default)]
struct Raw {
    metadata: RawMeta,
    spec: RawSpec,
    status: PodStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawMeta {
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    node_name: String,
    hostname: String,
    subdomain: String,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    tolerations: Vec<Toleration>,
}

/// Never fails: a pod left out because a field of it is strange would be taken for missing,
/// and replaced without end.
pub fn view(object: &Arc<Object>) -> Result<PodView, serde_json::Error> {
    let raw = object.parse().or_else(|error| {
        tracing::warn!(pod = %object.key(), %error, "pod has a field that cannot be read, taking the rest");
        readable_parts(object)
    })?;
    Ok(view_of(raw))
}

/// Each part that can be read; the others as if they were absent.
fn readable_parts(object: &Object) -> Result<Raw, serde_json::Error> {
    let mut value: Value = object.parse()?;
    let mut part = |name: &str| value.get_mut(name).map(Value::take).unwrap_or_default();
    let (metadata, spec, status) = (part("metadata"), part("spec"), part("status"));
    let node_name = spec["nodeName"].as_str().unwrap_or_default().to_owned();
    Ok(Raw {
        metadata: serde_json::from_value(metadata).unwrap_or_default(),
        spec: serde_json::from_value(spec)
            .unwrap_or_else(|_| RawSpec { node_name, ..RawSpec::default() }),
        status: serde_json::from_value(status).unwrap_or_default(),
    })
}

fn view_of(raw: Raw) -> PodView {
    let Raw { metadata, spec, status } = raw;
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready" && c.status == "True");
    let mut ips: Vec<String> = status.pod_ips.into_iter().map(|ip| ip.ip).collect();
    if ips.is_empty() && !status.pod_ip.is_empty() {
        ips.push(status.pod_ip);
    }
    // Init containers that restart always are sidecars, whose ports count as well.
    let sidecars = spec.init_containers.iter().filter(|c| c.restart_policy == "Always");
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| &c.ports);
    PodView {
        node_name: spec.node_name,
        hostname: spec.hostname,
        subdomain: spec.subdomain,
        phase: Phase::of(&status.phase),
        ips,
        ready: ready.is_some(),
        ready_since: ready.and_then(|c| c.last_transition_time),
        restarts: status.container_statuses.iter().map(|c| c.restart_count).max().unwrap_or(0),
        deletion_cost: metadata
            .annotations
            .get(DELETION_COST)
            .and_then(|cost| cost.parse().ok())
            .unwrap_or(0),
        ports: ports
            .filter(|port| !port.name.is_empty())
            .map(|port| NamedPort {
                name: port.name.clone(),
                protocol: protocol(&port.protocol).to_owned(),
                port: port.container_port,
            })
            .collect(),
        tolerations: spec.tolerations,
    }
}

impl Phase {
    fn of(text: &str) -> Self {
        match text {
            "Running" => Self::Running,
            "Succeeded" => Self::Succeeded,
            "Failed" => Self::Failed,
            "Unknown" => Self::Unknown,
            _ => Self::Pending,
        }
    }

    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

impl PodView {
    /// Ready for at least `min_ready`.
    pub fn is_available(&self, min_ready: Duration, now: SystemTime) -> bool {
        self.ready && self.available_in(min_ready, now).is_none_or(|left| left.is_zero())
    }

    /// The time left until a ready pod is available; `None` if it is not ready.
    pub fn available_in(&self, min_ready: Duration, now: SystemTime) -> Option<Duration> {
        if !self.ready {
            return None;
        }
        let since = self.ready_since.map_or(Duration::ZERO, |t| t.elapsed_at(now));
        Some(min_ready.saturating_sub(since))
    }
}

/// Neither done nor going: what counts as a replica.
pub fn is_active(pod: &Pod) -> bool {
    !pod.value.phase.is_terminal() && !pod.object.is_terminating()
}

/// The owner with `controller: true`.
pub fn controller_of(object: &Object) -> Option<&OwnerReference> {
    object.index.metadata.owner_references.iter().find(|owner| owner.controller)
}

/// The default protocol is TCP.
pub fn protocol(text: &str) -> &str {
    if text.is_empty() { "TCP" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use serde_json::json;

    #[test]
    fn a_strange_pod_is_still_a_pod() {
        let pod = pod(json!({
            "metadata": {"name": "p", "namespace": "shop"},
            "spec": {"nodeName": "n1", "tolerations": "none"},
            "status": null
        }));
        assert_eq!(pod.value.node_name, "n1");
        assert!(is_active(&pod));
    }

    #[test]
    fn keeps_what_controllers_ask_for() {
        let pod = pod(json!({
            "metadata": {"name": "p", "annotations": {DELETION_COST: "-7"}},
            "spec": {
                "nodeName": "n1",
                "initContainers": [
                    {"name": "s", "restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 1}]},
                    {"name": "i", "ports": [{"name": "init", "containerPort": 2}]}
                ],
                "containers": [{"name": "c", "ports": [
                    {"name": "dns", "protocol": "UDP", "containerPort": 53}, {"containerPort": 80}
                ]}]
            },
            "status": {
                "phase": "Running", "podIP": "10.0.0.1",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z"}],
                "containerStatuses": [{"restartCount": 1}, {"restartCount": 4}]
            }
        }));
        let view = &*pod.value;
        assert_eq!((view.phase, view.restarts, view.deletion_cost), (Phase::Running, 4, -7));
        assert_eq!(view.ips, ["10.0.0.1"]);
        let names: Vec<&str> = view.ports.iter().map(|p| &*p.name).collect();
        assert_eq!(names, ["dns", "side"]);
        let at = |s: i64| Timestamp::from_unix(1_704_067_200 + s).expect("valid").system_time();
        assert!(view.is_available(Duration::ZERO, at(0)));
        assert!(!view.is_available(Duration::from_secs(10), at(9)));
        assert_eq!(view.available_in(Duration::from_secs(10), at(9)), Some(Duration::from_secs(1)));
        assert!(view.is_available(Duration::from_secs(10), at(10)));
    }
}

//! A pod as the scheduler sees it: read once, then shared by the queue, the nodes and the plugins.

use std::collections::BTreeMap;
use std::sync::Arc;

use skiff_proto::model::{Container, Pod, PodSpec, Toleration};
use skiff_proto::{Labels, Object, ObjectKey, ObjectReference, Timestamp};

use crate::resources::{Resources, pod_requests, pod_requests_for_scoring};
use crate::terms::{NodeTerm, PodTerm, Spread};

/// Names a pod for good: a pod made anew under the same name is another pod.
pub type PodUid = Arc<str>;

#[derive(Debug, Clone, PartialEq)]
pub struct PodInfo {
    pub uid: PodUid,
    pub key: ObjectKey,
    pub labels: Labels,
    /// The uid of its controller, whose pods are spread by default.
    pub controller: Option<Arc<str>>,
    pub scheduler_name: String,
    /// Empty: not assigned.
    pub node_name: String,
    /// Where a preemption made room for it.
    pub nominated_node: String,
    /// Succeeded or failed: it holds no resources any more.
    pub finished: bool,
    pub terminating: bool,
    pub gated: bool,
    pub priority: i32,
    pub never_preempts: bool,
    pub created: Option<Timestamp>,
    pub started: Option<Timestamp>,
    pub requests: Resources,
    pub requests_for_scoring: Resources,
    pub host_ports: Vec<HostPort>,
    pub rules: Rules,
    /// What `status.conditions` says of PodScheduled: status, reason and message.
    pub scheduled_condition: Option<(String, String, String)>,
}

/// Where the pod wants to be. Boxed parts stay empty for most pods.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    pub node_selector: BTreeMap<String, String>,
    /// Alternatives; `None`: any node.
    pub required_nodes: Option<Vec<NodeTerm>>,
    pub preferred_nodes: Vec<(i64, NodeTerm)>,
    pub tolerations: Vec<Toleration>,
    pub spread: Vec<Spread>,
    pub affinity: Vec<PodTerm>,
    pub anti_affinity: Vec<PodTerm>,
    /// Positive weights attract, negative ones repel.
    pub preferred_pods: Vec<(i64, PodTerm)>,
}

/// A port of the node that a container takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: u16,
}

impl HostPort {
    /// The unspecified address takes the port on every address.
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = |ip: &str| ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

impl PodInfo {
    pub fn read(object: &Object) -> Result<Self, serde_json::Error> {
        let pod: Pod = object.parse()?;
        Ok(Self::from_pod(&pod))
    }

    pub fn from_pod(pod: &Pod) -> Self {
        let (meta, spec, status) = (&pod.metadata, &pod.spec, &pod.status);
        let scheduled = status.conditions.iter().find(|c| c.type_ == "PodScheduled");
        Self {
            uid: meta.uid.as_str().into(),
            key: ObjectKey::new(&meta.namespace, &meta.name),
            controller: meta.controller().map(|owner| owner.uid.as_str().into()),
            labels: meta.labels.clone(),
            scheduler_name: spec.scheduler_name.clone(),
            node_name: spec.node_name.clone(),
            nominated_node: status.nominated_node_name.clone(),
            finished: matches!(status.phase.as_str(), "Succeeded" | "Failed"),
            terminating: meta.deletion_timestamp.is_some(),
            gated: !spec.scheduling_gates.is_empty(),
            priority: spec.priority.unwrap_or(0),
            never_preempts: spec.preemption_policy == "Never",
            created: meta.creation_timestamp,
            started: status.start_time,
            requests: pod_requests(spec),
            requests_for_scoring: pod_requests_for_scoring(spec),
            host_ports: host_ports(spec),
            rules: Rules::compile(spec, &meta.namespace, &meta.labels),
            scheduled_condition: scheduled
                .map(|c| (c.status.clone(), c.reason.clone(), c.message.clone())),
        }
    }

    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: "v1".into(),
            kind: "Pod".into(),
            namespace: self.key.namespace.clone(),
            name: self.key.name.clone(),
            uid: self.uid.to_string(),
            ..Default::default()
        }
    }

    /// Whether it takes part in required or preferred rules between pods.
    pub fn has_pod_rules(&self) -> bool {
        let rules = &self.rules;
        !rules.affinity.is_empty()
            || !rules.anti_affinity.is_empty()
            || !rules.preferred_pods.is_empty()
    }

    /// Whether another attempt may end otherwise: status updates do not count.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        self.labels == other.labels
            && self.gated == other.gated
            && self.requests == other.requests
            && self.rules == other.rules
    }

    /// The only nodes it can go to, if its required affinity names them (as that of
    /// DaemonSet pods does); they need not be searched for.
    pub fn only_nodes(&self) -> Option<Vec<&str>> {
        let terms = self.rules.required_nodes.as_ref()?;
        let mut names = Vec::new();
        for term in terms {
            names.extend(term.node_names()?.iter().map(String::as_str));
        }
        (!names.is_empty()).then_some(names)
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecar = |c: &&Container| c.restart_policy == "Always";
    let containers = spec.containers.iter().chain(spec.init_containers.iter().filter(sidecar));
    let mut ports = Vec::new();
    for port in containers.flat_map(|c| &c.ports) {
        let taken = match port.host_port {
            0 if spec.host_network => port.container_port,
            taken => taken,
        };
        if taken != 0 {
            let or = |text: &str, default: &str| {
                if text.is_empty() { default.to_owned() } else { text.to_owned() }
            };
            ports.push(HostPort {
                ip: or(&port.host_ip, "0.0.0.0"),
                protocol: or(&port.protocol, "TCP"),
                port: taken,
            });
        }
    }
    ports
}

impl Rules {
    fn compile(spec: &PodSpec, namespace: &str, labels: &Labels) -> Self {
        let mut rules = Self {
            node_selector: spec.node_selector.clone(),
            tolerations: spec.tolerations.clone(),
            spread: spec
                .topology_spread_constraints
                .iter()
                .map(|c| Spread::compile(c, labels))
                .collect(),
            ..Self::default()
        };
        let Some(affinity) = &spec.affinity else {
            return rules;
        };
        if let Some(node) = &affinity.node_affinity {
            let required = &node.required_during_scheduling_ignored_during_execution;
            rules.required_nodes = required
                .as_ref()
                .map(|s| s.node_selector_terms.iter().map(NodeTerm::compile).collect());
            let preferred = &node.preferred_during_scheduling_ignored_during_execution;
            rules.preferred_nodes = preferred
                .iter()
                .map(|t| (i64::from(t.weight), NodeTerm::compile(&t.preference)))
                .collect();
        }
        let sides = [(&affinity.pod_affinity, 1), (&affinity.pod_anti_affinity, -1)];
        for (side, sign) in sides {
            let Some(side) = side else { continue };
            let required = side
                .required_during_scheduling_ignored_during_execution
                .iter()
                .map(|t| PodTerm::compile(t, namespace));
            let list = if sign > 0 { &mut rules.affinity } else { &mut rules.anti_affinity };
            list.extend(required);
            let preferred = &side.preferred_during_scheduling_ignored_during_execution;
            rules.preferred_pods.extend(preferred.iter().map(|t| {
                (sign * i64::from(t.weight), PodTerm::compile(&t.pod_affinity_term, namespace))
            }));
        }
        rules
    }
}

//! The nodes and what is placed on them, kept incrementally: placing or removing a pod
//! touches its node and three indexes, and no cycle copies the cluster.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use skiff_proto::model::{Node, Taint};
use skiff_proto::{Labels, Object};

use crate::pod::{PodInfo, PodUid};
use crate::resources::Resources;
use crate::terms::Namespaces;

/// What a Node object says, as far as placement depends on it. Two equal ones mean that
/// an update (a heartbeat) cannot help any pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeInfo {
    pub name: Arc<str>,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    pub allowed_pods: i64,
}

impl NodeInfo {
    pub fn read(object: &Object) -> Result<Self, serde_json::Error> {
        let node: Node = object.parse()?;
        Ok(Self::from_node(&node))
    }

    pub fn from_node(node: &Node) -> Self {
        let allocatable = &node.status.allocatable;
        Self {
            name: node.metadata.name.as_str().into(),
            labels: node.metadata.labels.clone(),
            taints: node.spec.taints.clone(),
            unschedulable: node.spec.unschedulable,
            allocatable: Resources::from_list(allocatable),
            allowed_pods: allocatable.get("pods").map_or(0, |q| q.value()),
        }
    }
}

/// A node's place in the table; stable as long as the node or a pod on it is known.
pub type NodeId = usize;

#[derive(Debug, Default)]
pub struct NodeState {
    pub id: NodeId,
    pub info: NodeInfo,
    /// False: pods were seen on it before the node itself, or after its removal.
    pub present: bool,
    pub requested: Resources,
    pub requested_for_scoring: Resources,
    pub pods: HashMap<PodUid, Arc<PodInfo>>,
    /// Pods for which a preemption is making room here.
    pub nominated: Vec<Arc<PodInfo>>,
}

impl NodeState {
    pub fn topology(&self, key: &str) -> Option<&str> {
        self.info.labels.get(key).map(String::as_str)
    }

    fn place(&mut self, pod: &Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.requested_for_scoring.add(&pod.requests_for_scoring);
        self.pods.insert(pod.uid.clone(), pod.clone());
    }

    fn take_away(&mut self, uid: &PodUid) -> Option<Arc<PodInfo>> {
        let pod = self.pods.remove(uid)?;
        self.requested.subtract(&pod.requests);
        self.requested_for_scoring.subtract(&pod.requests_for_scoring);
        Some(pod)
    }
}

/// The table. Indexes beside it answer what plugins ask of the whole cluster without a
/// walk over all pods.
#[derive(Debug, Default)]
pub struct Nodes {
    slots: Vec<NodeState>,
    free: Vec<NodeId>,
    by_name: HashMap<Arc<str>, NodeId>,
    present: usize,
    homes: HashMap<PodUid, NodeId>,
    by_namespace: HashMap<String, HashSet<PodUid>>,
    /// Pods that have affinity rules of their own, which concern others too.
    with_pod_rules: HashSet<PodUid>,
    /// How many pods of a controller each node has.
    by_controller: HashMap<Arc<str>, HashMap<NodeId, u32>>,
    nominations: HashMap<PodUid, NodeId>,
    pub namespaces: Namespaces,
}

impl Nodes {
    /// Adds a node or replaces what is known of it; returns what was known before.
    pub fn set_node(&mut self, info: NodeInfo) -> Option<NodeInfo> {
        let id = self.slot(&info.name);
        let state = &mut self.slots[id];
        let known = std::mem::replace(&mut state.info, info);
        if std::mem::replace(&mut state.present, true) {
            return Some(known);
        }
        self.present += 1;
        None
    }

    pub fn remove_node(&mut self, name: &str) -> Option<NodeInfo> {
        let id = *self.by_name.get(name)?;
        let state = &mut self.slots[id];
        if !std::mem::take(&mut state.present) {
            return None;
        }
        let bare = NodeInfo { name: state.info.name.clone(), ..NodeInfo::default() };
        let known = std::mem::replace(&mut state.info, bare);
        self.present -= 1;
        self.release(id);
        Some(known)
    }

    /// Puts a pod on a node, away from where it was.
    pub fn place(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.take_away(&pod.uid);
        let id = self.slot(node);
        self.slots[id].place(pod);
        self.homes.insert(pod.uid.clone(), id);
        let namespace = self.by_namespace.entry(pod.key.namespace.clone()).or_default();
        namespace.insert(pod.uid.clone());
        if pod.has_pod_rules() {
            self.with_pod_rules.insert(pod.uid.clone());
        }
        if let Some(controller) = &pod.controller {
            let nodes = self.by_controller.entry(controller.clone()).or_default();
            *nodes.entry(id).or_default() += 1;
        }
    }

    /// Takes a pod off its node.
    pub fn take_away(&mut self, uid: &PodUid) -> Option<Arc<PodInfo>> {
        let id = self.homes.remove(uid)?;
        let pod = self.slots[id].take_away(uid)?;
        if let Some(namespace) = self.by_namespace.get_mut(&pod.key.namespace) {
            namespace.remove(uid);
            if namespace.is_empty() {
                self.by_namespace.remove(&pod.key.namespace);
            }
        }
        self.with_pod_rules.remove(uid);
        if let Some(controller) = &pod.controller {
            self.uncount(controller, id);
        }
        self.release(id);
        Some(pod)
    }

    fn uncount(&mut self, controller: &Arc<str>, id: NodeId) {
        let Some(nodes) = self.by_controller.get_mut(controller) else { return };
        if let Some(count) = nodes.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                nodes.remove(&id);
            }
        }
        if nodes.is_empty() {
            self.by_controller.remove(controller);
        }
    }

    /// Keeps room on a node for a pod that waits for others to leave it.
    pub fn nominate(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.withdraw(&pod.uid);
        if let Some(id) = self.by_name.get(node) {
            self.slots[*id].nominated.push(pod.clone());
            self.nominations.insert(pod.uid.clone(), *id);
        }
    }

    /// Ends a nomination.
    pub fn withdraw(&mut self, uid: &PodUid) {
        if let Some(id) = self.nominations.remove(uid) {
            self.slots[id].nominated.retain(|pod| pod.uid != *uid);
        }
    }

    /// Nodes that exist.
    pub fn len(&self) -> usize {
        self.present
    }

    pub fn is_empty(&self) -> bool {
        self.present == 0
    }

    pub fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// The node in a slot, if one exists there.
    pub fn at(&self, id: NodeId) -> Option<&NodeState> {
        self.slots.get(id).filter(|state| state.present)
    }

    pub fn get(&self, name: &str) -> Option<&NodeState> {
        self.by_name.get(name).and_then(|id| self.at(*id))
    }

    pub fn iter(&self) -> impl Iterator<Item = &NodeState> {
        self.slots.iter().filter(|state| state.present)
    }

    /// Where a pod is placed, and as what.
    pub fn home(&self, uid: &PodUid) -> Option<(&NodeState, &Arc<PodInfo>)> {
        let state = &self.slots[*self.homes.get(uid)?];
        Some((state, state.pods.get(uid)?))
    }

    pub fn pod_count(&self) -> usize {
        self.homes.len()
    }

    /// Placed pods of a namespace, with their nodes.
    pub fn in_namespace(&self, name: &str) -> impl Iterator<Item = (&NodeState, &Arc<PodInfo>)> {
        self.by_namespace.get(name).into_iter().flatten().filter_map(|uid| self.home(uid))
    }

    /// All placed pods, with their nodes.
    pub fn placed(&self) -> impl Iterator<Item = (&NodeState, &Arc<PodInfo>)> {
        self.iter().flat_map(|state| state.pods.values().map(move |pod| (state, pod)))
    }

    pub fn with_pod_rules(&self) -> impl Iterator<Item = (&NodeState, &Arc<PodInfo>)> {
        self.with_pod_rules.iter().filter_map(|uid| self.home(uid))
    }

    pub fn of_controller(&self, controller: &str) -> Option<&HashMap<NodeId, u32>> {
        self.by_controller.get(controller)
    }

    fn slot(&mut self, name: &str) -> NodeId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(NodeState::default());
            self.slots.len() - 1
        });
        let name: Arc<str> = name.into();
        self.slots[id].id = id;
        self.slots[id].info.name = name.clone();
        self.by_name.insert(name, id);
        id
    }

    /// Frees a slot that neither a node nor a pod needs.
    fn release(&mut self, id: NodeId) {
        let state = &self.slots[id];
        if !state.present && state.pods.is_empty() {
            self.by_name.remove(&state.info.name);
            self.slots[id] = NodeState::default();
            self.free.push(id);
        }
    }
}

//! Whether this node takes a pod that was bound to it. The scheduler has looked already, but whoever sets
//! `spec.nodeName` goes past it, and two schedulers may not know of each other.
//!
//! Reasons and messages are upstream's (`pkg/kubelet/lifecycle/predicate.go`): `OutOfpods`, `OutOfcpu`, `OutOfmemory`,
//! `NodeAffinity`, `NodePorts`. A pod that is refused has failed; its controller makes another one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use skiff_proto::Quantity;
use skiff_proto::model::{Container, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec};

use crate::pod::context::NodeSize;
use crate::status::Waiting;

/// What the node has to give.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    pub size: NodeSize,
    pub pods: u32,
}

/// The pods that this node has taken and that still need their share of it.
#[derive(Default)]
pub struct Admission {
    taken: Mutex<HashMap<String, Arc<Pod>>>,
}

impl Admission {
    /// Takes the pod, or says why not. `labels` are the node's; none where they could not be read.
    pub fn admit(
        &self,
        pod: &Arc<Pod>,
        capacity: Capacity,
        node_name: &str,
        labels: Option<&BTreeMap<String, String>>,
    ) -> Result<(), Waiting> {
        let uid = &pod.metadata.uid;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let others: Vec<&Pod> =
            taken.iter().filter(|(other, _)| *other != uid).map(|(_, pod)| &**pod).collect();
        check(pod, &others, capacity, node_name, labels)?;
        taken.insert(uid.clone(), pod.clone());
        Ok(())
    }

    /// A pod that runs already, from before this process: it has its share, whatever the node has left.
    pub fn take_up(&self, pod: &Arc<Pod>) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.insert(pod.metadata.uid.clone(), pod.clone());
    }

    /// The pod has ended or is gone.
    pub fn release(&self, uid: &str) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// The unit in which a resource is counted.
type Read = fn(&Quantity) -> i64;

/// Whether the node's labels matter to the pod at all.
pub fn asks_for_labels(pod: &Pod) -> bool {
    !pod.spec.node_selector.is_empty() || required_terms(&pod.spec).is_some()
}

fn check(
    pod: &Pod,
    others: &[&Pod],
    capacity: Capacity,
    node_name: &str,
    labels: Option<&BTreeMap<String, String>>,
) -> Result<(), Waiting> {
    let lacks = |name: &str, requested: i64, used: i64, capacity: i64| {
        let text = format!(
            "Pod was rejected: Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Waiting::new(&format!("OutOf{name}"), text)
    };
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    if count + 1 > i64::from(capacity.pods) {
        return Err(lacks("pods", 1, count, i64::from(capacity.pods)));
    }
    let resources: [(&str, i64, Read); 2] = [
        ("cpu", capacity.size.milli_cpu, Quantity::milli),
        ("memory", capacity.size.memory_bytes, Quantity::value),
    ];
    for (name, total, read) in resources {
        let requested = request(&pod.spec, name, read);
        let used: i64 = others.iter().map(|other| request(&other.spec, name, read)).sum();
        // A pod that asks for nothing finds room on a full node.
        if requested > 0 && requested + used > total {
            return Err(lacks(name, requested, used, total));
        }
    }
    let failed = |predicate: &str, why: &str| {
        Waiting::new(predicate, format!("Pod was rejected: Predicate {predicate} failed: {why}"))
    };
    if labels.is_some_and(|labels| !matches_node(&pod.spec, node_name, labels)) {
        return Err(failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"));
    }
    let wanted = ports(&pod.spec);
    let taken = |port: &HostPort| others.iter().flat_map(|o| ports(&o.spec)).any(|o| o.meets(port));
    if wanted.iter().any(taken) {
        let why = "node(s) didn't have free ports for the requested pod ports";
        return Err(failed("NodePorts", why));
    }
    Ok(())
}

/// What the pod may need at one time: its containers and sidecars together, or its largest init container.
fn request(spec: &PodSpec, name: &str, read: Read) -> i64 {
    let of = |c: &Container| {
        let found = c.resources.requests.get(name).or_else(|| c.resources.limits.get(name));
        found.map_or(0, read)
    };
    let (mut beside, mut init) = (0, 0);
    for container in &spec.init_containers {
        if container.restart_policy == "Always" {
            beside += of(container);
            init = init.max(beside);
        } else {
            init = init.max(beside + of(container));
        }
    }
    let main: i64 = spec.containers.iter().map(of).sum();
    (main + beside).max(init) + spec.overhead.get(name).map_or(0, read)
}

struct HostPort<'a> {
    ip: &'a str,
    protocol: &'a str,
    port: u16,
}

impl HostPort<'_> {
    fn meets(&self, other: &HostPort<'_>) -> bool {
        let all = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
        self.port == other.port
            && self.protocol == other.protocol
            && (all(self.ip) || all(other.ip) || self.ip == other.ip)
    }
}

fn ports(spec: &PodSpec) -> Vec<HostPort<'_>> {
    let sidecars = spec.init_containers.iter().filter(|c| c.restart_policy == "Always");
    let asked = spec.containers.iter().chain(sidecars).flat_map(|c| &c.ports);
    let port = |p: &skiff_proto::model::ContainerPort| match p.host_port {
        0 if spec.host_network => p.container_port,
        port => port,
    };
    let described = asked.map(|p| HostPort {
        ip: &p.host_ip,
        protocol: if p.protocol.is_empty() { "TCP" } else { &p.protocol },
        port: port(p),
    });
    described.filter(|p| p.port != 0).collect()
}

fn required_terms(spec: &PodSpec) -> Option<&[NodeSelectorTerm]> {
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    Some(&required.node_selector_terms)
}

fn matches_node(spec: &PodSpec, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let selected = spec.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value));
    let term = |term: &NodeSelectorTerm| {
        let (labelled, fields) = (&term.match_expressions, &term.match_fields);
        // A term without any requirement matches nothing.
        !(labelled.is_empty() && fields.is_empty())
            && labelled.iter().all(|r| holds(r, labels.get(&r.key).map(String::as_str)))
            && fields.iter().all(|r| r.key == "metadata.name" && holds(r, Some(name)))
    };
    selected && required_terms(spec).is_none_or(|terms| terms.iter().any(term))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = &requirement.values;
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let bound = number(values.first().map(String::as_str));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values.iter().any(|one| one == value)),
        "NotIn" => value.is_none_or(|value| values.iter().all(|one| one != value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value).zip(bound).is_some_and(|(value, bound)| value > bound),
        "Lt" => number(value).zip(bound).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const CAPACITY: Capacity =
        Capacity { size: NodeSize { milli_cpu: 2000, memory_bytes: 1 << 30 }, pods: 3 };

    fn pod(uid: &str, spec: Value) -> Arc<Pod> {
        let mut pod =
            json!({"metadata": {"name": uid, "uid": uid}, "spec": {"containers": [{"name": "c"}]}});
        for (key, value) in spec.as_object().expect("an object") {
            pod["spec"][key] = value.clone();
        }
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn cpu(uid: &str, cpu: &str) -> Arc<Pod> {
        pod(uid, json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}))
    }

    #[track_caller]
    fn check(taken: &[Arc<Pod>], asked: &Arc<Pod>, expect: &str) {
        let admission = Admission::default();
        taken.iter().for_each(|pod| admission.take_up(pod));
        let labels = BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]);
        let said = admission.admit(asked, CAPACITY, "node-1", Some(&labels));
        let said =
            said.map_or_else(|why| format!("{}: {}", why.reason, why.message), |()| "taken".into());
        assert_eq!(said, expect);
    }

    #[test]
    fn a_full_node_takes_no_more() {
        let three = [cpu("a", "500m"), cpu("b", "500m"), cpu("c", "500m")];
        check(
            &three,
            &cpu("d", "0"),
            "OutOfpods: Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3",
        );
        check(&three, &three[0], "taken");
        check(&three[..2], &cpu("d", "1"), "taken");
        check(
            &three[..2],
            &cpu("d", "1500m"),
            "OutOfcpu: Pod was rejected: Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000",
        );
        check(&[cpu("a", "3")], &cpu("d", "0"), "taken");
        let memory = pod(
            "m",
            json!({"initContainers": [{"name": "i", "resources": {"requests": {"memory": "2Gi"}}}]}),
        );
        check(
            &[],
            &memory,
            "OutOfmemory: Pod was rejected: Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824",
        );
    }

    #[test]
    fn ports_of_the_node_are_taken_once() {
        let with = |uid: &str, ip: &str, protocol: &str| {
            pod(
                uid,
                json!({"containers": [{"name": "c", "ports": [
                {"containerPort": 80, "hostPort": 8080, "hostIP": ip, "protocol": protocol}]}]}),
            )
        };
        let refused = "NodePorts: Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        check(&[with("a", "", "TCP")], &with("b", "10.0.0.1", "TCP"), refused);
        check(&[with("a", "10.0.0.2", "TCP")], &with("b", "10.0.0.1", "TCP"), "taken");
        check(&[with("a", "", "UDP")], &with("b", "", "TCP"), "taken");
        let host = json!({"hostNetwork": true, "containers": [{"name": "c", "ports": [{"containerPort": 8080}]}]});
        check(&[with("a", "", "")], &pod("b", host), refused);
    }

    #[test]
    fn labels_and_names() {
        let refused = "NodeAffinity: Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        check(&[], &pod("a", json!({"nodeSelector": {"disk": "ssd"}})), "taken");
        check(&[], &pod("a", json!({"nodeSelector": {"disk": "hdd"}})), refused);
        let affinity = |term: Value| {
            pod(
                "a",
                json!({"affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}}),
            )
        };
        let expression = |operator: &str, values: Value| {
            affinity(
                json!({"matchExpressions": [{"key": "disk", "operator": operator, "values": values}]}),
            )
        };
        check(&[], &expression("NotIn", json!(["ssd"])), refused);
        check(&[], &expression("Exists", json!([])), "taken");
        check(
            &[],
            &affinity(
                json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}),
            ),
            "taken",
        );
        check(&[], &affinity(json!({})), refused);
    }

    #[test]
    fn what_has_ended_gives_its_share_back() {
        let admission = Admission::default();
        admission.admit(&cpu("a", "2"), CAPACITY, "n", None).expect("room");
        assert!(admission.admit(&cpu("b", "1"), CAPACITY, "n", None).is_err());
        admission.release("a");
        admission.admit(&cpu("b", "1"), CAPACITY, "n", None).expect("room again");
    }
}

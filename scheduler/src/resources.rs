//! Amounts of resources as integers, so that placing a pod on a node is a few additions.

use std::collections::BTreeMap;

use skiff_proto::Quantity;
use skiff_proto::model::{Container, PodSpec};

/// What a container without a request is taken for when nodes are scored, as upstream:
/// otherwise pods without requests would all pile up on one node.
pub const DEFAULT_MILLI_CPU: i64 = 100;
pub const DEFAULT_MEMORY_BYTES: i64 = 200 << 20;

/// CPU in thousandths, memory and ephemeral storage in bytes, all else in whole units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    /// Extended resources and hugepages, by name. Almost always empty.
    pub scalars: Vec<(Box<str>, i64)>,
}

impl Resources {
    /// Reads a resource list; `pods` is not among these, a node holds it apart.
    pub fn from_list(list: &BTreeMap<String, Quantity>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list {
            match name.as_str() {
                "cpu" => resources.milli_cpu = quantity.milli(),
                "memory" => resources.memory = quantity.value(),
                "ephemeral-storage" => resources.ephemeral_storage = quantity.value(),
                "pods" => {}
                _ => resources.scalars.push((name.as_str().into(), quantity.value())),
            }
        }
        resources
    }

    pub fn scalar(&self, name: &str) -> i64 {
        self.scalars.iter().find(|(n, _)| **n == *name).map_or(0, |(_, amount)| *amount)
    }

    pub fn add(&mut self, other: &Self) {
        self.combine(other, |a, b| a.saturating_add(b));
    }

    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, |a, b| a.saturating_sub(b));
    }

    /// The larger of both, each resource for itself.
    pub fn raise_to(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    pub fn is_zero(&self) -> bool {
        self.milli_cpu == 0
            && self.memory == 0
            && self.ephemeral_storage == 0
            && self.scalars.iter().all(|(_, amount)| *amount == 0)
    }

    fn combine(&mut self, other: &Self, with: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.scalars {
            match self.scalars.iter_mut().find(|(n, _)| n == name) {
                Some((_, mine)) => *mine = with(*mine, *amount),
                None => self.scalars.push((name.clone(), with(0, *amount))),
            }
        }
    }
}

/// What a pod needs at its peak. Init containers run one after another before the
/// containers; sidecars (init containers that restart) keep running beside all that follows:
///
/// ```text
/// init a=3          |###|
/// sidecar s=1           |#############…
/// init b=2              |##|             peak = max(3, 1+2, 1+containers) + overhead
/// containers=4             |####…
/// ```
pub fn pod_requests(spec: &PodSpec) -> Resources {
    peak(spec, |container| Resources::from_list(&container.resources.requests))
}

/// As `pod_requests`, with a default CPU and memory for containers that name none.
pub fn pod_requests_for_scoring(spec: &PodSpec) -> Resources {
    peak(spec, |container| {
        let requests = &container.resources.requests;
        let mut resources = Resources::from_list(requests);
        if !requests.contains_key("cpu") {
            resources.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if !requests.contains_key("memory") {
            resources.memory = DEFAULT_MEMORY_BYTES;
        }
        resources
    })
}

fn peak(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of(container));
    }
    let (mut sidecars, mut starting) = (Resources::default(), Resources::default());
    for container in &spec.init_containers {
        let requests = of(container);
        if container.restart_policy == "Always" {
            running.add(&requests);
            sidecars.add(&requests);
            starting.raise_to(&sidecars);
        } else {
            let mut step = sidecars.clone();
            step.add(&requests);
            starting.raise_to(&step);
        }
    }
    running.raise_to(&starting);
    running.add(&Resources::from_list(&spec.overhead));
    running
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> PodSpec {
        serde_json::from_value(json).expect("a pod spec")
    }

    fn with(cpu: &str, restart: &str) -> serde_json::Value {
        serde_json::json!({"restartPolicy": restart, "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn the_peak_counts_init_containers_sidecars_and_overhead() {
        for (init, containers, overhead, milli_cpu) in [
            (vec![], vec![with("1", ""), with("500m", "")], "0", 1500),
            (vec![with("3", "")], vec![with("1", "")], "0", 3000),
            (vec![with("1", "Always")], vec![with("4", "")], "0", 5000),
            (vec![with("1", "Always"), with("6", "")], vec![with("4", "")], "0", 7000),
            (vec![with("6", ""), with("1", "Always")], vec![with("4", "")], "250m", 6250),
        ] {
            let pod = spec(serde_json::json!({
                "initContainers": init, "containers": containers, "overhead": {"cpu": overhead},
            }));
            assert_eq!(pod_requests(&pod).milli_cpu, milli_cpu, "{pod:?}");
        }
    }

    #[test]
    fn scoring_takes_a_default_for_what_is_not_named() {
        let pod = spec(serde_json::json!({"containers": [{}, with("1", "")]}));
        let scored = pod_requests_for_scoring(&pod);
        assert_eq!(scored.milli_cpu, 1100);
        assert_eq!(scored.memory, 2 * DEFAULT_MEMORY_BYTES);
        assert_eq!(pod_requests(&pod).memory, 0);
    }

    #[test]
    fn extended_resources_are_kept_by_name() {
        let pod = spec(serde_json::json!({
            "containers": [{"resources": {"requests": {"example.com/gpu": "2"}}}],
        }));
        let mut used = pod_requests(&pod);
        assert_eq!(used.scalar("example.com/gpu"), 2);
        used.subtract(&used.clone());
        assert!(used.is_zero());
    }
}

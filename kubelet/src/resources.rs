//! Requests and limits as the kernel knows them: CPU shares and quota, memory limit, QoS
//! class and OOM score. Pure.

use std::collections::BTreeMap;

use skiff_proto::Quantity;
use skiff_proto::model::{Container, PodSpec};

use crate::ports::Resources;

/// The kernel refuses fewer.
pub const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
const SHARES_PER_CPU: i64 = 1024;
/// Period of the CPU bandwidth controller.
pub const PERIOD_MICROS: i64 = 100_000;
const MIN_QUOTA_MICROS: i64 = 1000;

/// How a pod is ranked when the node runs short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    /// As `status.qosClass` writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Guaranteed => "guaranteed",
            Self::Burstable => "burstable",
            Self::BestEffort => "besteffort",
        }
    }
}

fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().chain(&spec.containers)
}

/// Guaranteed: every container limits CPU and memory and requests as much. BestEffort: nobody
/// asks for either. Everything else is Burstable.
pub fn qos(spec: &PodSpec) -> Qos {
    let counts = |resources: &BTreeMap<String, Quantity>, name: &str| {
        resources.get(name).filter(|q| !q.is_zero()).cloned()
    };
    let mut any = false;
    let mut guaranteed = true;
    for container in all_containers(spec) {
        for name in ["cpu", "memory"] {
            let limit = counts(&container.resources.limits, name);
            let request = counts(&container.resources.requests, name);
            any |= limit.is_some() || request.is_some();
            // An absent request is defaulted to the limit.
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

pub fn shares(milli_cpu: i64) -> u64 {
    if milli_cpu <= 0 {
        return MIN_SHARES;
    }
    ((milli_cpu * SHARES_PER_CPU / 1000) as u64).clamp(MIN_SHARES, MAX_SHARES)
}

/// `None`: no limit.
pub fn quota_micros(milli_cpu: i64) -> Option<i64> {
    (milli_cpu > 0).then(|| (milli_cpu * PERIOD_MICROS / 1000).max(MIN_QUOTA_MICROS))
}

/// Who dies first when memory is short: between 2 and 999 by the share of memory requested,
/// -997 for Guaranteed, 1000 for BestEffort.
pub fn oom_score_adj(spec: &PodSpec, container: &Container, node_memory_bytes: i64) -> i32 {
    match qos(spec) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let request = request_of(container, "memory").map_or(0, |q| q.value());
            let capacity = node_memory_bytes.max(1);
            let adjust = 1000 - (1000i128 * i128::from(request) / i128::from(capacity)) as i64;
            // Guaranteed pods keep what lies below.
            adjust.clamp(1000 + -997, 999) as i32
        }
    }
}

/// A request, which defaults to the limit.
fn request_of<'a>(container: &'a Container, name: &str) -> Option<&'a Quantity> {
    container.resources.requests.get(name).or_else(|| container.resources.limits.get(name))
}

pub fn container(spec: &PodSpec, container: &Container, node_memory_bytes: i64) -> Resources {
    let limit = |name: &str| container.resources.limits.get(name).filter(|q| !q.is_zero());
    let quota = limit("cpu").and_then(|q| quota_micros(q.milli()));
    Resources {
        cpu_shares: Some(shares(request_of(container, "cpu").map_or(0, |q| q.milli()))),
        cpu_quota_micros: quota,
        cpu_period_micros: quota.map(|_| PERIOD_MICROS as u64),
        memory_limit_bytes: limit("memory").map(|q| q.value()),
        pids_limit: None,
        oom_score_adj: oom_score_adj(spec, container, node_memory_bytes),
    }
}

/// What the pod's own cgroup gets: the sum of its containers, limits only where all have one.
pub fn pod(spec: &PodSpec) -> Resources {
    let sum = |limits: bool, name: &str, read: fn(&Quantity) -> i64| {
        let of = |c: &Container| {
            let list = if limits { c.resources.limits.get(name) } else { request_of(c, name) };
            list.map(read)
        };
        let main: Option<i64> = spec.containers.iter().map(of).sum();
        let some: i64 = spec.containers.iter().filter_map(of).sum();
        let sidecars = spec.init_containers.iter().filter(|c| c.restart_policy == "Always");
        let beside: i64 = sidecars.clone().filter_map(of).sum();
        let init = spec.init_containers.iter().filter_map(of).max().unwrap_or(0);
        let complete = main.is_some() && spec.init_containers.iter().all(|c| of(c).is_some());
        let overhead = spec.overhead.get(name).map_or(0, read);
        ((some + beside).max(init) + overhead, complete)
    };
    let (requested, _) = sum(false, "cpu", Quantity::milli);
    let (cpu, cpu_complete) = sum(true, "cpu", Quantity::milli);
    let (memory, memory_complete) = sum(true, "memory", Quantity::value);
    let quota = if cpu_complete { quota_micros(cpu) } else { None };
    Resources {
        cpu_shares: Some(if qos(spec) == Qos::BestEffort { MIN_SHARES } else { shares(requested) }),
        cpu_quota_micros: quota,
        cpu_period_micros: quota.map(|_| PERIOD_MICROS as u64),
        memory_limit_bytes: (memory_complete && memory > 0).then_some(memory),
        pids_limit: None,
        oom_score_adj: 0,
    }
}

/// `/skiff/burstable/pod<uid>`
pub fn cgroup_parent(root: &str, spec: &PodSpec, uid: &str) -> String {
    format!("{root}/{}/pod{uid}", qos(spec).folder())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> PodSpec {
        serde_json::from_value(serde_json::json!({ "containers": json })).expect("a pod spec")
    }

    #[test]
    fn classes() {
        let case = |json, expected| assert_eq!(qos(&spec(json)), expected);
        case(serde_json::json!([{}]), Qos::BestEffort);
        case(serde_json::json!([{"resources": {"requests": {"cpu": "0"}}}]), Qos::BestEffort);
        case(serde_json::json!([{"resources": {"requests": {"cpu": "1"}}}]), Qos::Burstable);
        let both = serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        case(serde_json::json!([{ "resources": both }]), Qos::Guaranteed);
        case(serde_json::json!([{ "resources": both }, {}]), Qos::Burstable);
        let less = serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}});
        case(serde_json::json!([{ "resources": less }]), Qos::Burstable);
    }

    #[test]
    fn kernel_numbers() {
        let spec = spec(
            serde_json::json!([{"resources": {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m", "memory": "32Mi"}}}]),
        );
        let node = 1 << 30;
        assert_eq!(
            container(&spec, &spec.containers[0], node),
            Resources {
                cpu_shares: Some(256),
                cpu_quota_micros: Some(50_000),
                cpu_period_micros: Some(100_000),
                memory_limit_bytes: Some(64 << 20),
                pids_limit: None,
                oom_score_adj: 1000 - 31,
            }
        );
        assert_eq!(shares(0), 2);
        assert_eq!(shares(1), 2);
        assert_eq!(quota_micros(1), Some(1000));
        assert_eq!(quota_micros(0), None);
    }

    #[test]
    fn scores_by_upstream_bounds() {
        let one = |json| {
            let spec = spec(json);
            oom_score_adj(&spec, &spec.containers[0], 1000)
        };
        assert_eq!(one(serde_json::json!([{}])), 1000);
        assert_eq!(one(serde_json::json!([{"resources": {"requests": {"cpu": "1"}}}])), 999);
        assert_eq!(one(serde_json::json!([{"resources": {"requests": {"memory": "1000"}}}])), 3);
        assert_eq!(
            one(serde_json::json!([{"resources": {"limits": {"cpu": "1", "memory": "9"}}}])),
            -997
        );
    }

    #[test]
    fn a_pod_is_limited_only_when_all_its_containers_are() {
        let limited = serde_json::json!({"limits": {"cpu": "500m", "memory": "64Mi"}});
        let both =
            pod(&spec(serde_json::json!([{ "resources": limited }, { "resources": limited }])));
        assert_eq!(both.memory_limit_bytes, Some(128 << 20));
        assert_eq!(both.cpu_quota_micros, Some(100_000));
        assert_eq!(both.cpu_shares, Some(1024));
        let one = pod(&spec(serde_json::json!([{ "resources": limited }, {}])));
        assert_eq!((one.memory_limit_bytes, one.cpu_quota_micros), (None, None));
        assert_eq!(one.cpu_shares, Some(512));
    }
}

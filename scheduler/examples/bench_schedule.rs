//! Pure scheduling throughput over hollow nodes: no API, no binding, one thread.
//!
//! `cargo run --release -p skiff-scheduler --example bench_schedule [NODES PODS]...`

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use skiff_scheduler::nodes::NodeInfo;
use skiff_scheduler::pod::PodInfo;
use skiff_scheduler::{Decision, Scheduler, plugins};

fn hollow_node(n: usize) -> NodeInfo {
    let name = format!("hollow-{n}");
    let node = json!({
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name,
            "topology.kubernetes.io/zone": format!("zone-{}", n % 3),
        }},
        "status": {"allocatable": {"cpu": "32", "memory": "256Gi", "pods": "110"}},
    });
    NodeInfo::from_node(&serde_json::from_value(node).expect("a node"))
}

/// Pods of Deployments of 100 replicas each.
fn pod(n: usize, constrained: bool) -> Arc<PodInfo> {
    let app = format!("app-{}", n / 100);
    let spread = json!([{
        "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": app}},
    }]);
    let pod = json!({
        "metadata": {
            "name": format!("pod-{n}"), "namespace": app, "uid": format!("uid-{n}"),
            "labels": {"app": app},
            "ownerReferences": [{"uid": app, "controller": true}],
        },
        "spec": {
            "schedulerName": "default-scheduler",
            "containers": [{"resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}],
            "topologySpreadConstraints": if constrained { spread } else { json!([]) },
        },
    });
    Arc::new(PodInfo::from_pod(&serde_json::from_value(pod).expect("a pod")))
}

fn measure(nodes: usize, pods: usize, constrained: bool) {
    let mut scheduler = Scheduler::new("default-scheduler", plugins::default_profile(), 1);
    for n in 0..nodes {
        scheduler.set_node(hollow_node(n), Duration::ZERO);
    }
    let pods: Vec<_> = (0..pods).map(|n| pod(n, constrained)).collect();
    let begin = Instant::now();
    let mut placed = 0;
    let mut slowest = Duration::ZERO;
    for pod in &pods {
        let one = Instant::now();
        scheduler.set_pod(pod.clone(), begin.elapsed());
        if let Some(Decision::Bind { pod, node }) = scheduler.decide(begin.elapsed()) {
            let bound = PodInfo { node_name: node.to_string(), ..(*pod).clone() };
            scheduler.set_pod(Arc::new(bound), begin.elapsed());
            placed += 1;
        }
        slowest = slowest.max(one.elapsed());
    }
    let took = begin.elapsed();
    println!(
        "{nodes:>6} nodes {:>7} pods {:<11} {placed:>7} placed in {:>7.2} s: {:>8.0} pods/s, slowest {:.2} ms",
        pods.len(),
        if constrained { "zone spread" } else { "plain" },
        took.as_secs_f64(),
        pods.len() as f64 / took.as_secs_f64(),
        slowest.as_secs_f64() * 1e3,
    );
}

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let default = [100, 10_000, 5_000, 20_000];
    let sizes = if numbers.is_empty() { &default[..] } else { &numbers };
    for size in sizes.chunks_exact(2) {
        measure(size[0], size[1], false);
        measure(size[0], size[1], true);
    }
}

//! How long pods take to start, on this machine, with a private containerd:
//! `cargo run --release -p skiff-kubelet --example runtime_start -- [PODS]`
//! One pod at a time first, then all at once.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use skiff_kubelet::ports::Runtime;
use support::Host;

const SINGLE: usize = 10;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let pods = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(20);
    let begun = Instant::now();
    let host = Host::start().await;
    println!("containerd up and image imported: {:?}", begun.elapsed());
    let mut steps = [Vec::new(), Vec::new(), Vec::new()];
    for number in 0..SINGLE {
        let took = one(&host, &format!("single{number}")).await;
        steps.iter_mut().zip(took).for_each(|(step, took)| step.push(took));
    }
    for (name, step) in ["run_sandbox", "create_container", "start_container"].iter().zip(&mut steps) {
        println!("one pod, {name}: {}", summary(step));
    }
    let begun = Instant::now();
    let all = (0..pods).map(|number| {
        let host = &host;
        async move {
            one(host, &format!("many{number}")).await;
            begun.elapsed()
        }
    });
    let mut took = join_all(all).await;
    println!("{pods} pods at once: {}", summary(&mut took));
    let begun = Instant::now();
    let (sandboxes, containers) = host.runtime.state().await.expect("a state");
    println!("state of {} sandboxes, {} containers: {:?}", sandboxes.len(), containers.len(), begun.elapsed());
    let mut execs = Vec::new();
    for _ in 0..SINGLE {
        let begun = Instant::now();
        host.exec(&containers[0].id, &["true"], None).await;
        execs.push(begun.elapsed());
    }
    println!("exec: {}", summary(&mut execs));
    let begun = Instant::now();
    for result in join_all(sandboxes.iter().map(|sandbox| host.runtime.remove_sandbox(&sandbox.id))).await {
        result.expect("removed");
    }
    println!("removed all: {:?}", begun.elapsed());
}

async fn one(host: &Host, name: &str) -> [Duration; 3] {
    let begun = Instant::now();
    let sandbox = host.runtime.run_sandbox(&host.sandbox(name)).await.expect("a sandbox");
    let sandboxed = begun.elapsed();
    let container = host.container(name, "app", &["sleep", "1000"]);
    let id = host.runtime.create_container(&sandbox, &container).await.expect("a container");
    let created = begun.elapsed();
    host.runtime.start_container(&id).await.expect("started");
    [sandboxed, created - sandboxed, begun.elapsed() - created]
}

fn summary(took: &mut [Duration]) -> String {
    took.sort();
    format!("median {:?}, most {:?}", took[took.len() / 2], took[took.len() - 1])
}

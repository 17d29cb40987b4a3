//! How long pods take to start, on this machine, with a private containerd:
//! `cargo run --release -p skiff-kubelet --example runtime_start -- [PODS]`
//! One pod at a time first, then all at once. With a second argument `pinned`: sandboxes without a pause
//! program (and pods with network namespaces of their own, all the same empty one).

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use skiff_kubelet::ports::{Runtime, SandboxConfig};
use skiff_kubelet::runtime::Pause;
use support::Host;

const SINGLE: usize = 10;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let pods = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(20);
    let begun = Instant::now();
    let pinned = std::env::args().nth(2).is_some_and(|text| text == "pinned");
    let pause = if pinned { Pause::WhenShared } else { Pause::Always };
    let host = Host::start_with(|config| config.pause = pause).await;
    let namespace = support::make_network_namespace(&host.dir.join("net"));
    println!("containerd up and image imported: {:?}", begun.elapsed());
    let mut steps = [Vec::new(), Vec::new(), Vec::new()];
    for number in 0..SINGLE {
        let took = one(&host, &namespace, &format!("single{number}")).await;
        steps.iter_mut().zip(took).for_each(|(step, took)| step.push(took));
    }
    for (name, step) in
        ["run_sandbox", "create_container", "start_container"].iter().zip(&mut steps)
    {
        println!("one pod, {name}: {}", summary(step));
    }
    let begun = Instant::now();
    let all = (0..pods).map(|number| {
        let (host, namespace) = (&host, &namespace);
        async move {
            one(host, namespace, &format!("many{number}")).await;
            begun.elapsed()
        }
    });
    let mut took = join_all(all).await;
    println!("{pods} pods at once: {}", summary(&mut took));
    let begun = Instant::now();
    let (sandboxes, containers) = host.runtime.state().await.expect("a state");
    println!(
        "state of {} sandboxes, {} containers: {:?}",
        sandboxes.len(),
        containers.len(),
        begun.elapsed()
    );
    let mut execs = Vec::new();
    for _ in 0..SINGLE {
        let begun = Instant::now();
        host.exec(&containers[0].id, &["true"], None).await;
        execs.push(begun.elapsed());
    }
    println!("exec: {}", summary(&mut execs));
    let begun = Instant::now();
    for result in
        join_all(sandboxes.iter().map(|sandbox| host.runtime.remove_sandbox(&sandbox.id))).await
    {
        result.expect("removed");
    }
    println!("removed all: {:?}", begun.elapsed());
}

async fn one(host: &Host, namespace: &Path, name: &str) -> [Duration; 3] {
    let begun = Instant::now();
    let config =
        SandboxConfig { network_namespace: Some(namespace.to_path_buf()), ..host.sandbox(name) };
    let sandbox = host.runtime.run_sandbox(&config).await.expect("a sandbox");
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

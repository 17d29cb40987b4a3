//! The main path, as a new user walks it: the demo answers through ClusterIP, NodePort and
//! Ingress; traffic recovers from scaling, a rollout, its undo, a deleted pod, and kill -9 of
//! the server; at the end nothing is left on the host.

use std::collections::BTreeSet;
use std::time::Duration;

use skiff_e2e::cluster::{Cluster, root};
use skiff_e2e::eventually;

const SOON: Duration = Duration::from_secs(30);

/// The three ways to the demo's web server.
struct Ways {
    inside_pod: String,
    cluster_ip: String,
    node_port: String,
    ingress: String,
}

impl Ways {
    fn find(cluster: &Cluster) -> Self {
        let field = |args: &[&str]| cluster.skiff(args);
        let demo = ["-n", "demo", "get"];
        let get = |rest: &[&str]| field(&[&demo[..], rest].concat());
        Self {
            inside_pod: get(&["pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"]),
            cluster_ip: format!(
                "http://{}/",
                get(&["service", "web", "-o", "jsonpath={.spec.clusterIP}"])
            ),
            node_port: format!("http://{}:30080/", cluster.host.address),
            ingress: format!("http://{}/", cluster.host.address),
        }
    }

    fn ask(&self, cluster: &Cluster, way: usize) -> Result<String, String> {
        match way {
            0 => {
                let args = [
                    "-n",
                    "demo",
                    "exec",
                    &self.inside_pod,
                    "--",
                    "timeout",
                    "5",
                    "wget",
                    "-qO-",
                    &self.cluster_ip,
                ];
                let done = cluster.try_skiff(&args);
                match done.status.success() {
                    true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
                    false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
                }
            }
            1 => cluster.http(&self.node_port, None),
            _ => cluster.http(&self.ingress, Some("web.demo.test")),
        }
    }
}

/// All pods of the Deployment, and nobody else, answer in each way.
fn all_answer(cluster: &Cluster, version: &str) {
    let ways = Ways::find(cluster);
    let names = cluster.skiff(&[
        "-n",
        "demo",
        "get",
        "pods",
        "-l",
        "app=web",
        "-o",
        "jsonpath={.items[*].metadata.name}",
    ]);
    let expected: BTreeSet<String> =
        names.split(' ').map(|name| format!("hello from {name} (version {version})")).collect();
    for way in 0..3 {
        let mut seen = BTreeSet::new();
        eventually(&format!("answers of all pods, way {way}"), SOON, || {
            seen.insert(ways.ask(cluster, way)?.trim().to_owned());
            if expected.is_subset(&seen) {
                Ok(())
            } else {
                Err(format!("expected {expected:?}, seen {seen:?}"))
            }
        });
    }
}

fn rolled_out(cluster: &Cluster) {
    let text =
        cluster.skiff(&["-n", "demo", "rollout", "status", "deployment/web", "--timeout", "60s"]);
    assert!(text.contains("successfully rolled out"), "{text}");
    // Pods of the old ReplicaSet may still be ending.
    eventually("only pods that stay", SOON, || {
        let pods = cluster.skiff(&["-n", "demo", "get", "pods", "--no-headers"]);
        if pods.lines().all(|l| l.contains("Running")) { Ok(()) } else { Err(pods) }
    });
}

#[test]
fn the_demo_answers_and_recovers_and_leaves_nothing() {
    let mut cluster = Cluster::with_images("demo");
    let demo = root().join("deploy/demo/demo.yaml").display().to_string();
    cluster.skiff(&["apply", "-f", &demo]);
    rolled_out(&cluster);
    all_answer(&cluster, "1");
    let again = cluster.skiff(&["apply", "-f", &demo]);
    assert!(again.lines().all(|line| line.ends_with("unchanged")), "{again}");

    cluster.skiff(&["-n", "demo", "scale", "deployment/web", "--replicas", "4"]);
    rolled_out(&cluster);
    all_answer(&cluster, "1");

    cluster.skiff(&["-n", "demo", "set", "image", "deployment/web", "web=skiff.local/demo-web:2"]);
    rolled_out(&cluster);
    all_answer(&cluster, "2");

    cluster.skiff(&["-n", "demo", "rollout", "undo", "deployment/web"]);
    rolled_out(&cluster);
    all_answer(&cluster, "1");

    let pod = Ways::find(&cluster).inside_pod;
    cluster.skiff(&["-n", "demo", "delete", "pod", &pod]);
    rolled_out(&cluster);
    all_answer(&cluster, "1");

    server_killed(&mut cluster);
    nothing_left(cluster);
}

/// Containers and rules outlive the server, and the next one takes them up again.
fn server_killed(cluster: &mut Cluster) {
    let started = "jsonpath={.items[*].status.containerStatuses[0].state.running.startedAt}";
    let before = cluster.skiff(&["-n", "demo", "get", "pods", "-l", "app=web", "-o", started]);
    let ways = Ways::find(cluster);
    cluster.kill_server();
    for _ in 0..10 {
        ways.ask(cluster, 1).expect("the NodePort answers without a server");
    }
    cluster.start_server();
    cluster.wait_ready();
    rolled_out(cluster);
    all_answer(cluster, "1");
    let after = cluster.skiff(&["-n", "demo", "get", "pods", "-l", "app=web", "-o", started]);
    assert_eq!(before, after, "no container was started anew");
}

fn nothing_left(mut cluster: Cluster) {
    cluster.stop_server();
    let before = cluster.host.network_state();
    assert!(
        before.contains("skiff0") && before.contains("SKIFF"),
        "rules and links outlive the server: {before}"
    );
    let done = cluster.clean_up();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{said}");
    let after = cluster.host.network_state();
    assert!(
        !after.contains("skiff") && !after.contains("SKIFF") && !after.contains("veth"),
        "{after}"
    );
    let dir = cluster.dir.path().display().to_string();
    let mounts = std::fs::read_to_string("/proc/mounts").expect("reads");
    assert!(!mounts.contains(&dir), "mounts are left:\n{mounts}");
    let processes = processes_about(&dir);
    assert!(processes.is_empty(), "processes are left: {processes:?}");
    for name in ["data", "run", "pods", "kubeconfig"] {
        assert!(!cluster.path(name).exists(), "{name} is left");
    }
}

/// Command lines that mention the cluster's folder, but for this test's own.
fn processes_about(dir: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("reads").flatten() {
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(dir) {
            found.push(line);
        }
    }
    found
}

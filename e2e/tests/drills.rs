//! Drills: what happens to a node in its life. Each ends with every pod that was asked for running once, reachable, and
//! nothing left of what is gone.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skiff_e2e::cluster::Cluster;
use skiff_e2e::eventually;
use skiff_e2e::reboot::{mounts_under, processes_of};

const SOON: Duration = Duration::from_secs(60);
/// Pods of each round in which the server is killed while they start.
const PODS: usize = 3;

const WEB: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: web, image: "skiff.local/demo-web:1", ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30090}]}
---
apiVersion: v1
kind: Pod
metadata: {name: door, labels: {app: door}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: web, image: "skiff.local/demo-web:1", ports: [{containerPort: 8080, hostPort: 18081}]}]
"#;

#[test]
fn a_node_survives_what_happens_to_it() {
    let mut cluster = Cluster::with_images("drill");
    cluster.apply(WEB);
    everything_answers(&cluster);
    host_ports_are_taken_once(&cluster);
    rules_are_flushed(&cluster);
    containerd_is_killed(&cluster);
    the_server_is_killed_while_pods_start(&mut cluster);
    the_host_loses_power(&mut cluster);
    a_host_port_goes_with_its_pod(&cluster);
}

fn field(cluster: &Cluster, args: &[&str], path: &str) -> String {
    let template = format!("jsonpath={path}");
    cluster.skiff(&[&["get"], args, &["-o", &template]].concat())
}

fn answers(cluster: &Cluster, port: u16) -> Result<(), String> {
    let text = cluster.http(&format!("http://{}:{port}/", cluster.host.address), None)?;
    if text.contains("version 1") { Ok(()) } else { Err(text) }
}

/// Two replicas and the pod with a port of the node, ready; the Service and that port answer.
fn everything_answers(cluster: &Cluster) {
    cluster.wait_field(&["deployment", "web"], "{.status.readyReplicas}", "2", SOON);
    cluster.wait_field(&["pod", "door"], "{.status.phase}", "Running", SOON);
    for port in [30090, 18081] {
        eventually(&format!("an answer on port {port}"), SOON, || answers(cluster, port));
    }
}

fn starts(cluster: &Cluster) -> String {
    field(
        cluster,
        &["pods"],
        "{range .items[*]}{.metadata.name}={.status.containerStatuses[0].state.running.startedAt}/{.status.containerStatuses[0].restartCount} {end}",
    )
}

/// The scheduler does not place it; who goes past the scheduler is refused by the node.
fn host_ports_are_taken_once(cluster: &Cluster) {
    let second = |name: &str, node: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{{node} containers: [{{name: c, image: \"skiff.local/demo-web:1\", ports: [{{containerPort: 8080, hostPort: 18081}}]}}]}}\n"
        )
    };
    cluster.apply(&second("waits", ""));
    eventually("the scheduler's reason", SOON, || {
        let text = cluster.skiff(&["describe", "pod", "waits"]);
        let why = "node(s) didn't have free ports for the requested pod ports";
        if text.contains(why) { Ok(()) } else { Err(text) }
    });
    cluster.apply(&second("refused", "nodeName: node-1,"));
    cluster.wait_field(&["pod", "refused"], "{.status.reason}", "NodePorts", SOON);
    cluster.wait_field(&["pod", "refused"], "{.status.phase}", "Failed", SOON);
    let shown = cluster.skiff(&["get", "pod", "refused", "--no-headers"]);
    assert!(shown.contains("NodePorts"), "{shown}");
    cluster.skiff(&["delete", "pod", "waits", "refused"]);
}

fn rules_are_flushed(cluster: &Cluster) {
    // Somebody outside the cluster, whom pods reach only with the node's own address.
    let gateway = field(cluster, &["pod", "door"], "{.status.hostIP}");
    let (net, last) = gateway.rsplit_once('.').expect("an IPv4 address");
    let outside = format!("{net}.{}", last.parse::<u8>().expect("a number") - 1);
    let listener = TcpListener::bind((outside.as_str(), 0)).expect("binds");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        use std::io::Write;
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\noutside");
        }
    });
    let url = format!("http://{outside}:{port}/");
    let leaves = || {
        let done = cluster.try_skiff(&["exec", "door", "--", "timeout", "2", "wget", "-qO-", &url]);
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        if text == "outside" { Ok(()) } else { Err(text) }
    };
    eventually("the way out", SOON, leaves);
    let done = cluster.host.run("iptables", &["-t", "nat", "-F"]);
    assert!(done.status.success());
    let begin = Instant::now();
    eventually("the Service after a flush", SOON, || answers(cluster, 30090));
    eventually("the host port after a flush", SOON, || answers(cluster, 18081));
    eventually("the way out after a flush", SOON, leaves);
    eprintln!("after iptables -t nat -F all ways were open again in {:?}", begin.elapsed());
}

fn containerd_pid(cluster: &Cluster) -> Result<i32, String> {
    let is_it = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(program).rsplit('/').next() == Some("containerd")
    };
    let all = processes_of(cluster.dir.path());
    all.into_iter().find(is_it).ok_or_else(|| "no containerd".to_owned())
}

fn containerd_is_killed(cluster: &Cluster) {
    let before = starts(cluster);
    let old = containerd_pid(cluster).expect("it runs");
    kill(Pid::from_raw(old), Signal::SIGKILL).expect("kills");
    answers(cluster, 30090).expect("the Service answers without containerd");
    eventually("another containerd", SOON, || match containerd_pid(cluster)? {
        pid if pid != old => Ok(()),
        _ => Err("still the old one".into()),
    });
    // Taken up again: an exec works, an end is heard of, and nothing was started anew.
    eventually("an exec", SOON, || {
        let done = cluster.try_skiff(&["exec", "door", "--", "echo", "hello"]);
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        if text == "hello\n" { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into()) }
    });
    assert_eq!(starts(cluster), before, "containers went on");
    // The command may well be gone before it can say so: its process 1 takes it along.
    let _ = cluster.try_skiff(&["exec", "door", "--", "kill", "1"]);
    let count = "{.status.containerStatuses[0].restartCount}";
    cluster.wait_field(&["pod", "door"], count, "1", SOON);
    everything_answers(cluster);
}

/// `kill -9` of the server at a random moment of each start. `SKIFF_SEED` replays, `SKIFF_ROUNDS` makes it longer.
fn the_server_is_killed_while_pods_start(cluster: &mut Cluster) {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = number("SKIFF_SEED", clock.expect("after 1970").as_millis() as u64);
    let rounds = number("SKIFF_ROUNDS", 4);
    eprintln!(
        "seed {seed}; again with: SKIFF_SEED={seed} SKIFF_ROUNDS={rounds} cargo test --workspace --test drills"
    );
    let mut random = seed | 1;
    for round in 0..rounds {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let delay = Duration::from_millis((random >> 33) % 1500);
        let pods: String = (0..PODS).map(|n| format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: r{round}-{n}, labels: {{app: round}}}}\nspec: {{terminationGracePeriodSeconds: 0, containers: [{{name: c, image: \"skiff.local/demo-web:1\", command: [sleep, \"77{round}{n}\"]}}]}}\n---\n"
        )).collect();
        cluster.apply(&pods);
        std::thread::sleep(delay);
        cluster.kill_server();
        cluster.start_server();
        cluster.wait_ready();
        for n in 0..PODS {
            let name = format!("r{round}-{n}");
            cluster.wait_field(&["pod", &name], "{.status.phase}", "Running", SOON);
        }
        everything_answers(cluster);
        nothing_twice(cluster, &format!("round {round}, killed after {delay:?}"));
    }
    cluster.skiff(&["delete", "pods", "-l", "app=round", "--grace-period", "0"]);
    eventually("the rounds' pods to go", SOON, || {
        let left = cluster.skiff(&["get", "pods", "-l", "app=round", "--no-headers"]);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    nothing_twice(cluster, "after the last round");
}

/// One sandbox, one address, one namespace for each pod, and one process for each container.
fn nothing_twice(cluster: &Cluster, when: &str) {
    eventually(&format!("nothing twice, nothing leaked ({when})"), SOON, || {
        let ips = field(cluster, &["pods"], "{.items[*].status.podIP}");
        let mut ips: Vec<&str> = ips.split_whitespace().collect();
        ips.sort_unstable();
        let leases = cluster.path("data/cni/networks/skiff");
        let files = std::fs::read_dir(&leases).map_err(|e| e.to_string())?.flatten();
        let mut leased: Vec<String> = files
            .map(|file| file.file_name().to_string_lossy().into_owned())
            .filter(|name| name.parse::<std::net::IpAddr>().is_ok())
            .collect();
        leased.sort_unstable();
        if leased != ips {
            return Err(format!("leased {leased:?}, used {ips:?}"));
        }
        let pinned = std::fs::read_dir(cluster.path("run/netns")).map_err(|e| e.to_string())?;
        let pinned = pinned.count();
        if pinned != ips.len() {
            return Err(format!("{pinned} namespaces for {} pods", ips.len()));
        }
        let links = cluster.host.run("ip", &["-o", "link", "show", "master", "skiff0"]);
        let links = String::from_utf8_lossy(&links.stdout).lines().count();
        if links != ips.len() {
            return Err(format!("{links} ports of the bridge for {} pods", ips.len()));
        }
        let mut sleeps: Vec<String> = processes_of(cluster.dir.path())
            .iter()
            .filter_map(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).ok())
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .filter(|line| line.starts_with("sleep 77"))
            .collect();
        let all = sleeps.len();
        sleeps.sort_unstable();
        sleeps.dedup();
        if sleeps.len() != all {
            return Err(format!("containers twice: {all} processes, {sleeps:?}"));
        }
        Ok(())
    });
}

/// Runtime state, links, rules, mounts and control groups gone; the data folder kept.
fn the_host_loses_power(cluster: &mut Cluster) {
    cluster.skiff(&["create", "configmap", "acknowledged", "--from-literal=a=b"]);
    let restarts =
        "{range .items[*]}{.metadata.name}={.status.containerStatuses[0].restartCount} {end}";
    let before = field(cluster, &["pods"], restarts);
    cluster.lose_power();
    assert!(mounts_under(&cluster.path("run")).is_empty());
    cluster.start_server();
    cluster.wait_ready();
    assert_eq!(field(cluster, &["configmap", "acknowledged"], "{.data.a}"), "b");
    // The same pods, each with its containers started once more.
    let expect: String = before
        .split_whitespace()
        .filter_map(|one| one.split_once('='))
        .map(|(name, count)| format!("{name}={} ", count.parse::<u32>().unwrap_or(0) + 1))
        .collect();
    eventually("restart counts", SOON, || {
        let now = field(cluster, &["pods"], restarts);
        if now == expect { Ok(()) } else { Err(format!("{now}, not {expect}")) }
    });
    everything_answers(cluster);
    let told = cluster.skiff(&["describe", "pod", "door"]);
    assert!(told.contains("SandboxChanged"), "{told}");
}

fn a_host_port_goes_with_its_pod(cluster: &Cluster) {
    cluster.skiff(&["delete", "pod", "door"]);
    eventually("the port to close", SOON, || match answers(cluster, 18081) {
        Ok(()) => Err("it still answers".into()),
        Err(_) => Ok(()),
    });
    let rules = cluster.host.run("iptables-save", &["-t", "nat"]);
    assert!(
        !String::from_utf8_lossy(&rules.stdout).contains("SKIFF-HP"),
        "rules of host ports are left"
    );
}

//! Bad input: one clear error that names the object and the field; the process goes on.

use skiff_e2e::cluster::{Cluster, binary};

const GOOD: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\ndata: {a: b}\n";

#[test]
fn each_fault_is_one_clear_error() {
    let cluster = Cluster::start_with("bad", &["--disable-agent"]);
    let said = |manifest: &str| cluster.apply_fails(manifest);

    let text = said("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndta: {a: b}\n");
    assert!(text.contains("unknown field \"dta\""), "{text}");

    let text = said(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {replicas: three, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}\n",
    );
    assert!(text.contains("spec.replicas") && text.contains("int32"), "{text}");

    let text = said("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Not_A_Label}\n");
    assert!(text.contains("metadata.name") && text.contains("RFC 1123 subdomain"), "{text}");

    let text = said("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: nowhere}\n");
    assert!(text.contains("namespaces \"nowhere\" not found"), "{text}");

    let text = said("apiVersion: v1\nkind: Widget\nmetadata: {name: x}\n");
    assert!(text.contains("no matches for kind \"Widget\" in version \"v1\""), "{text}");

    two_documents_one_broken(&cluster);
    immutable_fields(&cluster);

    // After all of that, the server still serves.
    assert!(
        cluster
            .apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: last}\n")
            .contains("configmap/last created")
    );
}

fn two_documents_one_broken(cluster: &Cluster) {
    let text = cluster.apply_fails(&format!("{GOOD}---\nkind: [broken\n"));
    assert!(text.contains("document 2"), "{text}");
    let there = cluster.skiff(&["get", "configmap", "good", "-o", "jsonpath={.data.a}"]);
    assert_eq!(there, "b", "the good document was applied");
}

fn immutable_fields(cluster: &Cluster) {
    let service = |ip: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}\n"
        )
    };
    cluster.apply(&service("10.43.0.99"));
    let text = cluster.apply_fails(&service("10.43.0.98"));
    assert!(text.starts_with("The Service \"s\" is invalid: "), "{text}");
    assert!(
        text.contains("spec.clusterIPs[0]") && text.contains("may not change once set"),
        "{text}"
    );
}

#[test]
fn a_port_already_taken_is_named_with_its_flag() {
    let cluster = Cluster::start_with("port", &["--disable-agent"]);
    let mut second = cluster.host.command(binary().to_str().expect("UTF-8"));
    second.arg("server").arg("--disable-agent");
    for name in ["data", "run", "log"] {
        let flag = format!("--{name}-dir");
        second.arg(flag).arg(cluster.path(&format!("second-{name}")));
    }
    second.arg("--write-kubeconfig").arg(cluster.path("second-kubeconfig"));
    let done = second.output().expect("starts");
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!done.status.success());
    let said: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    let why = "is another program using the port? Choose another with --store-listen-port";
    assert_eq!(said.len(), 1, "one error: {text}");
    assert!(said[0].contains("127.0.0.1:2379") && said[0].contains(why), "{text}");
}

#[test]
fn a_data_folder_in_use_is_refused() {
    let cluster = Cluster::start_with("lock", &["--disable-agent"]);
    let mut second = cluster.host.command(binary().to_str().expect("UTF-8"));
    second.args([
        "server",
        "--disable-agent",
        "--store-listen-port",
        "12379",
        "--https-listen-port",
        "16443",
    ]);
    second.arg("--data-dir").arg(cluster.path("data"));
    second.arg("--write-kubeconfig").arg(cluster.path("second-kubeconfig"));
    let done = second.output().expect("starts");
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!done.status.success());
    assert!(text.contains("another process"), "{text}");
}

#[test]
fn nobody_anonymous_is_let_in() {
    let cluster = Cluster::start_with("anon", &["--disable-agent"]);
    let text = std::fs::read_to_string(cluster.path("kubeconfig")).expect("reads");
    // What stands deeper than `user:` is its certificate and key.
    let mut lines: Vec<_> = text.lines().collect();
    let user = lines.iter().position(|line| line.trim() == "user:").expect("a user");
    let end = lines[user + 1..].iter().position(|line| !line.starts_with("    "));
    lines.splice(user..end.map_or(lines.len(), |n| user + 1 + n), ["  user: {}"]);
    let without = lines.join("\n");
    std::fs::write(cluster.path("anonymous"), without).expect("writes");
    let path = cluster.path("anonymous").display().to_string();
    let text = cluster.fails(&["--kubeconfig", &path, "get", "pods"]);
    assert!(text.contains("Unauthorized"), "{text}");
}

/// `skiff check | head -1`: nobody is bothered with a panic.
#[test]
fn a_reader_that_goes_away_ends_a_command_quietly() {
    use std::os::unix::process::ExitStatusExt;
    let mut command = std::process::Command::new(binary());
    command.arg("check").stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("starts");
    drop(child.stdout.take());
    let done = child.wait_with_output().expect("ends");
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
    assert_eq!(done.status.signal(), Some(nix::sys::signal::Signal::SIGPIPE as i32));
}

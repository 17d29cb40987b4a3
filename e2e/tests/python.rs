//! The gRPC API serves others: the Python example creates a Deployment, watches its pods
//! become Running and reads a log, with stubs made from `proto/`.

use std::path::Path;
use std::process::Command;

use skiff_e2e::cluster::{Cluster, root};
use skiff_e2e::images::WEB_1;

fn run(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(done.status.success(), "{command:?}: {text}");
    text
}

/// A Python with grpcio, and the stubs beside it.
fn python_with_stubs(dir: &Path) -> std::path::PathBuf {
    let venv = dir.join("venv");
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    let python = venv.join("bin/python");
    run(Command::new(&python).args(["-m", "pip", "install", "-q", "grpcio", "grpcio-tools"]));
    run(Command::new(&python)
        .args(["-m", "grpc_tools.protoc", "-I"])
        .arg(root().join("proto/protos"))
        .arg(format!("--python_out={}", dir.display()))
        .arg(format!("--grpc_python_out={}", dir.display()))
        .arg("skiff/api/v1/api.proto"));
    python
}

#[test]
fn a_python_client_deploys_watches_and_reads_logs() {
    let cluster = Cluster::with_images("python");
    let python = python_with_stubs(cluster.dir.path());
    let tls = cluster.path("data").join("tls");
    let mut example = cluster.host.command(python.to_str().expect("UTF-8"));
    example.env("PYTHONPATH", cluster.dir.path());
    example.arg(root().join("examples/python/deploy.py")).arg("127.0.0.1:6443");
    example.args(["cluster-ca.crt", "admin.crt", "admin.key"].map(|file| tls.join(file)));
    example.arg(WEB_1);
    let text = run(&mut example);
    assert!(text.contains("Running"), "{text}");
    assert!(text.contains("serving version 1 on 8080"), "{text}");
}

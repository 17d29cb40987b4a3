//! A cluster saved to one file and restored on another host: its objects are there, at their
//! revisions, and what the old cluster issued is still good.

use std::os::unix::fs::PermissionsExt as _;

use skiff_e2e::cluster::{Cluster, binary, folder};
use skiff_e2e::host::Host;

fn output(mut command: std::process::Command) -> (bool, String) {
    let done = command.output().expect("starts");
    let text = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn snapshot(host: &Host, args: &[&str]) -> (bool, String) {
    let mut command = host.command(binary().to_str().expect("UTF-8"));
    command.arg("snapshot").args(args);
    output(command)
}

#[track_caller]
fn good((done, text): (bool, String)) -> String {
    assert!(done, "{text}");
    text
}

#[test]
fn a_cluster_is_restored_on_another_host() {
    let old = Cluster::start_with("save", &["--disable-agent"]);
    old.skiff(&["create", "namespace", "kept"]);
    old.apply(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: kept}\nstringData: {a: b}\n",
    );
    let uid = ["-n", "kept", "get", "secret", "s", "-o", "jsonpath={.metadata.uid}"];
    let version =
        ["-n", "kept", "get", "secret", "s", "-o", "jsonpath={.metadata.resourceVersion}"];
    let before = (old.skiff(&uid), old.skiff(&version));

    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("backup.skiff").display().to_string();
    let data = old.path("data").display().to_string();
    let said = good(snapshot(&old.host, &["save", &file, "--data-dir", &data]));
    assert!(said.contains("Snapshot saved at") && said.contains("cluster-ca.key"), "{said}");
    let mode = std::fs::metadata(&file).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "keys are in it");
    let status = good(snapshot(&old.host, &["status", &file, "-o", "json"]));
    assert!(status.contains("\"store-ca.crt\""), "{status}");
    old.skiff(&["delete", "namespace", "kept", "--wait=false"]);

    let host = Host::new("restore");
    let restored = folder();
    let place = restored.path().join("data").display().to_string();
    good(snapshot(&host, &["restore", &file, "--data-dir", &place]));
    let (done, said) = snapshot(&host, &["restore", &file, "--data-dir", &place]);
    assert!(!done && said.contains("restore into an empty folder"), "{said}");
    let new = Cluster::start_on(host, restored, &["--disable-agent".to_owned()]);
    assert_eq!((new.skiff(&uid), new.skiff(&version)), before);
    let namespaces = new.skiff(&["get", "namespaces", "--no-headers"]);
    assert!(namespaces.contains("kept"), "{namespaces}");

    // The old kubeconfig's certificate is of the restored authority.
    let mut command = new.host.command(binary().to_str().expect("UTF-8"));
    command.env("KUBECONFIG", old.path("kubeconfig")).args(["-n", "kept", "get", "secret", "s"]);
    good(output(command));
}

#[test]
fn what_cannot_be_restored_is_one_clear_error() {
    let host = Host::new("snap-bad");
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let check = |args: &[&str], expect: &[&str]| {
        let (done, said) = snapshot(&host, args);
        assert!(!done, "{args:?} should fail: {said}");
        assert_eq!(said.trim().lines().count(), 1, "{said}");
        for part in expect {
            assert!(said.contains(part), "{part} not in {said}");
        }
    };
    std::fs::write(path("text"), "hello").expect("writes");
    check(&["status", &path("text")], &[&path("text"), "not a snapshot of this store"]);
    check(&["status", &path("nothing")], &[&path("nothing"), "open"]);
    let data = path("data");
    check(&["restore", &path("text"), "--data-dir", &data], &["not a snapshot"]);
    check(&["save", &path("new"), "--data-dir", &data], &["--data-dir", &data]);
    let (done, said) = snapshot(
        &host,
        &["save", &path("new"), "--store-only", "--endpoints", "http://127.0.0.1:1"],
    );
    assert!(!done && said.contains("--endpoints") && said.contains("http://127.0.0.1:1"), "{said}");
    assert!(!dir.path().join("data").exists() && !dir.path().join("new").exists());
}

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::json;

use super::*;

fn pod(volumes: serde_json::Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "labels": {"app": "x"}},
        "spec": {"securityContext": {"fsGroup": 1234}, "volumes": volumes, "containers": [{"name": "c"}]}
    }))
    .expect("a pod")
}

fn lookups() -> Lookups {
    let map = json!({"data": {"a.conf": "one", "b": "two"}, "binaryData": {"bin": "AAE="}});
    let secret = json!({"data": {"key": "c2VjcmV0"}});
    Lookups {
        config_maps: BTreeMap::from([("m".into(), serde_json::from_value(map).expect("a map"))]),
        secrets: BTreeMap::from([("s".into(), serde_json::from_value(secret).expect("a secret"))]),
    }
}

#[test]
fn real_volumes_come_and_go() {
    let dir = tempfile::tempdir().expect("a folder");
    let pod_dir = dir.path().join("pod");
    let pod = pod(json!([
        {"name": "disk", "emptyDir": {}},
        {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "cfg", "configMap": {"name": "m", "items": [{"key": "a.conf", "path": "etc/a.conf", "mode": 256}]}},
        {"name": "sec", "secret": {"secretName": "s", "defaultMode": 256}},
        {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "all", "projected": {"sources": [
            {"configMap": {"name": "m"}}, {"secret": {"name": "s"}},
            {"serviceAccountToken": {"path": "token"}},
            {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}
    ]));
    let places =
        set_up(&pod_dir, &pod, &lookups(), &Facts::default()).expect("sets up: needs root");
    let read = |volume: &str, file: &str| {
        std::fs::read_to_string(places[volume].join(file)).unwrap_or_else(|why| why.to_string())
    };
    assert_eq!(read("cfg", "etc/a.conf"), "one");
    assert!(!places["cfg"].join("b").exists());
    assert_eq!(read("sec", "key"), "secret");
    let file = std::fs::metadata(places["sec"].join("key")).expect("there");
    assert_eq!((file.permissions().mode() & 0o777, file.gid()), (0o440, 1234));
    assert_eq!(read("down", "labels"), "app=\"x\"");
    assert_eq!(
        (read("all", "name"), read("all", "b"), read("all", "key")),
        ("p".into(), "two".into(), "secret".into())
    );
    assert_eq!(std::fs::metadata(&places["disk"]).expect("there").gid(), 1234);
    assert!(mounts::is_mounted(&places["mem"]) && mounts::is_mounted(&places["sec"]));
    assert!(!mounts::is_mounted(&places["disk"]));

    std::fs::write(places["disk"].join("kept"), "x").expect("writes");
    set_up(&pod_dir, &pod, &lookups(), &Facts::default()).expect("again");
    assert!(places["disk"].join("kept").exists());

    tear_down(&pod_dir).expect("tears down");
    assert!(!pod_dir.exists());
    tear_down(&pod_dir).expect("nothing is fine");
}

#[test]
fn what_is_missing_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let fails = |volume: serde_json::Value| {
        set_up(dir.path(), &pod(json!([volume])), &lookups(), &Facts::default())
            .expect_err("fails")
            .to_string()
    };
    assert_eq!(
        fails(json!({"name": "v", "configMap": {"name": "no"}})),
        "MountVolume.SetUp failed for volume \"v\" : configmap \"no\" not found"
    );
    assert_eq!(
        fails(
            json!({"name": "v", "secret": {"secretName": "s", "items": [{"key": "no", "path": "x"}]}})
        ),
        "MountVolume.SetUp failed for volume \"v\" : references non-existent secret key: no"
    );
    assert!(fails(json!({"name": "v", "nfs": {}})).contains("no volume plugin matched"));
    let optional = pod(json!([{"name": "v", "configMap": {"name": "no", "optional": true}}]));
    assert!(set_up(dir.path(), &optional, &lookups(), &Facts::default()).is_ok());
}

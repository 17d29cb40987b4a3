//! Pods from binding to removal, over honest fakes of runtime, network and API. Needs root:
//! volumes and cgroups are real.

mod fakes;

use fakes::{Node, condition, container};
use serde_json::json;
use skiff_proto::resource::PODS;

fn one(args: serde_json::Value) -> serde_json::Value {
    json!({"containers": [{"name": "c", "image": "app:1", "args": args}], "terminationGracePeriodSeconds": 1})
}

#[tokio::test]
async fn a_bound_pod_runs_and_a_deleted_one_leaves_nothing() {
    let node = Node::start().await;
    node.configure("settings", ("mode", "fast"));
    node.bind("web", json!({
        "containers": [{"name": "c", "image": "app:1",
            "env": [{"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "volumeMounts": [{"name": "cfg", "mountPath": "/cfg"}, {"name": "scratch", "mountPath": "/s", "subPath": "a/b"}]}],
        "volumes": [{"name": "cfg", "configMap": {"name": "settings"}}, {"name": "scratch", "emptyDir": {}}]
    }));
    node.until_ready("web").await;
    let pod = node.pod("web").expect("the pod");
    let uid = pod["metadata"]["uid"].as_str().expect("a uid").to_owned();
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["podIP"], "10.42.0.2");
    assert_eq!(container(&pod, 0)["ready"], true);
    let config = &node.runtime.configs("c")[0];
    assert!(config.env.contains(&"MODE=fast".to_owned()), "{:?}", config.env);
    assert!(config.env.contains(&"IP=10.42.0.2".to_owned()), "{:?}", config.env);
    let places: Vec<&str> = config.mounts.iter().map(|m| m.container_path.as_str()).collect();
    assert_eq!(
        places,
        ["/cfg", "/s", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log"]
    );
    for event in [
        "Pulled Container image \"app:1\" already present on machine",
        "Created Created container: c",
        "Started Started container c",
    ] {
        node.until_event(event).await;
    }
    // Bound, running: a pod without probes needs no more writes.
    assert!(node.api.writes(&PODS, "web") <= 4, "{}", node.api.writes(&PODS, "web"));

    // A change of the ConfigMap reaches the volume.
    let file = config.mounts[0].host_path.join("mode");
    assert_eq!(std::fs::read_to_string(&file).expect("reads"), "fast");
    node.configure("settings", ("mode", "slow"));
    for _ in 0..1000 {
        if std::fs::read_to_string(&file).is_ok_and(|text| text == "slow") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(std::fs::read_to_string(&file).expect("reads"), "slow");

    node.delete("web", 1).await;
    node.until_gone("web").await;
    assert!(node.runtime.is_empty() && node.network.is_empty());
    node.until_event("Killing Stopping container c").await;
    for _ in 0..1000 {
        if !node.pod_dir(&uid).exists() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(!node.pod_dir(&uid).exists());
}

#[tokio::test]
async fn a_crashing_container_comes_back_once_and_then_waits() {
    let node = Node::start().await;
    node.bind("bad", one(json!(["exit", "3"])));
    node.until("bad", "in CrashLoopBackOff", |pod| {
        pod.is_some_and(|p| container(p, 0)["state"]["waiting"]["reason"] == "CrashLoopBackOff")
    })
    .await;
    let pod = node.pod("bad").expect("the pod");
    assert_eq!(container(&pod, 0)["restartCount"], 1);
    assert_eq!(container(&pod, 0)["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(pod["status"]["phase"], "Running");
    node.until_event("BackOff Back-off restarting failed container c in pod bad_default").await;
}

#[tokio::test]
async fn a_killed_container_is_restarted_and_a_finished_pod_is_not() {
    let node = Node::start().await;
    node.bind("web", one(json!(["run"])));
    node.until_ready("web").await;
    node.runtime.crash("c", 137);
    node.until("web", "restarted", |pod| {
        pod.is_some_and(|p| container(p, 0)["restartCount"] == 1 && condition(p, "Ready") == "True")
    })
    .await;
    let mut job = one(json!(["exit", "0"]));
    job["restartPolicy"] = "Never".into();
    node.bind("job", job);
    node.until("job", "Succeeded", |pod| pod.is_some_and(|p| p["status"]["phase"] == "Succeeded"))
        .await;
    assert_eq!(
        container(&node.pod("job").expect("the pod"), 0)["state"]["terminated"]["reason"],
        "Completed"
    );
}

#[tokio::test]
async fn a_restarted_kubelet_takes_up_what_runs_and_removes_what_was_deleted() {
    let mut node = Node::start().await;
    node.bind("keeps", one(json!(["run"])));
    node.bind("goes", one(json!(["run"])));
    node.until_ready("keeps").await;
    node.until_ready("goes").await;
    node.stop_kubelet().await;
    assert_eq!(node.runtime.running(), ["c#0", "c#0"]);
    node.api.remove(&PODS, "default", "goes");
    node.start_kubelet().await;
    // The stranger goes, the other is left alone.
    for _ in 0..1000 {
        if node.runtime.running().len() == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(node.runtime.running(), ["c#0"]);
    assert_eq!(container(&node.pod("keeps").expect("the pod"), 0)["restartCount"], 0);
    assert_eq!(node.runtime.configs("c").len(), 2);
}

#[tokio::test]
async fn after_a_reboot_pods_come_back_and_count_on() {
    let mut node = Node::start().await;
    node.bind("web", one(json!(["run"])));
    node.until_ready("web").await;
    node.stop_kubelet().await;
    node.runtime.forget_everything();
    node.start_kubelet().await;
    node.until("web", "running again", |pod| {
        pod.is_some_and(|p| container(p, 0)["restartCount"] == 1 && condition(p, "Ready") == "True")
    })
    .await;
    assert_eq!(node.runtime.running(), ["c#1"]);
}

#[tokio::test]
async fn a_missing_config_map_is_named_and_waited_for() {
    let node = Node::start().await;
    let mut spec = one(json!(["run"]));
    spec["volumes"] = json!([{"name": "cfg", "configMap": {"name": "late"}}]);
    node.bind("web", spec);
    node.until_event(
        "FailedMount MountVolume.SetUp failed for volume \"cfg\" : configmap \"late\" not found",
    )
    .await;
    node.configure("late", ("a", "b"));
    node.until_ready("web").await;
}

#[tokio::test]
async fn images_that_cannot_be_had_say_why() {
    let node = Node::start().await;
    node.bind("gone", json!({"containers": [{"name": "c", "image": "missing:1"}]}));
    node.bind("odd", json!({"containers": [{"name": "c", "image": "a b"}]}));
    node.until("gone", "ErrImagePull or backing off", |pod| {
        pod.is_some_and(|p| {
            let reason = container(p, 0)["state"]["waiting"]["reason"].as_str();
            matches!(reason, Some("ErrImagePull" | "ImagePullBackOff"))
        })
    })
    .await;
    node.until("gone", "ImagePullBackOff", |pod| {
        pod.is_some_and(|p| container(p, 0)["state"]["waiting"]["reason"] == "ImagePullBackOff")
    })
    .await;
    node.until("odd", "InvalidImageName", |pod| {
        pod.is_some_and(|p| container(p, 0)["state"]["waiting"]["reason"] == "InvalidImageName")
    })
    .await;
    node.until_event("Failed Failed to pull image \"missing:1\"").await;
    // A pod that never ran ends at once.
    node.delete("gone", 30).await;
    node.until_gone("gone").await;
}

#[tokio::test]
async fn probes_restart_and_gate() {
    let node = Node::start().await;
    node.runtime.exec_says(1, "not yet");
    let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 1, "failureThreshold": 1});
    let mut spec = one(json!(["run"]));
    spec["containers"][0]["readinessProbe"] = probe.clone();
    node.bind("web", spec.clone());
    node.until_event("Unhealthy Readiness probe failed: not yet").await;
    assert_eq!(condition(&node.pod("web").expect("the pod"), "Ready"), "False");
    node.runtime.exec_says(0, "");
    node.until_ready("web").await;

    node.runtime.exec_says(1, "sick");
    spec["containers"][0]["livenessProbe"] = probe;
    node.bind("sick", spec);
    node.until_event("Killing Container c failed liveness probe, will be restarted").await;
    node.until("sick", "restarted", |pod| {
        pod.is_some_and(|p| container(p, 0)["restartCount"].as_i64() >= Some(1))
    })
    .await;
}

#[tokio::test]
async fn a_start_that_fails_is_an_end() {
    let node = Node::start().await;
    node.bind("web", one(json!(["fail"])));
    node.until("web", "in CrashLoopBackOff", |pod| {
        pod.is_some_and(|p| container(p, 0)["state"]["waiting"]["reason"] == "CrashLoopBackOff")
    })
    .await;
    let pod = node.pod("web").expect("the pod");
    assert_eq!(container(&pod, 0)["lastState"]["terminated"]["exitCode"], 128);
    assert_eq!(container(&pod, 0)["lastState"]["terminated"]["reason"], "StartError");
}

#[tokio::test]
async fn a_shorter_grace_period_counts_at_once() {
    let node = Node::start().await;
    node.bind("slow", one(json!(["stubborn"])));
    node.until_ready("slow").await;
    node.delete("slow", 3600).await;
    node.until_event("Killing Stopping container c").await;
    node.delete("slow", 1).await;
    node.until_gone("slow").await;
    assert!(node.runtime.is_empty());
}

#[tokio::test]
async fn removing_everything_leaves_nothing() {
    let mut node = Node::start().await;
    node.bind("web", one(json!(["run"])));
    node.until_ready("web").await;
    node.stop_kubelet().await;
    skiff_kubelet::remove_everything(node.runtime.clone(), node.network.clone(), &node.config)
        .await
        .expect("removes");
    assert!(node.runtime.is_empty() && node.network.is_empty());
    let left = std::fs::read_dir(node.config.root_dir.join("pods")).expect("lists").count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_pod_that_does_not_fit_fails_with_upstreams_reason() {
    let mut node = Node::start().await;
    let with_port = |args: serde_json::Value| {
        json!({"containers": [{"name": "c", "image": "app:1", "args": args,
            "ports": [{"containerPort": 80, "hostPort": 18080}]}], "terminationGracePeriodSeconds": 1})
    };
    node.bind("first", with_port(json!(["run"])));
    node.until_ready("first").await;
    let refused = |pod: Option<&serde_json::Value>, reason: &str| {
        pod.is_some_and(|p| p["status"]["phase"] == "Failed" && p["status"]["reason"] == reason)
    };
    node.bind("second", with_port(json!(["run"])));
    node.until("second", "refused", |pod| refused(pod, "NodePorts")).await;
    node.bind(
        "huge",
        json!({"containers": [{"name": "c", "image": "app:1",
        "resources": {"requests": {"cpu": "100k"}}}]}),
    );
    node.until("huge", "refused", |pod| refused(pod, "OutOfcpu")).await;
    let huge = node.pod("huge").expect("the pod");
    let message = huge["status"]["message"].as_str().expect("a message");
    assert!(
        message.starts_with(
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 100000000"
        ),
        "{message}"
    );
    assert!(huge["status"]["containerStatuses"].as_array().is_none_or(Vec::is_empty), "{huge:#}");
    node.bind(
        "elsewhere",
        json!({"nodeSelector": {"no": "such"}, "containers": [{"name": "c", "image": "app:1"}]}),
    );
    node.until("elsewhere", "refused", |pod| refused(pod, "NodeAffinity")).await;
    node.until_event("OutOfcpu Pod was rejected").await;
    // Those that run are not asked again by the next kubelet, and keep their ports.
    node.stop_kubelet().await;
    node.start_kubelet().await;
    node.bind("third", with_port(json!(["run"])));
    node.until("third", "refused", |pod| refused(pod, "NodePorts")).await;
    let first = node.pod("first").expect("the pod");
    assert_eq!(first["status"]["phase"], "Running");
    node.delete("first", 1).await;
    node.until_gone("first").await;
    node.bind("fourth", with_port(json!(["run"])));
    node.until_ready("fourth").await;
}

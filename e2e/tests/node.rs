//! Pods on a real node: init containers, restarts, probes, volumes, logs, exec, and what is
//! said of images that do not exist.

use std::time::Duration;

use skiff_e2e::cluster::Cluster;
use skiff_e2e::eventually;

const SOON: Duration = Duration::from_secs(30);

fn pod(name: &str, spec: &str) -> String {
    let spec = spec.replace('\n', "\n  ");
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{app: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  {spec}\n"
    )
}

/// A name, for messages, and what is tried.
type Story = (&'static str, fn(&Cluster));

#[test]
fn pods_live_as_kubernetes_users_expect() {
    let cluster = Cluster::with_images("node");
    let stories: [Story; 11] = [
        ("volumes and init containers", volumes_and_init_containers),
        ("containers share localhost", containers_share_localhost),
        ("a crash is told and backed off", a_crash_is_told_and_backed_off),
        ("probes gate and restart", probes_gate_and_restart),
        ("exit codes and streams of exec", exit_codes_and_streams_of_exec),
        ("a command that is not there", a_command_that_is_not_there),
        ("a killed container comes back", a_killed_container_comes_back),
        ("a program that is not there", a_program_that_is_not_there),
        ("a volume that is not there yet", a_volume_that_is_not_there_yet),
        ("an image that does not exist", an_image_that_does_not_exist),
        ("a finished pod stays finished", a_finished_pod_stays_finished),
    ];
    // A cluster costs more than a story: one that fails does not hide the others.
    let fails = |story: &fn(&Cluster)| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| story(&cluster))).is_err()
    };
    let failed: Vec<_> =
        stories.iter().filter(|(_, story)| fails(story)).map(|(name, _)| *name).collect();
    assert!(failed.is_empty(), "failed: {failed:?}");
}

fn volumes_and_init_containers(cluster: &Cluster) {
    cluster.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: conf}\ndata: {key: from-config-map}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: sec}\nstringData: {token: from-secret}\n");
    cluster.apply(&pod(
        "volumes",
        r#"volumes:
- {name: conf, configMap: {name: conf}}
- {name: sec, secret: {secretName: sec}}
- {name: shared, emptyDir: {}}
initContainers:
- name: first
  image: skiff.local/demo-web:1
  command: [sh, -c, "cat /conf/key > /shared/out"]
  volumeMounts: [{name: conf, mountPath: /conf}, {name: shared, mountPath: /shared}]
- name: second
  image: skiff.local/demo-web:1
  command: [sh, -c, "echo ' then' >> /shared/out; cat /sec/token >> /shared/out; echo >> /shared/out"]
  volumeMounts: [{name: sec, mountPath: /sec}, {name: shared, mountPath: /shared}]
containers:
- name: main
  image: skiff.local/demo-web:1
  command: [sh, -c, "cat /shared/out; sleep 1000"]
  volumeMounts: [{name: shared, mountPath: /shared}]"#,
    ));
    cluster.wait_field(&["pod", "volumes"], "{.status.phase}", "Running", SOON);
    eventually("the log", SOON, || {
        let log = cluster.skiff(&["logs", "volumes"]);
        if log == "from-config-map then\nfrom-secret\n" { Ok(()) } else { Err(log) }
    });
    cluster.skiff(&["delete", "pod", "volumes"]);
}

fn containers_share_localhost(cluster: &Cluster) {
    cluster.apply(&pod(
        "two",
        r#"containers:
- name: web
  image: skiff.local/demo-web:1
- name: side
  image: skiff.local/demo-web:1
  command: [sleep, "1000"]"#,
    ));
    cluster.wait_field(&["pod", "two"], "{.status.containerStatuses[*].ready}", "true true", SOON);
    eventually("localhost answers", SOON, || {
        let done = cluster.try_skiff(&[
            "exec",
            "two",
            "-c",
            "side",
            "--",
            "timeout",
            "5",
            "wget",
            "-qO-",
            "http://127.0.0.1:8080/",
        ]);
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        if text.contains("version 1") { Ok(()) } else { Err(text) }
    });
    let ip = cluster.skiff(&["get", "pod", "two", "-o", "jsonpath={.status.podIP}"]);
    assert!(ip.starts_with("10.42.0."), "{ip}");
    cluster.skiff(&["delete", "pod", "two"]);
}

fn a_crash_is_told_and_backed_off(cluster: &Cluster) {
    cluster.apply(&pod("crash", "containers:\n- name: main\n  image: skiff.local/demo-web:1\n  command: [sh, -c, 'echo last words; exit 3']"));
    eventually("CrashLoopBackOff", Duration::from_secs(60), || {
        let text = cluster.skiff(&["get", "pod", "crash"]);
        if text.contains("CrashLoopBackOff") { Ok(()) } else { Err(text) }
    });
    let code = "{.status.containerStatuses[0].lastState.terminated.exitCode}";
    cluster.wait_field(&["pod", "crash"], code, "3", SOON);
    let previous = cluster.skiff(&["logs", "crash", "--previous"]);
    assert_eq!(previous, "last words\n");
    let described = cluster.skiff(&["describe", "pod", "crash"]);
    assert!(described.contains("Back-off restarting failed container"), "{described}");
    cluster.skiff(&["delete", "pod", "crash"]);
}

fn probes_gate_and_restart(cluster: &Cluster) {
    cluster.apply(&pod(
        "probed",
        r#"containers:
- name: main
  image: skiff.local/demo-web:1
  command: [sh, -c, "touch /tmp/alive; sleep 1000"]
  readinessProbe: {exec: {command: [test, -f, /tmp/ready]}, periodSeconds: 1}
  livenessProbe: {exec: {command: [test, -f, /tmp/alive]}, periodSeconds: 1, failureThreshold: 1, initialDelaySeconds: 1}"#,
    ));
    cluster.wait_field(&["pod", "probed"], "{.status.phase}", "Running", SOON);
    let ready = "{.status.containerStatuses[0].ready}";
    cluster.wait_field(&["pod", "probed"], ready, "false", SOON);
    cluster.skiff(&["exec", "probed", "--", "touch", "/tmp/ready"]);
    cluster.wait_field(&["pod", "probed"], ready, "true", SOON);
    cluster.skiff(&["exec", "probed", "--", "rm", "/tmp/alive"]);
    cluster.wait_field(
        &["pod", "probed"],
        "{.status.containerStatuses[0].restartCount}",
        "1",
        SOON,
    );
    let described = cluster.skiff(&["describe", "pod", "probed"]);
    assert!(described.contains("Liveness probe failed"), "{described}");
    cluster.skiff(&["delete", "pod", "probed"]);
}

fn exit_codes_and_streams_of_exec(cluster: &Cluster) {
    cluster.apply(&pod(
        "shell",
        "containers:\n- name: main\n  image: skiff.local/demo-web:1\n  command: [sleep, '1000']",
    ));
    cluster.wait_field(&["pod", "shell"], "{.status.phase}", "Running", SOON);
    let done =
        cluster.try_skiff(&["exec", "shell", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(done.status.code(), Some(7));
    assert_eq!(String::from_utf8_lossy(&done.stdout), "out\n");
    assert!(String::from_utf8_lossy(&done.stderr).starts_with("err\n"));
    let mut command = cluster.command();
    command
        .args(["exec", "-i", "shell", "--", "cat"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("starts");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), b"through the pipe")
        .expect("writes");
    let done = child.wait_with_output().expect("ends");
    assert_eq!(String::from_utf8_lossy(&done.stdout), "through the pipe");
}

/// No hang, and the runtime's own words; for a probe it is no verdict.
fn a_command_that_is_not_there(cluster: &Cluster) {
    let done = cluster.try_skiff(&["exec", "shell", "--", "nosuchcommand"]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!done.status.success());
    assert!(
        said.contains(r#"exec: "nosuchcommand": executable file not found in $PATH"#),
        "{said}"
    );
    cluster.apply(&pod(
        "badprobe",
        r#"containers:
- name: main
  image: skiff.local/demo-web:1
  command: [sleep, "1000"]
  readinessProbe: {exec: {command: [nosuchprobe]}, periodSeconds: 1}"#,
    ));
    eventually("the probe's error", SOON, || {
        let text = cluster.skiff(&["describe", "pod", "badprobe"]);
        let told = text.contains("Readiness probe errored") && text.contains("nosuchprobe");
        if told { Ok(()) } else { Err(text) }
    });
    cluster.wait_field(&["pod", "badprobe"], "{.status.containerStatuses[0].ready}", "false", SOON);
    cluster.skiff(&["delete", "pod", "badprobe"]);
}

fn a_killed_container_comes_back(cluster: &Cluster) {
    let id = cluster.skiff(&[
        "get",
        "pod",
        "shell",
        "-o",
        "jsonpath={.status.containerStatuses[0].containerID}",
    ]);
    let pid = first_process_in(&id);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .expect("kills");
    cluster.wait_field(&["pod", "shell"], "{.status.containerStatuses[0].restartCount}", "1", SOON);
    let last = "{.status.containerStatuses[0].lastState.terminated.exitCode}";
    cluster.wait_field(&["pod", "shell"], last, "137", SOON);
    running_since(cluster);
    cluster.skiff(&["delete", "pod", "shell"]);
}

fn running_since(cluster: &Cluster) -> String {
    eventually("running again", SOON, || {
        let at = cluster.skiff(&[
            "get",
            "pod",
            "shell",
            "-o",
            "jsonpath={.status.containerStatuses[0].state.running.startedAt}",
        ]);
        if at.is_empty() { Err("not running".into()) } else { Ok(at) }
    })
}

/// The container's first process: the lowest number in the control group that carries its id.
fn first_process_in(container_id: &str) -> i32 {
    let id = container_id.trim_start_matches("containerd://");
    let inside = |pid: &i32| {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        groups.contains(id)
    };
    let entries = std::fs::read_dir("/proc").expect("reads").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok());
    pids.filter(inside).min().unwrap_or_else(|| panic!("no process in the control group of {id}"))
}

fn a_program_that_is_not_there(cluster: &Cluster) {
    cluster.apply(&pod(
        "noprogram",
        "containers:\n- name: main\n  image: skiff.local/demo-web:1\n  command: [nosuchprogram]",
    ));
    let last = "{.status.containerStatuses[0].lastState.terminated.reason}";
    cluster.wait_field(&["pod", "noprogram"], last, "StartError", SOON);
    let code = "{.status.containerStatuses[0].lastState.terminated.exitCode}";
    cluster.wait_field(&["pod", "noprogram"], code, "128", SOON);
    eventually("the event", SOON, || {
        let text = cluster.skiff(&["describe", "pod", "noprogram"]);
        let wanted = r#"exec: "nosuchprogram": executable file not found in $PATH"#;
        if text.contains(wanted) { Ok(()) } else { Err(text) }
    });
    cluster.skiff(&["delete", "pod", "noprogram"]);
}

fn a_volume_that_is_not_there_yet(cluster: &Cluster) {
    cluster.apply(&pod(
        "novolume",
        r#"volumes: [{name: late, configMap: {name: late}}]
containers:
- name: main
  image: skiff.local/demo-web:1
  command: [sleep, "1000"]
  volumeMounts: [{name: late, mountPath: /late}]"#,
    ));
    let told = eventually("FailedMount", SOON, || {
        let text = cluster.skiff(&["describe", "pod", "novolume"]);
        let wanted = r#"MountVolume.SetUp failed for volume "late" : configmap "late" not found"#;
        if text.contains(wanted) { Ok(text) } else { Err(text) }
    });
    assert!(!told.contains("Pulled"), "{told}");
    cluster.skiff(&["create", "configmap", "late", "--from-literal=key=value"]);
    cluster.wait_field(&["pod", "novolume"], "{.status.phase}", "Running", SOON);
    assert_eq!(cluster.skiff(&["exec", "novolume", "--", "cat", "/late/key"]), "value");
    cluster.skiff(&["delete", "pod", "novolume"]);
}

fn an_image_that_does_not_exist(cluster: &Cluster) {
    cluster
        .apply(&pod("noimage", "containers:\n- name: main\n  image: 127.0.0.1:1/nothing/here:1"));
    eventually("the reason", SOON, || {
        let text = cluster.skiff(&["get", "pod", "noimage"]);
        if text.contains("ErrImagePull") || text.contains("ImagePullBackOff") {
            Ok(())
        } else {
            Err(text)
        }
    });
    let described = cluster.skiff(&["describe", "pod", "noimage"]);
    assert!(
        described.contains("Failed to pull image \"127.0.0.1:1/nothing/here:1\""),
        "{described}"
    );
    cluster.skiff(&["delete", "pod", "noimage"]);
}

fn a_finished_pod_stays_finished(cluster: &Cluster) {
    cluster.apply(&pod("job", "restartPolicy: Never\ncontainers:\n- name: main\n  image: skiff.local/demo-web:1\n  command: [echo, done]"));
    cluster.wait_field(&["pod", "job"], "{.status.phase}", "Succeeded", SOON);
    let text = cluster.skiff(&["get", "pod", "job"]);
    assert!(text.contains("Completed"), "{text}");
    assert_eq!(cluster.skiff(&["logs", "job"]), "done\n");
    cluster.skiff(&["delete", "pod", "job"]);
}

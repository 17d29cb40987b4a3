//! Containers for real: containerd, runc, cgroups and files of this machine.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use skiff_kubelet::ports::{ExecIo, Mount, Phase, Runtime};
use skiff_kubelet::runtime::Pause;
use support::Host;
use tokio::sync::mpsc;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_runs_logs_and_ends() {
    let host = Host::start().await;
    let script = "echo hello; echo oops >&2; printf partial; exit 3";
    let (sandbox, id) = host.run("one", &["sh", "-c", script]).await;
    let state = host.wait_for("one", &id, Phase::Exited).await;
    assert_eq!((state.exit_code, state.oom_killed), (Some(3), false));
    assert!(state.started_at.expect("started") <= state.finished_at.expect("finished"));
    host.runtime.remove_container(&id).await.expect("removed");
    let mut log = host.log("one", "app");
    log.sort();
    assert_eq!(log, ["stderr F oops", "stdout F hello", "stdout P partial"]);
    host.runtime.remove_sandbox(&sandbox).await.expect("removed");
    host.runtime.remove_sandbox(&sandbox).await.expect("not found is success");
    assert_nothing_left(&host).await;
}

async fn assert_nothing_left(host: &Host) {
    let (sandboxes, containers) = host.runtime.state().await.expect("a state");
    assert!(sandboxes.is_empty() && containers.is_empty());
    assert_eq!(support::mounts_under(&host.dir), Vec::<String>::new());
    let left: Vec<_> = support::cgroup_dirs(&host.name)
        .into_iter()
        .filter(|dir| !dir.ends_with(&host.name))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    // The shim ends by itself after the last removal.
    for _ in 0..100 {
        let ours = support::processes_of(&host.dir);
        if ours.iter().all(|(_, command)| command.starts_with("containerd ")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{:?}", support::processes_of(&host.dir));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_run_in_a_container() {
    let host = Host::start().await;
    let (_, id) = host.run("exec", &["sleep", "1000"]).await;
    assert_eq!(host.exec(&id, &["echo", "hi"], None).await, ("hi\n".to_owned(), 0));
    assert_eq!(host.exec(&id, &["sh", "-c", "echo a; echo b >&2; exit 7"], None).await.1, 7);
    assert_eq!(
        host.exec(&id, &["cat"], Some("through the pipe")).await,
        ("through the pipe".to_owned(), 0)
    );
    let (text, _) = host.exec(&id, &["seq", "1", "50000"], None).await;
    assert_eq!(text.lines().count(), 50_000);
    a_terminal(&host, &id).await;
    a_missing_command(&host, &id).await;
    a_dropped_command(&host, &id).await;
    assert_eq!(std::fs::read_dir(host.dir.join("run/exec")).expect("a folder").count(), 0);
    host.runtime.stop_container(&id, Duration::from_secs(1)).await.expect("stopped");
    let state = host.container_state("exec", &id).await;
    assert_eq!(
        (state.phase, state.exit_code),
        (Phase::Exited, Some(137)),
        "sleep as process 1 ignores SIGTERM"
    );
    host.runtime.stop_container(&id, Duration::from_secs(1)).await.expect("again");
}

fn io(tty: bool) -> (ExecIo, mpsc::Receiver<bytes::Bytes>, mpsc::Sender<(u16, u16)>) {
    let (stdout, out) = mpsc::channel(16);
    let (stderr, _) = mpsc::channel(16);
    let (sizes, resize) = mpsc::channel(1);
    (ExecIo { stdin: None, stdout, stderr, resize: Some(resize), tty }, out, sizes)
}

async fn a_terminal(host: &Host, id: &str) {
    let (io, mut out, sizes) = io(true);
    sizes.try_send((100, 40)).expect("room");
    let script =
        "until [ \"$(stty size 2>&1)\" = '40 100' ]; do sleep 0.05; done; echo $TERM $(stty size)";
    let command = ["sh", "-c", script].map(str::to_owned);
    let read = async {
        let mut text = String::new();
        while let Some(bytes) = out.recv().await {
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        text
    };
    let (code, text) = tokio::join!(host.runtime.exec(id, &command, io), read);
    assert_eq!((code.expect("it runs"), text.as_str()), (0, "xterm 40 100\r\n"));
}

async fn a_missing_command(host: &Host, id: &str) {
    let (io, mut out, _sizes) = io(false);
    let command = ["nope".to_owned()];
    // The output ends, too: who reads it is not left waiting.
    let (ran, output) = tokio::join!(host.runtime.exec(id, &command, io), out.recv());
    assert_eq!(output, None);
    let error = ran.expect_err("no such program").to_string();
    assert!(error.contains("executable file not found in $PATH"), "{error}");
}

async fn a_dropped_command(host: &Host, id: &str) {
    let (io, _out, _sizes) = io(false);
    let command = ["sleep", "777"].map(str::to_owned);
    let given_up =
        tokio::time::timeout(Duration::from_millis(500), host.runtime.exec(id, &command, io)).await;
    assert!(given_up.is_err());
    for _ in 0..100 {
        if !host.exec(id, &["ps"], None).await.0.contains("sleep 777") {
            return;
        }
    }
    panic!("the command goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_specification_is_what_the_container_sees() {
    let host = Host::start().await;
    let volume = host.dir.join("volume");
    std::fs::create_dir_all(&volume).expect("a folder");
    std::fs::set_permissions(&volume, std::fs::Permissions::from_mode(0o777)).expect("permissions");
    let script = "id; pwd; echo $A $HOSTNAME; cat /data/in; touch /data/x 2>&1; touch /x 2>&1; \
                  grep -E 'CapEff|NoNewPrivs' /proc/self/status; ls /proc/1/fd >/dev/null && echo one";
    std::fs::write(volume.join("in"), "from the volume\n").expect("a file");
    let (_, id) = host
        .run_with("spec", &["sh", "-c", script], |sandbox, container| {
            sandbox.hostname = "spec-host".into();
            container.env.push("A=b c".into());
            container.working_dir = "/made/for/me".into();
            container.mounts = vec![Mount {
                host_path: volume.clone(),
                container_path: "/data".into(),
                read_only: true,
                propagation: "rprivate".into(),
            }];
            container.security.run_as_user = Some(33);
            container.security.supplemental_groups = vec![500];
            container.security.read_only_root = false;
            container.security.no_new_privileges = true;
            container.resources.memory_limit_bytes = Some(64 << 20);
            container.resources.cpu_shares = Some(100);
            container.resources.pids_limit = Some(50);
            container.resources.oom_score_adj = -900;
        })
        .await;
    host.wait_for("spec", &id, Phase::Exited).await;
    let log = host.log("spec", "app").join("\n");
    for expect in [
        "uid=33(web) gid=34(web) groups=4(adm),34(web),500",
        "/made/for/me",
        "b c",
        "from the volume",
        "touch: /data/x: Read-only file system",
        "touch: /x: Permission denied",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(log.contains(expect), "no {expect:?} in {log}");
    }
    let root = host.container("spec", "root", &["true"]);
    let mut root = skiff_kubelet::ports::ContainerConfig { attempt: 1, ..root };
    root.security.run_as_non_root = true;
    let (sandboxes, _) = host.runtime.state().await.expect("a state");
    let error =
        host.runtime.create_container(&sandboxes[0].id, &root).await.expect_err("root").to_string();
    assert!(error.contains("container has runAsNonRoot and image will run as root"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_much_memory_is_an_oom_kill() {
    let host = Host::start().await;
    let (_, id) = host
        .run_with(
            "oom",
            &["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=2"],
            |_, container| {
                container.resources.memory_limit_bytes = Some(16 << 20);
            },
        )
        .await;
    let state = host.wait_for("oom", &id, Phase::Exited).await;
    assert_eq!((state.exit_code, state.oom_killed), (Some(137), true));
    // Also after the task and its cgroup are gone.
    host.runtime.stop_container(&id, Duration::ZERO).await.expect("stopped");
    assert!(host.container_state("oom", &id).await.oom_killed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_not_there_says_so() {
    let host = Host::start().await;
    let sandbox = host.runtime.run_sandbox(&host.sandbox("bad")).await.expect("a sandbox");
    let config = host.container("bad", "app", &["/no/such"]);
    let id = host.runtime.create_container(&sandbox, &config).await.expect("a container");
    assert_eq!(host.container_state("bad", &id).await.phase, Phase::Created);
    let error = host.runtime.start_container(&id).await.expect_err("no program").to_string();
    assert!(error.contains("no such file or directory"), "{error}");
    let state = host.container_state("bad", &id).await;
    assert_eq!((state.phase, state.exit_code), (Phase::Exited, Some(128)));
    host.runtime.remove_sandbox(&sandbox).await.expect("removed");
    assert_nothing_left(&host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_a_pod_share_what_they_should() {
    let host = Host::start().await;
    let mut config = host.sandbox("pair");
    config.share_process_namespace = true;
    let sandbox = host.runtime.run_sandbox(&config).await.expect("a sandbox");
    let mut ids = Vec::new();
    for name in ["a", "b"] {
        let container = host.container("pair", name, &["sleep", "1234"]);
        let id = host.runtime.create_container(&sandbox, &container).await.expect("a container");
        host.runtime.start_container(&id).await.expect("started");
        ids.push(id);
    }
    let (processes, _) = host.exec(&ids[0], &["ps"], None).await;
    assert!(
        processes.contains("/pause") && processes.matches("sleep 1234").count() == 2,
        "{processes}"
    );
    host.exec(&ids[0], &["sh", "-c", "echo shared > /dev/shm/x"], None).await;
    assert_eq!(host.exec(&ids[1], &["cat", "/dev/shm/x"], None).await.0, "shared\n");
    let ipc = host.exec(&ids[0], &["readlink", "/proc/self/ns/ipc"], None).await;
    assert_eq!(host.exec(&ids[1], &["readlink", "/proc/self/ns/ipc"], None).await, ipc);
    let shims = support::processes_of(&host.dir)
        .into_iter()
        .filter(|(_, command)| command.contains("shim"))
        .count();
    assert_eq!(shims, 1, "one for the pod");
    // A repeated call finds what is there.
    assert_eq!(host.runtime.run_sandbox(&config).await.expect("the same"), sandbox);
    let same = host.container("pair", "a", &["sleep", "1234"]);
    assert_eq!(host.runtime.create_container(&sandbox, &same).await.expect("the same"), ids[0]);
    host.runtime.start_container(&ids[0]).await.expect("runs already");
    host.runtime.stop_sandbox(&sandbox).await.expect("stopped");
    let (sandboxes, containers) =
        host.runtime.pod_state(&host.pod("pair").uid).await.expect("a state");
    assert!(sandboxes.iter().all(|one| one.phase == Phase::Exited));
    assert!(containers.iter().all(|one| one.phase == Phase::Exited && one.exit_code == Some(137)));
    host.runtime.remove_sandbox(&sandbox).await.expect("removed");
    assert_nothing_left(&host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_may_do_without_a_pause_program() {
    let host = Host::start_with(|config| config.pause = Pause::WhenShared).await;
    let namespace = support::make_network_namespace(&host.dir.join("net"));
    let (sandbox, id) = host
        .run_with("pinned", &["sh", "-c", "hostname; sleep 1000"], |sandbox, _| {
            sandbox.hostname = "pinned-host".into();
            sandbox.network_namespace = Some(namespace.clone());
            sandbox.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "80".into());
        })
        .await;
    assert_eq!(host.exec(&id, &["hostname"], None).await.0, "pinned-host\n");
    let port =
        host.exec(&id, &["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"], None).await.0;
    assert_eq!(port, "80\n");
    assert!(
        !support::processes_of(&host.dir).iter().any(|(_, command)| command.contains("/pause"))
    );
    let (sandboxes, _) = host.runtime.state().await.expect("a state");
    assert_eq!(sandboxes[0].phase, Phase::Running);
    host.runtime.stop_container(&id, Duration::ZERO).await.expect("stopped");
    host.runtime.remove_container(&id).await.expect("removed");
    let again = skiff_kubelet::ports::ContainerConfig {
        attempt: 1,
        ..host.container("pinned", "app", &["sleep", "9"])
    };
    let id = host.runtime.create_container(&sandbox, &again).await.expect("a container");
    host.runtime.start_container(&id).await.expect("the sandbox outlives its containers");
    host.runtime.stop_sandbox(&sandbox).await.expect("stopped");
    let (sandboxes, _) = host.runtime.state().await.expect("a state");
    assert_eq!(sandboxes[0].phase, Phase::Exited);
    host.runtime.remove_sandbox(&sandbox).await.expect("removed");
    nix::mount::umount2(&namespace, nix::mount::MntFlags::MNT_DETACH).expect("unmounted");
    assert_nothing_left(&host).await;
}

/// The next attempt starts while the end of the last is still being put away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_comes_back_at_once_without_a_pause_program() {
    let host = Host::start().await;
    let namespace = support::make_network_namespace(&host.dir.join("net"));
    let (sandbox, mut id) = host
        .run_with("again", &["true"], |sandbox, _| {
            sandbox.network_namespace = Some(namespace.clone());
        })
        .await;
    for attempt in 1..20 {
        let state = host.wait_for("again", &id, Phase::Exited).await;
        assert_eq!(state.exit_code, Some(0), "attempt {attempt}");
        let again = skiff_kubelet::ports::ContainerConfig {
            attempt,
            ..host.container("again", "app", &["true"])
        };
        id = host.runtime.create_container(&sandbox, &again).await.expect("a container");
        host.runtime.start_container(&id).await.expect("started");
    }
    host.runtime.remove_sandbox(&sandbox).await.expect("removed");
    nix::mount::umount2(&namespace, nix::mount::MntFlags::MNT_DETACH).expect("unmounted");
    assert_nothing_left(&host).await;
}

//! What restarts leave: of skiff, of containerd, of the host. Containers and their logs go on.

mod support;

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skiff_kubelet::containerd_supervisor::Supervisor;
use skiff_kubelet::ports::{Phase, Runtime};
use support::Host;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_client_finds_everything_and_logs_go_on() {
    let mut host = Host::start().await;
    let script = "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.05; done";
    let (sandbox, id) = host
        .run_with("on", &["sh", "-c", script], |_, container| {
            container.annotations.insert("restarts".into(), "4".into());
        })
        .await;
    let (_, gone) = host.run("gone", &["sh", "-c", "sleep 0.3; exit 9"]).await;
    let before = host.container_state("on", &id).await;
    // The old client goes, as in a kill: nothing is told to containerd.
    host.connect_again().await;
    let after = host.container_state("on", &id).await;
    assert_eq!(
        (after.phase, after.pid, after.started_at),
        (Phase::Running, before.pid, before.started_at)
    );
    assert_eq!((after.sandbox_id, after.pod), (sandbox, host.pod("on")));
    assert_eq!(after.annotations["restarts"], "4");
    let lines = host.log("on", "app").len();
    let ended = host.wait_for("gone", &gone, Phase::Exited).await;
    assert_eq!(ended.exit_code, Some(9));
    assert!(host.log("on", "app").len() >= lines);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let log = host.log("on", "app");
    assert!(log.len() > lines);
    let expect: Vec<String> =
        (1..=log.len()).map(|number| format!("stdout F line {number}")).collect();
    assert_eq!(log, expect, "no line is lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containerd_killed_comes_back_with_all_containers() {
    let host = Host::start().await;
    let (_, id) = host.run("stay", &["sleep", "1000"]).await;
    let pid = host.container_state("stay", &id).await.pid.expect("runs");
    let mut events = host.runtime.events();
    let supervisor = host.supervisor.as_ref().expect("a supervisor");
    let mut ready = supervisor.ready();
    let old = supervisor.pid();
    kill(Pid::from_raw(i32::try_from(old).expect("a pid")), Signal::SIGKILL).expect("killed");
    ready.wait_for(|ready| !ready).await.expect("noticed");
    // This end is seen by nobody.
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL).expect("killed");
    ready.wait_for(|ready| *ready).await.expect("back");
    assert_ne!(supervisor.pid(), old);
    let everything = async { while events.recv().await.expect("events go on").pod.is_some() {} };
    tokio::time::timeout(Duration::from_secs(20), everything)
        .await
        .expect("told to look at everything");
    let state = host.wait_for("stay", &id, Phase::Exited).await;
    assert_eq!(state.exit_code, Some(137));
    let (_, next) = host.run("next", &["true"]).await;
    assert_eq!(host.wait_for("next", &next, Phase::Exited).await.exit_code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_supervisor_takes_over() {
    let mut host = Host::start().await;
    let (_, id) = host.run("kept", &["sleep", "1000"]).await;
    let first = host.supervisor.take().expect("a supervisor");
    let pid = first.pid();
    drop(first);
    let second = Supervisor::start(Host::supervisor_config(&host.dir)).await.expect("started");
    assert_eq!(second.pid(), pid, "the same containerd");
    assert_eq!(host.container_state("kept", &id).await.phase, Phase::Running);
    second.stop().await;
    assert!(!std::path::Path::new(&format!("/proc/{pid}/root")).exists());
    let third = Supervisor::start(Host::supervisor_config(&host.dir)).await.expect("started");
    assert_ne!(third.pid(), pid);
    host.connect_again().await;
    assert_eq!(
        host.container_state("kept", &id).await.phase,
        Phase::Running,
        "containers live in their shims"
    );
    host.supervisor = Some(third);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_container_and_a_killed_pause_program_are_told() {
    let host = Host::start().await;
    let (sandbox, id) = host.run("victim", &["sleep", "1000"]).await;
    let mut events = host.runtime.events();
    let pid = host.container_state("victim", &id).await.pid.expect("runs");
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL).expect("killed");
    let told = async {
        while events.recv().await.expect("events go on").pod != Some(host.pod("victim")) {}
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.expect("told");
    let state = host.wait_for("victim", &id, Phase::Exited).await;
    assert_eq!((state.exit_code, state.oom_killed), (Some(137), false));
    let (sandboxes, _) = host.runtime.state().await.expect("a state");
    let pause = sandboxes[0].pid.expect("runs");
    kill(Pid::from_raw(i32::try_from(pause).expect("a pid")), Signal::SIGTERM)
        .expect("it listens to SIGTERM");
    let ended = async {
        while host.runtime.state().await.expect("a state").0[0].phase != Phase::Exited {
            events.recv().await.expect("events go on");
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the pause program ends");
    // The same attempt again makes a new one.
    assert_eq!(
        host.runtime.run_sandbox(&host.sandbox("victim")).await.expect("a sandbox"),
        sandbox
    );
    let (sandboxes, containers) = host.runtime.state().await.expect("a state");
    assert_eq!(sandboxes[0].phase, Phase::Running);
    assert!(containers.is_empty(), "the containers of the dead sandbox went with it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_reboot_everything_has_exited() {
    let mut host = Host::start().await;
    let (sandbox, id) = host.run("boot", &["sleep", "1000"]).await;
    let supervisor = host.supervisor.take().expect("a supervisor");
    supervisor.stop().await;
    // Processes, mounts and the state folders go; the data folders stay.
    host.lose_power();
    host.supervisor =
        Some(Supervisor::start(Host::supervisor_config(&host.dir)).await.expect("started"));
    host.connect_again().await;
    let (sandboxes, _) = host.runtime.state().await.expect("a state");
    // The boot id is still the same here: the record says "made, never started in this boot".
    assert_ne!(sandboxes[0].phase, Phase::Running);
    assert_ne!(host.container_state("boot", &id).await.phase, Phase::Running);
    host.runtime.remove_sandbox(&sandbox).await.expect("removed");
    let (_, id) = host.run("boot", &["true"]).await;
    assert_eq!(host.wait_for("boot", &id, Phase::Exited).await.exit_code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_rotated_and_long_lines_cut() {
    let host =
        Host::start_with(|config| (config.log_max_bytes, config.log_max_files) = (100_000, 3))
            .await;
    let (_, id) = host
        .run("log", &["sh", "-c", "head -c 20000 /dev/zero | tail -c 20000; echo; seq 1 20000"])
        .await;
    host.wait_for("log", &id, Phase::Exited).await;
    host.runtime
        .remove_container(&id)
        .await
        .expect("removed, and with it the logger has written all");
    let dir = host.dir.join("logs/log/app");
    let mut names: Vec<_> =
        std::fs::read_dir(&dir).expect("a folder").flatten().map(|e| e.file_name()).collect();
    names.sort();
    assert_eq!(names, ["0.log", "0.log.1", "0.log.2"]);
    for name in &names {
        assert!(std::fs::metadata(dir.join(name)).expect("a file").len() <= 170_000);
    }
    assert_eq!(host.log("log", "app").last().map(String::as_str), Some("stdout F 20000"));
}

//! Containers for real: containerd, runc, cgroups and files of this machine.

mod support;

use std::time::Duration;

use skiff_kubelet::ports::{Phase, Runtime};
use support::Host;

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
    let (sandboxes, containers) = host.runtime.state().await.expect("a state");
    assert!(sandboxes.is_empty() && containers.is_empty());
    assert_eq!(support::mounts_under(&host.dir), Vec::<String>::new());
    let left: Vec<_> = support::cgroup_dirs(&host.name).into_iter().filter(|dir| !dir.ends_with(&host.name)).collect();
    assert!(left.is_empty(), "{left:?}");
    let shims: Vec<_> = support::processes_of(&host.dir).into_iter().filter(|(_, command)| command.contains("shim")).collect();
    assert!(shims.is_empty(), "{shims:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_run_in_a_container() {
    let host = Host::start().await;
    let (_, id) = host.run("exec", &["sleep", "1000"]).await;
    assert_eq!(host.exec(&id, &["echo", "hi"], None).await, ("hi\n".to_owned(), 0));
    assert_eq!(host.exec(&id, &["sh", "-c", "echo a; echo b >&2; exit 7"], None).await.1, 7);
    assert_eq!(host.exec(&id, &["cat"], Some("through the pipe")).await, ("through the pipe".to_owned(), 0));
    let (text, _) = host.exec(&id, &["seq", "1", "50000"], None).await;
    assert_eq!(text.lines().count(), 50_000);
    host.runtime.stop_container(&id, Duration::from_secs(1)).await.expect("stopped");
    let state = host.container_state("exec", &id).await;
    assert_eq!((state.phase, state.exit_code), (Phase::Exited, Some(137)), "sleep as process 1 ignores SIGTERM");
}

use serde_json::json;

use super::*;

const NOW: u64 = 1_000_000;

fn at(secs: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
}

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec
    }))
    .expect("a pod")
}

fn simple(policy: &str) -> Pod {
    pod(
        json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}),
    )
}

fn with_init(policy: &str) -> Pod {
    pod(json!({
        "restartPolicy": policy,
        "initContainers": [{"name": "i1", "image": "i"}, {"name": "side", "image": "i", "restartPolicy": "Always",
            "startupProbe": {"exec": {"command": ["x"]}}}, {"name": "i2", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}]
    }))
}

fn pod_ref() -> crate::ports::PodRef {
    crate::ports::PodRef { namespace: "n".into(), name: "p".into(), uid: "u".into() }
}

fn sandbox(attempt: u32, phase: Phase) -> SandboxState {
    SandboxState {
        id: format!("s{attempt}"),
        pod: pod_ref(),
        attempt,
        phase,
        created_at: at(NOW - 1000),
        network_namespace: None,
        pid: None,
    }
}

fn running(name: &str, attempt: u32) -> ContainerState {
    ContainerState {
        id: format!("{name}{attempt}"),
        sandbox_id: "s0".into(),
        pod: pod_ref(),
        name: name.into(),
        attempt,
        phase: Phase::Running,
        image: "i".into(),
        image_id: "i".into(),
        created_at: at(NOW - 100),
        started_at: Some(at(NOW - 100)),
        finished_at: None,
        exit_code: None,
        signal: None,
        oom_killed: false,
        pid: Some(1),
        log_path: "/l".into(),
        annotations: BTreeMap::from([(IMAGE_ANNOTATION.to_owned(), "i".to_owned())]),
    }
}

fn exited(name: &str, attempt: u32, code: i32, ago: u64, backoff: u64) -> ContainerState {
    let mut state = running(name, attempt);
    state.phase = Phase::Exited;
    state.exit_code = Some(code);
    state.started_at = Some(at(NOW - ago - 1));
    state.finished_at = Some(at(NOW - ago));
    let key = crate::pod::history::BACKOFF_ANNOTATION.to_owned();
    state.annotations.insert(key, backoff.to_string());
    state
}

/// A look at one pod, and what is planned for it, one word an action.
struct Look {
    pod: Pod,
    sandboxes: Vec<SandboxState>,
    containers: Vec<ContainerState>,
    history: History,
    probes: Results,
    retries: BTreeMap<String, SystemTime>,
    begun: Option<SystemTime>,
}

impl Look {
    fn new(pod: Pod, containers: Vec<ContainerState>) -> Self {
        Self {
            pod,
            sandboxes: vec![sandbox(0, Phase::Running)],
            containers,
            history: History::default(),
            probes: Results::default(),
            retries: BTreeMap::new(),
            begun: Some(at(NOW - 1000)),
        }
    }

    fn check(&self, expected: &[&str]) {
        let actions = plan(&Input {
            pod: &self.pod,
            sandboxes: &self.sandboxes,
            containers: &self.containers,
            history: &self.history,
            probes: &self.probes,
            retries: &self.retries,
            ended: false,
            begun: self.begun,
            now: at(NOW),
        });
        let words: Vec<String> = actions.iter().map(word).collect();
        assert_eq!(words, expected);
    }
}

fn word(action: &Action) -> String {
    match action {
        Action::KillPod { why } => format!("kill-pod:{why:?}"),
        Action::RemoveSandbox { id } => format!("remove:{id}"),
        Action::CreateSandbox { attempt } => format!("sandbox:{attempt}"),
        Action::Start { name, attempt, backoff, .. } => {
            format!("start:{name}#{attempt}+{}", backoff.as_secs())
        }
        Action::Kill { id, why, .. } => format!("kill:{id}:{why:?}"),
        Action::RemoveContainer { id } => format!("remove:{id}"),
        Action::WaitUntil(until) => {
            format!("wait:{}", until.duration_since(at(NOW)).expect("ahead").as_secs())
        }
    }
}

#[test]
fn a_new_pod_gets_sandbox_and_all_containers() {
    let mut look = Look::new(simple("Always"), vec![]);
    look.sandboxes.clear();
    look.check(&["sandbox:0", "start:a#0+0", "start:b#0+0"]);
    look.pod = with_init("Always");
    look.check(&["sandbox:0", "start:i1#0+0"]);
}

#[test]
fn nothing_to_do_is_nothing() {
    Look::new(simple("Always"), vec![running("a", 0), running("b", 0)]).check(&[]);
}

#[test]
fn a_dead_sandbox_is_replaced_and_containers_start_again() {
    let mut look = Look::new(simple("Always"), vec![exited("a", 0, 137, 5, 0), running("b", 2)]);
    look.sandboxes = vec![sandbox(3, Phase::Exited)];
    look.check(&[
        "kill-pod:SandboxChanged",
        "remove:s3",
        "sandbox:4",
        "start:a#1+10",
        "start:b#0+0",
    ]);
    look.pod = simple("Never");
    look.check(&["kill-pod:Finished"]);
}

#[test]
fn after_a_reboot_the_api_s_memory_counts() {
    let status = json!({"containerStatuses": [
        {"name": "a", "restartCount": 2, "containerID": "containerd://x", "state": {"running": {}}}]});
    let status = serde_json::from_value(status).expect("a status");
    let mut look = Look::new(simple("Always"), vec![]);
    look.sandboxes.clear();
    look.history = History::from_status(&status, at(NOW));
    look.check(&["sandbox:0", "start:a#3+10", "start:b#0+0"]);
    look.pod = simple("Never");
    look.check(&[]);
}

#[test]
fn restart_policy_decides_who_comes_back() {
    let ends = || vec![exited("a", 0, 0, 50, 0), exited("b", 0, 1, 50, 0)];
    Look::new(simple("Always"), ends()).check(&["start:a#1+10", "start:b#1+10"]);
    Look::new(simple("OnFailure"), ends()).check(&["start:b#1+10"]);
    Look::new(simple("Never"), ends()).check(&["kill-pod:Finished"]);
    let both = vec![exited("a", 0, 0, 50, 0), exited("b", 0, 0, 50, 0)];
    Look::new(simple("OnFailure"), both).check(&["kill-pod:Finished"]);
    let one = vec![exited("a", 0, 1, 50, 0), running("b", 0)];
    Look::new(simple("Never"), one).check(&[]);
}

#[test]
fn a_crash_loop_waits_longer_each_time_and_forgets_after_ten_minutes() {
    let crashed = |backoff, ago| vec![exited("a", 4, 1, ago, backoff), running("b", 0)];
    Look::new(simple("Always"), crashed(40, 10)).check(&["wait:30"]);
    Look::new(simple("Always"), crashed(40, 41)).check(&["start:a#5+80"]);
    Look::new(simple("Always"), crashed(300, 301)).check(&["start:a#5+300"]);
    let mut good = crashed(300, 1);
    good[0].started_at = Some(at(NOW - 700));
    Look::new(simple("Always"), good).check(&["start:a#5+10"]);
}

#[test]
fn a_failed_pull_waits_for_its_retry() {
    let mut look = Look::new(simple("Always"), vec![running("b", 0)]);
    look.retries.insert("a".into(), at(NOW + 7));
    look.check(&["wait:7"]);
    look.retries.insert("a".into(), at(NOW));
    look.check(&["start:a#0+0"]);
}

#[test]
fn a_new_image_restarts_without_waiting() {
    let mut look = Look::new(simple("Always"), vec![running("a", 0), running("b", 0)]);
    look.pod.spec.containers[0].image = "i2".into();
    look.check(&["kill:a0:ImageChanged"]);
    look.containers[0] = exited("a", 0, 143, 1, 40);
    look.check(&["start:a#1+80"]);
}

#[test]
fn failed_probes_kill() {
    let mut look = Look::new(simple("Always"), vec![running("a", 0), running("b", 0)]);
    look.probes.set(crate::probe::Kind::Liveness, "a0", false);
    look.probes.set(crate::probe::Kind::Startup, "b0", false);
    look.probes.set(crate::probe::Kind::Readiness, "b0", false);
    look.check(&["kill:a0:Liveness", "kill:b0:Startup"]);
}

#[test]
fn init_containers_run_in_order_and_a_sidecar_stays() {
    let mut look = Look::new(with_init("Always"), vec![running("i1", 0)]);
    look.check(&[]);
    look.containers = vec![exited("i1", 0, 0, 5, 0)];
    look.check(&["start:side#0+0"]);
    look.containers.push(running("side", 0));
    look.check(&[]);
    look.probes.set(crate::probe::Kind::Startup, "side0", true);
    look.check(&["start:i2#0+0"]);
    look.containers.push(exited("i2", 0, 0, 1, 0));
    look.check(&["start:a#0+0"]);
    look.containers.push(running("a", 0));
    look.check(&[]);
    // Later the sidecar restarts on its own, and finished init containers do not.
    look.containers[1] = exited("side", 0, 1, 30, 0);
    look.check(&["start:side#1+10"]);
}

#[test]
fn a_failed_init_container_is_tried_again_or_fails_the_pod() {
    let failed = || vec![exited("i1", 1, 1, 5, 10)];
    Look::new(with_init("Always"), failed()).check(&["wait:5"]);
    Look::new(with_init("OnFailure"), vec![exited("i1", 1, 1, 11, 10)]).check(&["start:i1#2+20"]);
    Look::new(with_init("Never"), failed()).check(&["kill-pod:InitFailed"]);
}

#[test]
fn sidecars_end_with_the_pod() {
    let containers = vec![
        exited("i1", 0, 0, 9, 0),
        running("side", 0),
        exited("i2", 0, 0, 9, 0),
        exited("a", 0, 0, 2, 0),
    ];
    Look::new(with_init("Never"), containers).check(&["kill-pod:Finished"]);
}

#[test]
fn a_deadline_is_waited_for_and_then_kept() {
    let mut look = Look::new(simple("Always"), vec![running("a", 0), running("b", 0)]);
    look.pod.spec.active_deadline_seconds = Some(1010);
    look.check(&["wait:10"]);
    look.begun = Some(at(NOW - 1010));
    look.check(&["kill-pod:DeadlineExceeded"]);
}

#[test]
fn a_finished_pod_stays_finished() {
    let mut look = Look::new(simple("Never"), vec![exited("a", 0, 0, 5, 0)]);
    look.pod.status.phase = "Succeeded".into();
    look.check(&["kill-pod:Finished"]);
    look.sandboxes[0].phase = Phase::Exited;
    look.check(&[]);
    look.sandboxes.clear();
    look.containers.clear();
    look.check(&[]);
}

#[test]
fn leftovers_are_removed_and_starts_cut_short_repeated() {
    let mut created = running("a", 3);
    created.phase = Phase::Created;
    let containers = vec![
        exited("a", 0, 1, 90, 0),
        exited("a", 1, 1, 80, 0),
        exited("a", 2, 1, 70, 0),
        created,
        running("b", 0),
    ];
    // The unstarted one is done again under its own number.
    Look::new(simple("Always"), containers).check(&[
        "remove:a3",
        "remove:a1",
        "remove:a0",
        "start:a#3+10",
    ]);
}

#[test]
fn an_old_sandbox_beside_a_live_one_goes() {
    let mut look = Look::new(simple("Always"), vec![running("a", 0), running("b", 0)]);
    look.sandboxes = vec![sandbox(0, Phase::Running), sandbox(1, Phase::Running)];
    look.containers.iter_mut().for_each(|c| c.sandbox_id = "s1".into());
    look.check(&["remove:s0"]);
}

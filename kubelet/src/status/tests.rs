use std::time::Duration;

use serde_json::json;

use super::*;
use crate::ports::PodRef;
use crate::probe::Kind;

fn at(secs: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + secs)
}

fn pod_ref() -> PodRef {
    PodRef { namespace: "n".into(), name: "p".into(), uid: "u".into() }
}

fn container(name: &str, attempt: u32, exit: Option<i32>) -> ContainerState {
    ContainerState {
        id: format!("{name}{attempt}"),
        sandbox_id: "s".into(),
        pod: pod_ref(),
        name: name.into(),
        attempt,
        phase: if exit.is_some() { Phase::Exited } else { Phase::Running },
        image: "docker.io/library/i:1".into(),
        image_id: "docker.io/library/i@sha256:1".into(),
        created_at: at(0),
        started_at: Some(at(0)),
        finished_at: exit.map(|_| at(5)),
        exit_code: exit,
        signal: None,
        oom_killed: false,
        pid: None,
        log_path: "/l".into(),
        annotations: BTreeMap::new(),
    }
}

/// One pod's look; `shown` is what people see of its status.
struct Look {
    pod: Pod,
    previous: PodStatus,
    containers: Vec<ContainerState>,
    history: History,
    probes: Results,
    waiting: BTreeMap<String, Waiting>,
    failed: Option<Waiting>,
    terminated: bool,
    now: SystemTime,
}

impl Look {
    fn new(spec: serde_json::Value, containers: Vec<ContainerState>) -> Self {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec});
        Self {
            pod: serde_json::from_value(pod).expect("a pod"),
            previous: PodStatus::default(),
            containers,
            history: History::default(),
            probes: Results::default(),
            waiting: BTreeMap::new(),
            failed: None,
            terminated: false,
            now: at(10),
        }
    }

    fn status(&self) -> PodStatus {
        let sandbox = SandboxState {
            id: "s".into(),
            pod: pod_ref(),
            attempt: 0,
            phase: Phase::Running,
            created_at: at(0),
            network_namespace: None,
            pid: None,
        };
        let sandboxes = if self.containers.is_empty() { vec![] } else { vec![sandbox] };
        pod_status(&Input {
            pod: &self.pod,
            previous: &self.previous,
            sandboxes: &sandboxes,
            containers: &self.containers,
            history: &self.history,
            probes: &self.probes,
            waiting: &self.waiting,
            messages: &BTreeMap::new(),
            pod_ips: &[[10, 42, 0, 2].into()],
            host_ip: [192, 168, 0, 1].into(),
            failed: self.failed.as_ref(),
            terminated: self.terminated,
            now: self.now,
        })
    }

    fn check(&self, expected: &[&str]) {
        let status = self.status();
        let mut shown = vec![status.phase.clone()];
        for c in status.init_container_statuses.iter().chain(&status.container_statuses) {
            let state = match &c.state {
                s if s.running.is_some() => "running".to_owned(),
                s if s.terminated.is_some() => {
                    let t = s.terminated.as_ref().expect("there");
                    format!("{}({})", t.reason, t.exit_code)
                }
                s => s.waiting.as_ref().map(|w| w.reason.clone()).unwrap_or_default(),
            };
            let ready = if c.ready { " ready" } else { "" };
            shown.push(format!("{} {state} x{}{ready}", c.name, c.restart_count));
        }
        shown.extend(status.conditions.iter().map(|c| {
            format!("{}={} {} {}", c.type_, c.status, c.reason, c.message).trim_end().to_owned()
        }));
        assert_eq!(shown, expected);
    }
}

fn two(policy: &str) -> serde_json::Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "i:1"}]})
}

#[test]
fn a_pod_just_bound() {
    Look::new(two("Always"), vec![]).check(&[
        "Pending",
        "a ContainerCreating x0",
        "b ContainerCreating x0",
        "PodReadyToStartContainers=False",
        "Initialized=True",
        "Ready=False ContainersNotReady containers with unready status: [a b]",
        "ContainersReady=False ContainersNotReady containers with unready status: [a b]",
        "PodScheduled=True",
    ]);
}

#[test]
fn a_running_pod() {
    let look = Look::new(two("Always"), vec![container("a", 0, None), container("b", 1, None)]);
    look.check(&[
        "Running",
        "a running x0 ready",
        "b running x1 ready",
        "PodReadyToStartContainers=True",
        "Initialized=True",
        "Ready=True",
        "ContainersReady=True",
        "PodScheduled=True",
    ]);
    let status = look.status();
    assert_eq!(status.container_statuses[0].container_id, "containerd://a0");
    assert_eq!(status.container_statuses[0].image_id, "docker.io/library/i@sha256:1");
    assert_eq!((status.pod_ip.as_str(), status.host_ip.as_str()), ("10.42.0.2", "192.168.0.1"));
    assert_eq!(status.qos_class, "BestEffort");
}

#[test]
fn probes_gate_readiness() {
    let spec = json!({"containers": [{"name": "a", "image": "i:1",
        "startupProbe": {"exec": {"command": ["x"]}}, "readinessProbe": {"exec": {"command": ["x"]}}}]});
    let mut look = Look::new(spec, vec![container("a", 0, None)]);
    let seen = |look: &Look| {
        let c = look.status().container_statuses[0].clone();
        (c.started, c.ready)
    };
    assert_eq!(seen(&look), (Some(false), false));
    look.probes.set(Kind::Startup, "a0", true);
    assert_eq!(seen(&look), (Some(true), false));
    look.probes.set(Kind::Readiness, "a0", true);
    assert_eq!(seen(&look), (Some(true), true));
}

#[test]
fn a_crash_loop_says_so() {
    let mut crashed = container("a", 2, Some(1));
    crashed.annotations.insert(crate::pod::history::BACKOFF_ANNOTATION.into(), "80".into());
    let look = Look::new(two("Always"), vec![crashed, container("b", 0, None)]);
    look.check(&[
        "Running",
        "a CrashLoopBackOff x2",
        "b running x0 ready",
        "PodReadyToStartContainers=True",
        "Initialized=True",
        "Ready=False ContainersNotReady containers with unready status: [a]",
        "ContainersReady=False ContainersNotReady containers with unready status: [a]",
        "PodScheduled=True",
    ]);
    let status = look.status();
    let a = &status.container_statuses[0];
    let waiting = a.state.waiting.as_ref().expect("waits");
    assert_eq!(waiting.message, "back-off 1m20s restarting failed container=a pod=p_n(u)");
    assert_eq!(a.last_state.terminated.as_ref().map(|t| t.exit_code), Some(1));
}

#[test]
fn ends_by_policy() {
    let phase = |policy: &str, a: i32, b: i32| {
        let containers = vec![container("a", 0, Some(a)), container("b", 0, Some(b))];
        Look::new(two(policy), containers).status().phase
    };
    assert_eq!(phase("Never", 0, 0), "Succeeded");
    assert_eq!(phase("Never", 0, 1), "Failed");
    assert_eq!(phase("OnFailure", 0, 0), "Succeeded");
    assert_eq!(phase("OnFailure", 0, 1), "Running");
    assert_eq!(phase("Always", 0, 1), "Running");
}

#[test]
fn a_job_s_pod_completes() {
    let mut oom = container("b", 0, Some(137));
    oom.oom_killed = true;
    Look::new(two("Never"), vec![container("a", 0, Some(0)), oom]).check(&[
        "Failed",
        "a Completed(0) x0",
        "b OOMKilled(137) x0",
        "PodReadyToStartContainers=True",
        "Initialized=True",
        "Ready=False PodFailed",
        "ContainersReady=False PodFailed",
        "PodScheduled=True",
    ]);
}

#[test]
fn init_containers_show_their_progress() {
    let spec = json!({
        "initContainers": [{"name": "i1", "image": "i:1"}, {"name": "i2", "image": "i:1"}],
        "containers": [{"name": "a", "image": "i:1"}]
    });
    Look::new(spec.clone(), vec![container("i1", 0, Some(0)), container("i2", 0, None)]).check(&[
        "Pending",
        "i1 Completed(0) x0 ready",
        "i2 running x0",
        "a PodInitializing x0",
        "PodReadyToStartContainers=True",
        "Initialized=False ContainersNotInitialized containers with incomplete status: [i2]",
        "Ready=False ContainersNotReady containers with unready status: [a]",
        "ContainersReady=False ContainersNotReady containers with unready status: [a]",
        "PodScheduled=True",
    ]);
    let mut failed = Look::new(spec, vec![container("i1", 0, Some(3))]);
    failed.pod.spec.restart_policy = "Never".into();
    assert_eq!(failed.status().phase, "Failed");
}

#[test]
fn image_failures_wait_with_their_reason() {
    let mut look = Look::new(two("Always"), vec![container("b", 0, None)]);
    look.waiting
        .insert("a".into(), Waiting::new("ImagePullBackOff", "Back-off pulling image \"i:1\""));
    let status = look.status();
    let a = status.container_statuses[0].state.waiting.clone().expect("waits");
    assert_eq!((status.phase.as_str(), a.reason.as_str()), ("Pending", "ImagePullBackOff"));
}

#[test]
fn deletion_and_deadline_end_a_pod() {
    let ended = || vec![container("a", 0, Some(0)), container("b", 0, Some(143))];
    let mut look = Look::new(two("Always"), ended());
    look.terminated = true;
    assert_eq!(look.status().phase, "Failed");
    look = Look::new(two("Always"), vec![container("a", 0, None), container("b", 0, None)]);
    look.failed = Some(Waiting::new("DeadlineExceeded", "m"));
    let status = look.status();
    assert_eq!((status.phase.as_str(), status.reason.as_str()), ("Failed", "DeadlineExceeded"));
    // And it stays so when the records are gone.
    let mut later = Look::new(two("Always"), vec![]);
    later.previous = status;
    assert_eq!(later.status().phase, "Failed");
}

#[test]
fn transition_times_move_only_with_the_status() {
    let mut look = Look::new(two("Always"), vec![container("a", 0, None), container("b", 0, None)]);
    let first = look.status();
    look.previous = first.clone();
    look.now = at(100);
    assert_eq!(look.status(), first);
    look.containers[0] = container("a", 0, Some(1));
    let changed = look.status();
    let since = |status: &PodStatus, type_: &str| {
        status.conditions.iter().find(|c| c.type_ == type_).and_then(|c| c.last_transition_time)
    };
    assert_eq!(since(&changed, "Ready"), Some(Timestamp::seconds(at(100))));
    assert_eq!(since(&changed, "Initialized"), since(&first, "Initialized"));
}

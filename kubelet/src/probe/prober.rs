//! The tasks that ask the containers of one pod, and what they found. A verdict that changes
//! something wakes the pod's worker.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use skiff_proto::ObjectReference;
use skiff_proto::model::{Container, Pod, PodStatus, Probe};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::ask::{Answer, ask};
use super::machine::Machine;
use super::{Kind, Results};
use crate::pod::context::{Context, about_container, find_container};
use crate::pod::plan::{Role, role};
use crate::ports::{ContainerState, Phase};

pub struct Prober {
    ctx: Arc<Context>,
    wake: Arc<Notify>,
    results: Arc<Mutex<Results>>,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    running: BTreeMap<(Kind, String), AbortHandle>,
    /// The pod is ending: only its readiness still matters, or nothing.
    only_readiness: bool,
    stopped: bool,
}

impl Prober {
    pub fn new(ctx: Arc<Context>, wake: Arc<Notify>) -> Self {
        Self { ctx, wake, results: Arc::default(), tasks: Mutex::default() }
    }

    pub fn results(&self) -> Results {
        lock(&self.results).clone()
    }

    /// What an earlier kubelet found about containers that still run: a restart of the
    /// kubelet makes no pod unready.
    pub fn inherit(&self, status: &PodStatus) {
        let mut results = lock(&self.results);
        let all = status.init_container_statuses.iter().chain(&status.container_statuses);
        for container in all.filter(|c| c.state.running.is_some()) {
            let id = container.container_id.trim_start_matches("containerd://");
            if container.started == Some(true) {
                results.set(Kind::Startup, id, true);
            }
            if container.ready {
                results.set(Kind::Readiness, id, true);
            }
        }
    }

    /// Has exactly those tasks that the pod's running containers need.
    pub fn reconcile(&self, pod: &Pod, containers: &[ContainerState], ips: &[IpAddr]) {
        let mut tasks = lock(&self.tasks);
        let running = |id: &str| containers.iter().any(|c| c.id == id && c.phase == Phase::Running);
        tasks.running.retain(|(_, id), task| {
            let keep = running(id);
            if !keep {
                task.abort();
            }
            keep
        });
        lock(&self.results).retain(|id| running(id));
        if tasks.stopped {
            return;
        }
        for state in containers.iter().filter(|c| c.phase == Phase::Running) {
            let Some(container) = find_container(pod, &state.name) else { continue };
            if role(pod, &state.name) == Role::Init {
                continue;
            }
            let started = lock(&self.results).started(container, &state.id);
            for (kind, probe) in wanted(container, started) {
                if tasks.only_readiness && kind != Kind::Readiness {
                    continue;
                }
                tasks.running.entry((kind, state.id.clone())).or_insert_with(|| {
                    self.spawn(pod, container, state, kind, probe, ips.first().copied())
                });
            }
        }
    }

    fn spawn(
        &self,
        pod: &Pod,
        container: &Container,
        state: &ContainerState,
        kind: Kind,
        probe: &Probe,
        pod_ip: Option<IpAddr>,
    ) -> AbortHandle {
        let host_network = pod.spec.host_network;
        let address = if host_network { Some(self.ctx.config.node_ip) } else { pod_ip };
        let task = Task {
            ctx: self.ctx.clone(),
            wake: self.wake.clone(),
            results: self.results.clone(),
            about: about_container(pod, container),
            container: container.clone(),
            id: state.id.clone(),
            started_at: state.started_at.unwrap_or(state.created_at),
            kind,
            probe: probe.clone(),
            address,
        };
        tokio::spawn(task.run()).abort_handle()
    }

    /// A pod that ends is not restarted for its health, but may still become unready.
    pub fn only_readiness(&self) {
        let mut tasks = lock(&self.tasks);
        tasks.only_readiness = true;
        tasks.running.retain(|(kind, _), task| {
            if *kind != Kind::Readiness {
                task.abort();
            }
            *kind == Kind::Readiness
        });
    }

    pub fn stop(&self) {
        let mut tasks = lock(&self.tasks);
        tasks.stopped = true;
        tasks.running.values().for_each(AbortHandle::abort);
        tasks.running.clear();
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The startup probe holds the others back until it succeeds.
fn wanted(container: &Container, started: bool) -> Vec<(Kind, &Probe)> {
    let probes = if started {
        vec![
            (Kind::Liveness, &container.liveness_probe),
            (Kind::Readiness, &container.readiness_probe),
        ]
    } else {
        vec![(Kind::Startup, &container.startup_probe)]
    };
    probes.into_iter().filter_map(|(kind, probe)| Some((kind, probe.as_ref()?))).collect()
}

struct Task {
    ctx: Arc<Context>,
    wake: Arc<Notify>,
    results: Arc<Mutex<Results>>,
    about: ObjectReference,
    container: Container,
    id: String,
    started_at: SystemTime,
    kind: Kind,
    probe: Probe,
    address: Option<IpAddr>,
}

impl Task {
    async fn run(self) {
        let mut machine = Machine::new(self.kind, &self.probe);
        let now = SystemTime::now();
        let first = machine.first_ask(self.started_at, now, jitter(&self.id));
        tokio::time::sleep(first.duration_since(now).unwrap_or_default()).await;
        let mut ticks = tokio::time::interval(machine.period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !machine.is_over() {
            ticks.tick().await;
            let answer = ask(
                &*self.ctx.runtime,
                &self.container,
                &self.id,
                &self.probe,
                self.address,
                machine.timeout,
            )
            .await;
            self.tell(&answer);
            if let Some(verdict) = machine.answer(answer.success())
                && lock(&self.results).set(self.kind, &self.id, verdict)
            {
                self.wake.notify_one();
            }
        }
    }

    fn tell(&self, answer: &Answer) {
        let kind = self.kind.name();
        match answer {
            Answer::Success => {}
            Answer::Failure(why) => {
                let text = format!("{kind} probe failed: {why}");
                self.ctx.recorder.warning(&self.about, "Unhealthy", text);
            }
            Answer::Unknown(why) => {
                let text = format!("{kind} probe errored and resulted in unknown state: {why}");
                self.ctx.recorder.warning(&self.about, "Unhealthy", text);
            }
        }
    }
}

/// Between 0 and 1, the same for the same container.
fn jitter(id: &str) -> f64 {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
    (hash % 1024) as f64 / 1024.0
}

//! Connects the pure scheduler with the API: watches feed it, its decisions are carried out.
//!
//! ```text
//!   caches ──lock──▶ Scheduler ──decide──▶ execute (many at a time) ──bound / failed──▶ Scheduler
//!      └──── wake ────▶ loop
//! ```

mod execute;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use skiff_client::event::Recorder;
use skiff_client::{Api, Cache};
use skiff_proto::{Labels, resource};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::nodes::NodeInfo;
use crate::plugins;
use crate::pod::PodInfo;
use crate::queue::Moment;
use crate::scheduler::Scheduler;

/// Bindings under way at shutdown get this long to end.
const DRAIN: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    #[error("scheduler configuration: {}", .0.join("; "))]
    Config(Vec<String>),
}

/// The scheduler, shared between the watches and the loop. Held for one decision or one
/// change at a time, both far below the time of a request.
struct Shared {
    scheduler: Mutex<Scheduler>,
    changed: Notify,
    begin: Instant,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Scheduler> {
        self.scheduler.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn now(&self) -> Moment {
        self.begin.elapsed()
    }

    /// Applies a change and lets the loop look at it.
    fn change(&self, apply: impl FnOnce(&mut Scheduler, Moment)) {
        apply(&mut self.lock(), self.now());
        self.changed.notify_one();
    }
}

/// Runs until `shutdown`; `ready` is called once the first lists are in.
/// Boxed: see "Build time" in ARCHITECTURE.md.
pub fn run(
    api: Arc<dyn Api>,
    config: Config,
    shutdown: CancellationToken,
    ready: Box<dyn FnOnce() + Send>,
) -> BoxFuture<'static, Result<(), SchedulerError>> {
    Box::pin(async move {
        config.validate().map_err(SchedulerError::Config)?;
        let scheduler =
            Scheduler::new(&config.scheduler_name, plugins::default_profile(), config.seed);
        let shared = Arc::new(Shared {
            scheduler: Mutex::new(scheduler),
            changed: Notify::new(),
            begin: Instant::now(),
        });
        // The caches must outlive the loop: they are what feeds the scheduler.
        let (nodes, pods, namespaces) = watch(&api, &shared, &shutdown);
        let synced = async { tokio::join!(nodes.synced(), pods.synced(), namespaces.synced()) };
        if shutdown.run_until_cancelled(synced).await.is_none() {
            return Ok(());
        }
        tracing::info!(nodes = nodes.len(), pods = pods.len(), "scheduler has its first lists");
        ready();
        let recorder = Recorder::new(api.clone(), &config.scheduler_name, "");
        let mut tasks = JoinSet::new();
        let loop_ = schedule(api, &shared, recorder, config.max_binds_in_flight, &mut tasks);
        shutdown.run_until_cancelled(loop_).await;
        let drained = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!(
                "bindings still under way at shutdown; the next start sees their outcome"
            );
        }
        Ok(())
    })
}

type Caches = (Arc<Cache<NodeInfo>>, Arc<Cache<PodInfo>>, Arc<Cache<Labels>>);

fn watch(api: &Arc<dyn Api>, shared: &Arc<Shared>, shutdown: &CancellationToken) -> Caches {
    let to = shared.clone();
    let nodes = Cache::projected(api.clone(), &resource::NODES, |o| NodeInfo::read(o)).on_change(
        move |change| match change.new {
            Some(node) => {
                let node = NodeInfo::clone(&node.value);
                to.change(|scheduler, now| scheduler.set_node(node, now));
            }
            None => to.change(|scheduler, now| scheduler.remove_node(&change.key.name, now)),
        },
    );
    let to = shared.clone();
    let pods = Cache::projected(api.clone(), &resource::PODS, |o| PodInfo::read(o)).on_change(
        move |change| {
            let (old, new) = (change.old.map(|e| &e.value), change.new.map(|e| &e.value));
            to.change(|scheduler, now| {
                // Also when a pod was deleted and made anew between two lists.
                if let Some(old) = old.filter(|old| new.is_none_or(|new| new.uid != old.uid)) {
                    scheduler.remove_pod(&old.uid, now);
                }
                if let Some(new) = new {
                    scheduler.set_pod(new.clone(), now);
                }
            });
        },
    );
    let to = shared.clone();
    let namespaces =
        Cache::projected(api.clone(), &resource::NAMESPACES, |o| Ok(o.labels().clone())).on_change(
            move |change| {
                let labels = change.new.map(|entry| Labels::clone(&entry.value));
                to.change(|scheduler, _| scheduler.set_namespace(&change.key.name, labels));
            },
        );
    (nodes.start(shutdown), pods.start(shutdown), namespaces.start(shutdown))
}

/// Decides, and hands each decision to a task of its own, as many as are allowed in flight.
async fn schedule(
    api: Arc<dyn Api>,
    shared: &Arc<Shared>,
    recorder: Recorder,
    in_flight: usize,
    tasks: &mut JoinSet<()>,
) {
    let permits = Arc::new(Semaphore::new(in_flight));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let (decision, next) = {
            let mut scheduler = shared.lock();
            (scheduler.decide(shared.now()), scheduler.next_moment())
        };
        let Some(decision) = decision else {
            drop(permit);
            wait(shared, next).await;
            continue;
        };
        while tasks.try_join_next().is_some() {}
        let (api, recorder, shared) = (api.clone(), recorder.clone(), shared.clone());
        tasks.spawn(async move {
            execute::execute(&*api, &recorder, &shared, decision).await;
            drop(permit);
        });
    }
}

/// Until something changes or time makes a pod due.
async fn wait(shared: &Shared, next: Option<Moment>) {
    let changed = shared.changed.notified();
    match next {
        Some(next) => {
            let due = next.saturating_sub(shared.now());
            // Either way the loop looks again.
            let _ = tokio::time::timeout(due, changed).await;
        }
        None => changed.await,
    }
}

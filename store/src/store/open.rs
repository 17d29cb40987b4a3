//! Starting and stopping a member.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver as _;

use super::batch::{self, Proposer};
use super::identity::{self, io_error};
use super::leadership::{self, Leadership};
use super::reads::{self, Reads};
use super::{
    Inner, OpenError, RaftHandle, Store, join, lease, members, removal, snapshotter, space,
};
use crate::config::{Config, InitialState};
use crate::core::{self, Core};
use crate::engine::worker::EngineQueue;
use crate::engine::{Engine, EngineError};
use crate::mvcc::Mvcc;
use crate::ports::Ports;
use crate::raft::executor::Executor;
use crate::raft::log::{LogStore, SoleVoter};
use crate::raft::machine::{Machine, write_snapshot};
use crate::raft::network::peer::Network;
use crate::raft::types::AppliedTo;
use crate::snapshot::SnapshotFolder;
use crate::wal::disk::Disk;
use crate::wal::{LogWriter, Wal, WalOptions};

impl Store {
    /// Opens the data folder, or starts a new cluster in it. Returns when this member can
    /// serve what it had acknowledged before; with several members it may still be looking
    /// for a leader.
    pub async fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        Self::open_on(config, Ports::default()).await
    }

    /// On a machine of the caller's choice.
    /// Boxed: see "Build time" in ARCHITECTURE.md.
    pub fn open_on(
        config: Config,
        ports: Ports,
    ) -> BoxFuture<'static, Result<Arc<Self>, OpenError>> {
        Box::pin(async move {
            config.validate()?;
            let dir = config.data_dir.clone();
            let disk = ports.disk.clone();
            disk.create_folder(&dir.join("log")).map_err(io_error("create", &dir))?;
            if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                // Otherwise a power cut could take the whole new folder along.
                disk.sync_folder(parent).map_err(io_error("sync", parent))?;
            }
            let lock = identity::wait_for_lock(&*disk, &dir).await?;
            removal::check(&*disk, &dir)?;
            let transport = ports.transport(&config);
            let config = join::discover(config, &*disk, &*transport).await?;
            let identity = identity::load(&*disk, &config)?;
            let sole_voter = SoleVoter::new(identity.member_id);
            // Reading the log and the engine blocks; other parts of the process start meanwhile.
            let blocking = {
                let (config, ports, cluster_id) =
                    (config.clone(), ports.clone(), identity.cluster_id);
                move || open_storage(&config, &ports, cluster_id)
            };
            let opened = ports.background.run("open", blocking).await;
            let Storage { wal, log_writer, core, engine_thread } =
                opened.map_err(|error| OpenError::Raft(error.to_string()))??;
            cover_applied(&wal, &core).await?;
            let executor = Executor::start(&ports.background)
                .map_err(io_error("start Raft's thread for", &dir))?;
            let log_writer = executor.spawn(log_writer.run(ports.background.clone()));
            let log = LogStore::new(wal.clone(), sole_voter.clone());
            let (cluster_id, id) = (identity.cluster_id, identity.member_id);
            let network = Network::new(transport, cluster_id, id);
            let starting =
                start_raft(config.clone(), network.clone(), log, sole_voter.clone(), core.clone());
            let raft = executor.spawn(starting).await;
            let raft = raft.map_err(|error| OpenError::Raft(error.to_string()))??;
            let (reads, waiting) = Reads::new();
            let (proposer, pending) = Proposer::new();
            let inner = Arc::new(Inner {
                config,
                identity,
                core,
                raft,
                wal,
                disk,
                sole_voter,
                network,
                leadership: Leadership::new(),
                reads,
                proposer: Mutex::new(Some(proposer)),
                removed: Default::default(),
                lease_clock: Mutex::default(),
                lease_term: Default::default(),
                started: tokio::time::Instant::now(),
                changing: tokio::sync::Mutex::default(),
            });
            bootstrap(&inner).await?;
            leadership::refresh(&inner);
            let batcher = executor.spawn(batch::run(inner.clone(), pending));
            let tasks = vec![
                executor.spawn(lease::run(inner.clone())),
                executor.spawn(removal::run(inner.clone())),
                executor.spawn(snapshotter::run(inner.clone())),
                executor.spawn(space::run(inner.clone())),
                executor.spawn(leadership::run(inner.clone())),
                executor.spawn(reads::run(inner.clone(), waiting)),
                executor.spawn(members::publish(inner.clone())),
                executor.spawn(members::promote_ready(inner.clone())),
                executor.spawn(follow_ticks(inner.clone())),
            ];
            Ok(Arc::new(Store {
                inner,
                tasks: Mutex::new(tasks),
                batcher: Mutex::new(Some(batcher)),
                log_writer: Mutex::new(Some(log_writer)),
                engine_thread: Mutex::new(engine_thread),
                executor: Arc::new(executor),
                _lock: lock,
            }))
        })
    }

    /// Finishes what has been accepted, then stops. Nothing is lost if this is not called;
    /// the next start just replays more. The folder can be opened again when the last handle
    /// to this store is dropped.
    /// Boxed: see "Build time" in ARCHITECTURE.md.
    pub fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.take_proposer();
            let tasks: Vec<_> = lock(&self.tasks).drain(..).collect();
            for task in tasks {
                task.abort();
                // Aborted on purpose.
                let _ = task.await;
            }
            let batcher = lock(&self.batcher).take();
            if let Some(batcher) = batcher {
                let _ = batcher.await;
            }
            if let Err(error) = self.inner.raft.shutdown().await {
                tracing::warn!(%error, "Raft did not stop cleanly");
            }
            self.inner.wal.close();
            let log_writer = lock(&self.log_writer).take();
            let mut well = match log_writer {
                Some(writer) => writer.await.is_ok(),
                None => true,
            };
            self.inner.core.queue.close().await;
            let engine_thread = lock(&self.engine_thread).take();
            let (core, executor) = (self.inner.core.clone(), self.executor.clone());
            let joined = self.inner.core.background.run("close", move || {
                let stopped = executor.stop();
                // A second call finds it gone, and the folder may be another's by then.
                let Some(thread) = engine_thread else { return stopped };
                let ended = thread.join().is_ok() && stopped;
                if let Err(error) = core.engine.close() {
                    tracing::warn!(%error, "cannot close the engine; the next start replays more of the log");
                }
                ended
            });
            well &= joined.await.unwrap_or(false);
            if !well {
                tracing::error!("a thread of the store panicked");
            }
        })
    }

    fn take_proposer(&self) {
        lock(&self.inner.proposer).take();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct Storage {
    wal: Arc<Wal>,
    log_writer: LogWriter,
    core: Arc<Core>,
    engine_thread: Option<std::thread::JoinHandle<()>>,
}

fn open_storage(config: &Config, ports: &Ports, cluster_id: u64) -> Result<Storage, OpenError> {
    let (dir, disk, background) = (&config.data_dir, &ports.disk, &ports.background);
    let options = WalOptions { segment_bytes: config.log_segment_bytes, ..Default::default() };
    let (wal, log_writer) = Wal::open(&dir.join("log"), disk.clone(), options)?;
    let snapshots = SnapshotFolder::open(disk.clone(), dir.join("snapshots"))?;
    let current = snapshots.current()?;
    let path = dir.join("engine");
    let (engine, mvcc, applied) = open_engine(&path, ports, config)?;
    let covered = current
        .as_ref()
        .and_then(|(_, header)| AppliedTo::decode(header.meta.applied.clone()).ok());
    let reached = [&applied.log_id, &covered.and_then(|covered| covered.log_id)];
    let reached = reached.into_iter().flatten().map(|id| id.index()).max();
    if let Some((purged, _)) = wal.purged()
        && reached.is_none_or(|reached| reached < purged)
    {
        return Err(OpenError::Lost { path, purged });
    }
    let (queue, engine_thread) =
        EngineQueue::start(engine.clone(), disk.clone(), mvcc.revision(), background)
            .map_err(io_error("start the thread of", &path))?;
    let file = current.map(|(file, _)| file);
    let core = Core::new(
        mvcc,
        applied,
        engine,
        queue,
        snapshots,
        file,
        cluster_id,
        config.recent_bytes,
        background.clone(),
    );
    Ok(Storage { wal: Arc::new(wal), log_writer, core: Arc::new(core), engine_thread })
}

type Opened = (Arc<dyn Engine>, Mvcc, AppliedTo);

fn try_engine(path: &Path, ports: &Ports, config: &Config) -> Result<Opened, EngineError> {
    let engine = ports.open_engine(path, config)?;
    let (mvcc, applied) = core::load(&*engine, config.recent_bytes)?;
    Ok((engine, mvcc, applied))
}

/// Opens the engine; one that is broken is moved aside, and what it held comes back from
/// the snapshot and the log.
fn open_engine(path: &Path, ports: &Ports, config: &Config) -> Result<Opened, OpenError> {
    let disk = &*ports.disk;
    let suspect = config.data_dir.join("engine.suspect");
    let first = if disk.exists(&suspect) {
        Err(EngineError::Inconsistent)
    } else {
        try_engine(path, ports, config)
    };
    let opened = match first {
        Ok(opened) => opened,
        Err(EngineError::NoSpace { .. }) => {
            return Err(OpenError::NoSpace { path: path.to_owned() });
        }
        Err(cause) => {
            set_aside(path, disk, config, &cause)?;
            try_engine(path, ports, config)
                .map_err(|source| OpenError::Engine { path: path.to_owned(), source })?
        }
    };
    if disk.exists(&suspect) {
        disk.remove(&suspect).map_err(io_error("remove", &suspect))?;
    }
    Ok(opened)
}

fn set_aside(
    path: &Path,
    disk: &dyn Disk,
    config: &Config,
    cause: &EngineError,
) -> Result<(), OpenError> {
    let aside = config.data_dir.join("engine.broken");
    tracing::error!(
        engine = %path.display(), aside = %aside.display(), %cause,
        "the engine is damaged: moved aside, rebuilding it from the snapshot and the log"
    );
    if disk.exists(&aside) {
        disk.remove_folder(&aside).map_err(io_error("remove", &aside))?;
    }
    if disk.exists(path) {
        disk.rename(path, &aside).map_err(io_error("move aside", path))?;
    }
    Ok(())
}

async fn start_raft(
    config: Config,
    network: Network,
    log: LogStore,
    sole_voter: SoleVoter,
    core: Arc<Core>,
) -> Result<RaftHandle, OpenError> {
    let raft_config = openraft::Config {
        cluster_name: config.cluster_token.clone(),
        heartbeat_interval: config.heartbeat_ms,
        election_timeout_min: config.election_wait_ms(),
        election_timeout_max: config.leader_lease_ms(),
        // A leader that hears no majority falls silent for so long, so that those who still
        // hear it elect another.
        quorum_loss_probe_interval: Some(2 * config.leader_lease_ms()),
        install_snapshot_timeout: 60_000,
        // Snapshots are written by our own task; see `snapshotter`.
        snapshot_policy: openraft::SnapshotPolicy::Never,
        // Nor does the library purge the log by itself.
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 1,
        enable_pre_vote: Some(true),
        // A leader that comes back has lost what it had sent out but not synced. Leading on in
        // the same term, it would put other entries under ids that its followers know.
        enable_leader_restore: Some(false),
        // A member that comes back has what it missed soon.
        backoff: "20ms 40ms 80ms ...400ms".into(),
        // Turned on as soon as there is another member to hear or to wait for.
        enable_tick: false,
        ..Default::default()
    };
    let raft_config = raft_config.validate().map_err(|error| OpenError::Raft(error.to_string()))?;
    let raft_error = |error: &dyn std::fmt::Display| OpenError::Raft(error.to_string());
    let machine = Machine::new(core, sole_voter.clone());
    let raft = Raft::new(network.id, Arc::new(raft_config), network, log, machine)
        .await
        .map_err(|error| raft_error(&error))?;
    // From snapshot, engine and log together; Raft has just put it together.
    let members =
        raft.with_raft_state(|state| state.membership_state.effective().membership().clone());
    sole_voter.follow(&members.await.map_err(|error| raft_error(&error))?);
    Ok(raft)
}

/// A member may have applied what its own log had not synced yet, since a majority had it, and a
/// crash may then leave the engine ahead of the log. The library lets such a log begin after what
/// is applied, and that only a snapshot may stand for: the engine can be lost.
async fn cover_applied(wal: &Wal, core: &Arc<Core>) -> Result<(), OpenError> {
    let applied = core.applied().log_id.map(|id| id.index());
    let last = wal.last().map(|(index, _)| index);
    if applied > last && applied > core.snapshot_index() {
        let written = write_snapshot(core).await;
        written.map_err(|error| OpenError::Raft(error.to_string()))?;
    }
    Ok(())
}

async fn bootstrap(inner: &Inner) -> Result<(), OpenError> {
    let raft_error = |error: &dyn std::fmt::Display| OpenError::Raft(error.to_string());
    let raft = &inner.raft;
    let initialized = raft.is_initialized().await.map_err(|error| raft_error(&error))?;
    if !initialized && inner.config.initial_state == InitialState::New {
        let members: BTreeMap<_, _> = inner.config.initial_members().into_iter().collect();
        tracing::info!(members = members.len(), cluster = %format!("{:x}", inner.identity.cluster_id), "starting a new cluster");
        raft.initialize(members).await.map_err(|error| raft_error(&error))?;
    }
    if inner.sole_voter.is_only() {
        // Nobody else could be asked, so there is nothing to wait for.
        if !raft.is_leader() {
            raft.trigger().elect(false).await.map_err(|error| raft_error(&error))?;
        }
        raft.wait(Some(std::time::Duration::from_secs(30)))
            .current_leader(inner.identity.member_id, "the only voter leads")
            .await
            .map_err(|error| raft_error(&error))?;
        // Everything in its log counts, for nobody else can say otherwise.
        let last = inner.wal.last().map(|(index, _)| index);
        raft.wait(None)
            .applied_index_at_least(last, "the log is applied")
            .await
            .map_err(|error| raft_error(&error))?;
        inner.sole_voter.settle();
    }
    Ok(())
}

/// Raft's timers run only when there are others: alone, nothing ever wakes up.
async fn follow_ticks(inner: Arc<Inner>) {
    let mut metrics = inner.raft.server_metrics();
    loop {
        let alone = {
            let metrics = metrics.borrow_and_update();
            metrics.membership_config.nodes().count() <= 1 && inner.sole_voter.is_settled()
        };
        inner.raft.runtime_config().tick(!alone);
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

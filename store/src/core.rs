//! The applied state of a member, shared by the applier, the readers and the watches.
//!
//! ```text
//!             apply (one at a time)
//!               |  1 state changed, under its lock
//!               |  2 watches told
//!               |  3 clients answered
//!               v  4 batch to the engine's thread
//! ranges -> mvcc lock -> plan -> values from memory or the engine, without the lock
//! ```
//!
//! Locks are taken in the order hub, mvcc. Nothing waits while holding one, except for a
//! value that has to be read from the engine.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::{Notify, mpsc, watch};

use crate::background::Background;
use crate::command::{Answer, Command, Outcome, Proposal};
use crate::engine::worker::{EngineQueue, HOLD_RECORDS};
use crate::engine::{Engine, EngineError, Meta};
use crate::kv::{KeyValue, KvError, LeaseId, Revision, WatchMessage};
use crate::mvcc::revision::Rev;
use crate::mvcc::watch::{Offer, Sink, WatchGroups};
use crate::mvcc::{Change, Mvcc, ReadFault, WriteBatch};
use crate::raft::types::AppliedTo;
use crate::snapshot::{SnapshotError, SnapshotFile, SnapshotFolder};

/// A watch's bounded queue. One place is kept free for the last message.
pub struct QueueSink {
    queue: mpsc::Sender<WatchMessage>,
    last: Option<mpsc::OwnedPermit<WatchMessage>>,
}

impl QueueSink {
    /// `None` if nobody listens.
    pub fn new(queue: mpsc::Sender<WatchMessage>, last: mpsc::OwnedPermit<WatchMessage>) -> Self {
        Self { queue, last: Some(last) }
    }
}

impl Sink for QueueSink {
    fn offer(&mut self, message: WatchMessage) -> Offer {
        if self.queue.is_closed() {
            return Offer::Gone;
        }
        if matches!(&message, WatchMessage::Events { events, .. } if events.is_empty()) {
            return Offer::Taken;
        }
        match self.queue.try_send(message) {
            Ok(()) => Offer::Taken,
            Err(mpsc::error::TrySendError::Full(_)) => Offer::Full,
            Err(mpsc::error::TrySendError::Closed(_)) => Offer::Gone,
        }
    }

    fn close(&mut self, message: WatchMessage) {
        if let Some(last) = self.last.take() {
            last.send(message);
        }
    }
}

pub type Hub = WatchGroups<QueueSink>;

/// A lease that came or went, for the leader's clock.
#[derive(Debug, Clone, Copy)]
pub enum LeaseNews {
    Granted { id: LeaseId, ttl_seconds: i64 },
    Gone { id: LeaseId },
}

pub struct Core {
    mvcc: RwLock<Mvcc>,
    hub: Mutex<Hub>,
    pub engine: Arc<dyn Engine>,
    pub queue: EngineQueue,
    pub snapshots: SnapshotFolder,
    current_snapshot: Mutex<Option<SnapshotFile>>,
    applied: Mutex<AppliedTo>,
    /// For those who wait until this member has applied an entry.
    pub applied_index: watch::Sender<u64>,
    pub cluster_id: u64,
    recent_limit_bytes: usize,
    pub background: Background,
    lease_news: Mutex<Vec<LeaseNews>>,
    pub lease_wake: Notify,
    /// There may be less space than before, or another alarm.
    pub space_wake: Notify,
}

/// What one round of applying leaves to be done outside the lock.
pub struct Round {
    pub answers: Vec<Vec<Answer>>,
    pub batches: Vec<(WriteBatch, Meta)>,
}

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("apply: {0}")]
    Read(#[from] ReadFault),
    #[error("apply: {0}")]
    Decode(#[from] crate::codec::DecodeError),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        mvcc: Mvcc,
        applied: AppliedTo,
        engine: Arc<dyn Engine>,
        queue: EngineQueue,
        snapshots: SnapshotFolder,
        current_snapshot: Option<SnapshotFile>,
        cluster_id: u64,
        recent_limit_bytes: usize,
        background: Background,
    ) -> Self {
        let hub = WatchGroups::new(mvcc.revision());
        let index = applied.log_id.map_or(0, |id| id.index());
        Self {
            mvcc: RwLock::new(mvcc),
            hub: Mutex::new(hub),
            engine,
            queue,
            snapshots,
            current_snapshot: Mutex::new(current_snapshot),
            applied: Mutex::new(applied),
            applied_index: watch::Sender::new(index),
            cluster_id,
            recent_limit_bytes,
            background,
            lease_news: Mutex::new(Vec::new()),
            lease_wake: Notify::new(),
            space_wake: Notify::new(),
        }
    }

    pub fn mvcc(&self) -> RwLockReadGuard<'_, Mvcc> {
        self.mvcc.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn mvcc_mut(&self) -> RwLockWriteGuard<'_, Mvcc> {
        self.mvcc.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn hub(&self) -> MutexGuard<'_, Hub> {
        lock(&self.hub)
    }

    pub fn applied(&self) -> AppliedTo {
        lock(&self.applied).clone()
    }

    pub fn snapshot_file(&self) -> Option<SnapshotFile> {
        lock(&self.current_snapshot).clone()
    }

    pub fn take_lease_news(&self) -> Vec<LeaseNews> {
        std::mem::take(&mut *lock(&self.lease_news))
    }

    /// Applies the proposals of some consecutive entries, the last of which is at `applied`.
    /// Watches are told before this returns, and so before any client is answered.
    pub fn apply(
        &self,
        proposals: &[Option<&Proposal>],
        applied: AppliedTo,
    ) -> Result<Round, ApplyError> {
        let engine: &dyn Engine = &*self.engine;
        let mut batch = WriteBatch::default();
        let mut changes: Vec<Change> = Vec::new();
        let mut answers = Vec::with_capacity(proposals.len());
        let mut news = Vec::new();
        let (revision, batches) = {
            let mut mvcc = self.mvcc_mut();
            for proposal in proposals {
                let commands = proposal.map_or(Ok(Vec::new()), Proposal::decode)?;
                batch.log_bytes += proposal.map_or(0, |proposal| proposal.0.len());
                let mut entry_answers = Vec::with_capacity(commands.len());
                for command in &commands {
                    let done = mvcc.apply(command, engine, &mut batch)?;
                    note_leases(command, &done.answer, &mut news);
                    if matches!(command, Command::Alarm(_)) {
                        self.space_wake.notify_one();
                    }
                    changes.extend(done.changes);
                    entry_answers.push(done.answer);
                }
                answers.push(entry_answers);
            }
            mvcc.trim(self.queue.persisted());
            // Under the lock, so that a snapshot finds the two in agreement.
            *lock(&self.applied) = applied.clone();
            (mvcc.revision(), take_batches(&mut mvcc, batch, &applied))
        };
        self.hub().notify(revision, &changes, &mut |change| self.replaced(change));
        if !news.is_empty() {
            lock(&self.lease_news).extend(news);
            self.lease_wake.notify_one();
        }
        self.applied_index.send_replace(applied.log_id.map_or(0, |id| id.index()));
        Ok(Round { answers, batches })
    }

    /// What a change replaced; nothing if that has been compacted already.
    pub fn replaced(&self, change: &Change) -> Option<KeyValue> {
        let version = change.previous?;
        let engine: &dyn Engine = &*self.engine;
        let record = self.mvcc().fetch(&version, engine).ok()?;
        Some(record.to_key_value(version.rev))
    }

    /// Replaces everything with what a snapshot holds. Blocks.
    pub fn install(&self, file: &SnapshotFile) -> Result<(), SnapshotError> {
        let header = file.verify()?;
        let applied = AppliedTo::decode(header.meta.applied.clone())?;
        let (term, index) =
            applied.log_id.map_or((0, 0), |id| (crate::raft::types::term_of(&id), id.index()));
        let kept = self.snapshots.keep(file, term, index, |file| self.note_snapshot(file))?;
        let file = kept.as_ref().unwrap_or(file);
        let mut fresh = Mvcc::new(self.recent_limit_bytes);
        fill_engine(&*self.engine, file, &mut fresh)?;
        let revision = fresh.revision();
        self.queue.reset(revision);
        let mut hub = self.hub();
        *self.mvcc_mut() = fresh;
        // What happened in between was not seen as changes: all watches begin again.
        hub.restart(revision);
        drop(hub);
        *lock(&self.applied) = applied;
        self.applied_index.send_replace(index);
        lock(&self.lease_news).clear();
        self.lease_wake.notify_one();
        self.space_wake.notify_one();
        Ok(())
    }

    /// A snapshot has its place.
    pub fn note_snapshot(&self, file: SnapshotFile) {
        *lock(&self.current_snapshot) = Some(file);
    }

    /// Up to which entry the current snapshot goes.
    pub fn snapshot_index(&self) -> Option<u64> {
        let header = self.snapshot_file()?.read().ok()?.header;
        Some(AppliedTo::decode(header.meta.applied).ok()?.log_id?.index())
    }
}

/// A large compaction comes in portions: while the engine takes one, readers of old values wait.
fn take_batches(
    mvcc: &mut Mvcc,
    mut batch: WriteBatch,
    applied: &AppliedTo,
) -> Vec<(WriteBatch, Meta)> {
    let applied = applied.encode();
    let mut batches = Vec::with_capacity(1);
    loop {
        mvcc.take_removals(&mut batch, HOLD_RECORDS);
        let meta = Meta {
            revision: mvcc.revision(),
            compacted: mvcc.compacted(),
            digest: mvcc.digest(),
            alarms: mvcc.alarms().clone(),
            applied: applied.clone(),
        };
        batches.push((std::mem::take(&mut batch), meta));
        if !mvcc.has_removals() {
            return batches;
        }
    }
}

fn note_leases(command: &Command, answer: &Answer, news: &mut Vec<LeaseNews>) {
    match (command, answer) {
        (_, Ok(Outcome::LeaseGranted { id, ttl_seconds })) => {
            news.push(LeaseNews::Granted { id: *id, ttl_seconds: *ttl_seconds })
        }
        (Command::LeaseRevoke { id }, Ok(_) | Err(KvError::LeaseNotFound(_))) => {
            news.push(LeaseNews::Gone { id: *id })
        }
        _ => {}
    }
}

/// Records are written to the engine in portions of so many bytes.
const PORTION_BYTES: usize = 256 << 10;

/// Empties the engine and fills it from a verified snapshot. Its meta comes last, so that
/// an engine that was filled half is known as such.
fn fill_engine(
    engine: &dyn Engine,
    file: &SnapshotFile,
    mvcc: &mut Mvcc,
) -> Result<(), SnapshotError> {
    engine.clear()?;
    let mut reader = file.read()?;
    let header = reader.header.clone();
    mvcc.load_alarms(header.meta.alarms.clone());
    for (id, ttl_seconds) in &header.leases {
        // A snapshot has each lease once, granted with a TTL that was accepted before.
        let _ = mvcc.load_lease(*id, *ttl_seconds);
    }
    let (mut batch, mut bytes) = (WriteBatch::default(), 0);
    while let Some((rev, record)) = reader.next_record()? {
        mvcc.load_record(rev, &record);
        bytes += record.size() as usize;
        batch.puts.push((rev, record));
        if bytes >= PORTION_BYTES {
            engine.apply(&batch, None)?;
            (batch, bytes) = (WriteBatch::default(), 0);
        }
    }
    batch.leases =
        header.leases.iter().map(|(id, ttl_seconds)| (*id, Some(*ttl_seconds))).collect();
    let meta = Meta { digest: mvcc.digest(), ..header.meta };
    engine.apply(&batch, Some(&meta))?;
    mvcc.finish_load(meta.revision, meta.compacted);
    Ok(())
}

/// The state as the engine holds it. An error means that it has to be rebuilt.
pub fn load(
    engine: &dyn Engine,
    recent_limit_bytes: usize,
) -> Result<(Mvcc, AppliedTo), EngineError> {
    let mut mvcc = Mvcc::new(recent_limit_bytes);
    let Some(meta) = engine.meta()? else {
        return Ok((mvcc, AppliedTo::default()));
    };
    for (id, ttl_seconds) in engine.leases()? {
        if mvcc.load_lease(id, ttl_seconds).is_err() {
            return Err(EngineError::Inconsistent);
        }
    }
    mvcc.load_alarms(meta.alarms.clone());
    read_through(engine, &meta, &mut mvcc)?;
    if mvcc.digest() != meta.digest {
        return Err(EngineError::Inconsistent);
    }
    let applied = AppliedTo::decode(meta.applied.clone())?;
    mvcc.finish_load(meta.revision, meta.compacted);
    Ok((mvcc, applied))
}

/// Every record in order.
fn read_through(engine: &dyn Engine, meta: &Meta, mvcc: &mut Mvcc) -> Result<(), EngineError> {
    let mut last = Rev::default();
    let mut ordered = true;
    engine.scan(Rev::default(), Rev::new(Revision::MAX, u32::MAX), &mut |rev, record| {
        ordered = rev > last && rev.main <= meta.revision;
        last = rev;
        if ordered {
            mvcc.load_record(rev, &record);
        }
        ordered
    })?;
    if ordered { Ok(()) } else { Err(EngineError::Inconsistent) }
}

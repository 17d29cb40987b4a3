//! The engine's thread, and what is held back from it.
//!
//! Clients are answered from memory, and from the log's sync; the engine may lag behind. Waking
//! its thread costs more than a small batch, so batches wait here until they are worth that. No
//! clock is involved: what waits is written when more comes, when somebody needs it in the
//! engine, or when the store closes. After a crash it comes back from the log.
//!
//! When nothing waits, the thread has the engine give back space, a step at a time. A full disk
//! holds up the thread and what waits for it, and nothing else; it goes on when there is space.
//!
//! Readers find held records in memory: [`EngineQueue::persisted`] keeps them there.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::{Engine, EngineError, Meta, Tidy};
use crate::background::Background;
use crate::kv::Revision;
use crate::mvcc::WriteBatch;
use crate::mvcc::revision::Rev;
use crate::wal::disk::Disk;

/// Batches that may wait for the thread, each of what was held back until it was worth it.
const QUEUE: usize = 16;
/// Log held back in memory: some 400 heartbeats of a node, an hour of them.
pub const HOLD_LOG_BYTES: usize = 256 << 10;
/// Counted for each batch beside its part of the log, so that empty ones are bounded too.
const BATCH_BYTES: usize = 64;
/// Removals cost the log nothing, but the engine as much as records.
pub const HOLD_RECORDS: usize = 4096;

enum Job {
    Write(Held),
    /// Answered when everything before has been taken.
    Barrier(oneshot::Sender<()>),
    /// Answered when what was written before lasts.
    Flush(oneshot::Sender<Result<(), EngineError>>),
    /// Answered when the engine's free space has been given back, or could not be.
    Compact(oneshot::Sender<Result<(), EngineError>>),
    Close,
}

/// To the thread; closing the last one ends it.
#[derive(Clone)]
pub struct EngineQueue {
    jobs: mpsc::Sender<Job>,
    /// Kept on this side, so that the thread is woken only when there is something to do.
    held: Arc<Mutex<Held>>,
    state: Arc<State>,
}

/// What both sides see.
struct State {
    persisted: AtomicI64,
    /// Nobody waits for space any more.
    closing: AtomicBool,
}

/// The engine failed or is gone; the cause has been logged.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the engine has stopped taking writes")]
pub struct EngineStopped;

impl EngineQueue {
    pub fn start(
        engine: Arc<dyn Engine>,
        disk: Arc<dyn Disk>,
        persisted: Revision,
        background: &Background,
    ) -> std::io::Result<(Self, Option<std::thread::JoinHandle<()>>)> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let state = State { persisted: AtomicI64::new(persisted), closing: AtomicBool::new(false) };
        let state = Arc::new(state);
        let this = Self { jobs, held: Arc::default(), state: state.clone() };
        let worker =
            Worker { engine, disk, queue, state, more: false, untidied: 0, compacting: Vec::new() };
        if let Background::Simulated(_) = background {
            tokio::spawn(worker.run_simulated(background.clone()));
            return Ok((this, None));
        }
        let thread =
            std::thread::Builder::new().name("store-engine".into()).spawn(move || worker.run())?;
        Ok((this, Some(thread)))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In this order; a crash may come between two of them.
    pub async fn write(&self, batches: Vec<(WriteBatch, Meta)>) -> Result<(), EngineStopped> {
        for (batch, meta) in batches {
            let due = {
                let mut held = self.held();
                held.add(batch, meta);
                held.is_due()
            };
            if due {
                self.pass_on().await?;
            } else if self.jobs.is_closed() {
                return Err(EngineStopped);
            }
        }
        Ok(())
    }

    /// Gives the thread what is held. In order: it is sent under the lock that it was taken under.
    async fn pass_on(&self) -> Result<(), EngineStopped> {
        let place = self.jobs.reserve().await.map_err(|_| EngineStopped)?;
        let mut held = self.held();
        if held.meta.is_some() {
            place.send(Job::Write(std::mem::take(&mut *held)));
        }
        Ok(())
    }

    /// Returns when everything written before is in the engine.
    pub async fn barrier(&self) -> Result<(), EngineStopped> {
        self.pass_on().await?;
        let (done, wait) = oneshot::channel();
        self.jobs.send(Job::Barrier(done)).await.map_err(|_| EngineStopped)?;
        wait.await.map_err(|_| EngineStopped)
    }

    /// Makes what was written before last. On the engine's thread: it writes again as soon as it
    /// has written, and who waits for the engine beside it may wait for long.
    pub async fn flush(&self) -> Result<(), EngineError> {
        self.pass_on().await.map_err(|_| stopped("flush"))?;
        let (done, wait) = oneshot::channel();
        self.jobs.send(Job::Flush(done)).await.map_err(|_| stopped("flush"))?;
        wait.await.map_err(|_| stopped("flush"))?
    }

    /// Has the engine give back its free space, after what was written before, and between what is
    /// written meanwhile.
    pub async fn compact(&self) -> Result<(), EngineError> {
        self.pass_on().await.map_err(|_| stopped("compact"))?;
        let (done, wait) = oneshot::channel();
        self.jobs.send(Job::Compact(done)).await.map_err(|_| stopped("compact"))?;
        wait.await.map_err(|_| stopped("compact"))?
    }

    /// Ends the thread, after what is held and queued.
    pub async fn close(&self) {
        self.state.closing.store(true, Ordering::Relaxed);
        // Already gone is as good.
        let _ = self.pass_on().await;
        let _ = self.jobs.send(Job::Close).await;
    }

    /// It takes nothing more, and what it wrote to may be closed.
    pub fn is_closed(&self) -> bool {
        self.jobs.is_closed()
    }

    /// Every record up to here is in the engine.
    pub fn persisted(&self) -> Rev {
        Rev::new(self.state.persisted.load(Ordering::Acquire), u32::MAX)
    }

    /// After the engine's content was replaced.
    pub fn reset(&self, persisted: Revision) {
        self.state.persisted.store(persisted, Ordering::Release);
    }
}

fn stopped(operation: &'static str) -> EngineError {
    EngineError::Failed { operation, fault: EngineStopped.to_string() }
}

/// What the engine has not been given yet.
#[derive(Default)]
struct Held {
    batch: WriteBatch,
    /// Of the newest batch; `None` if nothing is held.
    meta: Option<Meta>,
    bytes: usize,
}

impl Held {
    fn add(&mut self, batch: WriteBatch, meta: Meta) {
        self.bytes += batch.log_bytes + BATCH_BYTES;
        self.batch.puts.extend(batch.puts);
        self.batch.removes.extend(batch.removes);
        self.batch.leases.extend(batch.leases);
        self.meta = Some(meta);
    }

    fn is_due(&self) -> bool {
        self.bytes >= HOLD_LOG_BYTES
            || self.batch.puts.len() + self.batch.removes.len() >= HOLD_RECORDS
    }
}

/// A record that was compacted away while it was held never gets to the disk.
fn drop_short_lived(batch: &mut WriteBatch) {
    let Some((first, _)) = batch.puts.first() else { return };
    let first = *first;
    let mut gone: Vec<_> = batch.removes.extract_if(.., |rev| *rev >= first).collect();
    if !gone.is_empty() {
        gone.sort_unstable();
        batch.puts.retain(|(rev, _)| gone.binary_search(rev).is_err());
    }
}

/// The other side: the only one that writes to the engine while the store runs.
struct Worker {
    engine: Arc<dyn Engine>,
    disk: Arc<dyn Disk>,
    queue: mpsc::Receiver<Job>,
    state: Arc<State>,
    /// The engine may have space to give back.
    more: bool,
    /// Jobs since it was last asked to.
    untidied: usize,
    /// Who waits until it has given back all.
    compacting: Vec<oneshot::Sender<Result<(), EngineError>>>,
}

impl Worker {
    fn run(mut self) {
        loop {
            let job = if self.more {
                match self.queue.try_recv() {
                    Ok(job) => Some(job),
                    Err(mpsc::error::TryRecvError::Empty) => None,
                    Err(mpsc::error::TryRecvError::Disconnected) => return,
                }
            } else {
                let Some(job) = self.queue.blocking_recv() else { return };
                Some(job)
            };
            if self.round(job).is_err() {
                return;
            }
        }
    }

    /// On a simulation's one thread.
    async fn run_simulated(mut self, background: Background) {
        loop {
            let job = if self.more { None } else { self.queue.recv().await };
            if job.is_none() && !self.more {
                return;
            }
            background.take_time("engine").await;
            let job = job.or_else(|| self.queue.try_recv().ok());
            if self.round(job).is_err() {
                return;
            }
        }
    }

    fn round(&mut self, job: Option<Job>) -> Result<(), EngineStopped> {
        let done = match job {
            Some(Job::Write(held)) => self.write(held),
            // Who has gone away does not want to know.
            Some(Job::Barrier(done)) => {
                let _ = done.send(());
                Ok(())
            }
            Some(Job::Flush(done)) => {
                let _ = done.send(self.engine.flush());
                Ok(())
            }
            Some(Job::Compact(done)) => {
                self.compacting.push(done);
                Ok(())
            }
            Some(Job::Close) => {
                self.queue.close();
                self.more = false;
                return Ok(());
            }
            None => Ok(()),
        };
        done.and_then(|()| self.tidy()).map_err(|error| {
            match error {
                EngineError::NoSpace { .. } => {
                    tracing::warn!(%error, "closed on a full disk; what the engine lacks comes back from the log");
                }
                error => {
                    tracing::error!(%error, "the engine cannot write; the store stops and rebuilds it at the next start");
                }
            }
            EngineStopped
        })
    }

    fn write(&self, held: Held) -> Result<(), EngineError> {
        let Held { mut batch, meta, .. } = held;
        let Some(meta) = meta else { return Ok(()) };
        drop_short_lived(&mut batch);
        let mut told = false;
        loop {
            match self.engine.apply(&batch, Some(&meta)) {
                Err(error @ EngineError::NoSpace { .. }) => {
                    if self.state.closing.load(Ordering::Relaxed) {
                        return Err(error);
                    }
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "the engine waits for space");
                    }
                    self.disk.wait_for_space();
                }
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        self.state.persisted.store(meta.revision, Ordering::Release);
        Ok(())
    }

    fn tidy(&mut self) -> Result<(), EngineError> {
        self.untidied += 1;
        if self.queue.len() > QUEUE / 2 && self.untidied < QUEUE && self.compacting.is_empty() {
            // Writes come first, but not for ever.
            self.more = true;
            return Ok(());
        }
        self.untidied = 0;
        let what = if self.compacting.is_empty() { Tidy::Needed } else { Tidy::Everything };
        self.more = match self.engine.tidy(what) {
            Ok(more) => more,
            Err(EngineError::NoSpace { operation }) => {
                let full = || Err(EngineError::NoSpace { operation });
                self.compacting.drain(..).for_each(|done| drop(done.send(full())));
                false
            }
            Err(error) => return Err(error),
        };
        if !self.more {
            self.compacting.drain(..).for_each(|done| drop(done.send(Ok(()))));
        }
        Ok(())
    }
}

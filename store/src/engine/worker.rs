//! The engine's thread, and what is held back from it.
//!
//! Clients are answered from memory, and from the log's sync; the engine may lag behind. It
//! writes several pages for any batch, however small, so batches wait here until they are
//! worth that. No clock is involved: what waits is written when more comes, when somebody
//! needs it in the engine, or when the store closes. After a crash it comes back from the
//! log, and the bound on what is held is the bound on that replay.
//!
//! Readers find held records in memory: [`EngineQueue::persisted`] keeps them there.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::{Engine, EngineError, Meta};
use crate::background::Background;
use crate::kv::Revision;
use crate::mvcc::WriteBatch;
use crate::mvcc::revision::Rev;

/// Batches that may wait for the thread, each of what was held back until it was worth it.
const QUEUE: usize = 16;
/// Log held back in memory: some 400 heartbeats of a node, an hour of them. While the engine
/// takes so much, readers of old values wait some milliseconds.
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
    Compact(oneshot::Sender<Result<bool, EngineError>>),
    Close,
}

/// To the thread; closing the last one ends it.
#[derive(Clone)]
pub struct EngineQueue {
    jobs: mpsc::Sender<Job>,
    /// Kept on this side, so that the thread is woken only when there is something to do.
    held: Arc<Mutex<Held>>,
    persisted: Arc<AtomicI64>,
}

/// The engine failed or is gone; the cause has been logged.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the engine has stopped taking writes")]
pub struct EngineStopped;

impl EngineQueue {
    pub fn start(
        engine: Arc<dyn Engine>,
        persisted: Revision,
        background: &Background,
    ) -> std::io::Result<(Self, Option<std::thread::JoinHandle<()>>)> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let persisted = Arc::new(AtomicI64::new(persisted));
        let seen = persisted.clone();
        let this = Self { jobs, held: Arc::default(), persisted };
        if let Background::Simulated(_) = background {
            tokio::spawn(run_simulated(engine, queue, seen, background.clone()));
            return Ok((this, None));
        }
        let thread = std::thread::Builder::new()
            .name("store-engine".into())
            .spawn(move || run(&*engine, queue, &seen))?;
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

    /// Has the engine give back its free space, after what was written before. What is written
    /// meanwhile waits in the queue. `false` if a scan is under way.
    pub async fn compact(&self) -> Result<bool, EngineError> {
        self.pass_on().await.map_err(|_| stopped("compact"))?;
        let (done, wait) = oneshot::channel();
        self.jobs.send(Job::Compact(done)).await.map_err(|_| stopped("compact"))?;
        wait.await.map_err(|_| stopped("compact"))?
    }

    /// Ends the thread, after what is held and queued.
    pub async fn close(&self) {
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
        Rev::new(self.persisted.load(Ordering::Acquire), u32::MAX)
    }

    /// After the engine's content was replaced.
    pub fn reset(&self, persisted: Revision) {
        self.persisted.store(persisted, Ordering::Release);
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

    fn write(self, engine: &dyn Engine, persisted: &AtomicI64) -> Result<(), EngineError> {
        let Self { mut batch, meta, .. } = self;
        let Some(meta) = meta else { return Ok(()) };
        drop_short_lived(&mut batch);
        engine.apply(batch, Some(&meta))?;
        persisted.store(meta.revision, Ordering::Release);
        Ok(())
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

fn run(engine: &dyn Engine, mut queue: mpsc::Receiver<Job>, persisted: &AtomicI64) {
    while let Some(job) = queue.blocking_recv() {
        if round(engine, job, &mut queue, persisted).is_err() {
            return;
        }
    }
}

/// On a simulation's one thread.
async fn run_simulated(
    engine: Arc<dyn Engine>,
    mut queue: mpsc::Receiver<Job>,
    persisted: Arc<AtomicI64>,
    background: Background,
) {
    while let Some(job) = queue.recv().await {
        background.take_time("engine").await;
        if round(&*engine, job, &mut queue, &persisted).is_err() {
            return;
        }
    }
}

fn round(
    engine: &dyn Engine,
    job: Job,
    queue: &mut mpsc::Receiver<Job>,
    persisted: &AtomicI64,
) -> Result<(), EngineStopped> {
    match job {
        Job::Write(held) => {
            return held.write(engine, persisted).map_err(|error| {
                tracing::error!(%error, "the engine cannot write; the store stops and rebuilds it at the next start");
                EngineStopped
            });
        }
        // Who has gone away does not want to know.
        Job::Barrier(done) => drop(done.send(())),
        Job::Flush(done) => drop(done.send(engine.flush())),
        Job::Compact(done) => drop(done.send(engine.compact())),
        Job::Close => queue.close(),
    }
    Ok(())
}

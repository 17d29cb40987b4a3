//! The engine's thread: takes batches off the appliers' hands, and holds small ones back.
//!
//! Clients are answered from memory, and from the log's sync; the engine may lag behind. It
//! writes several pages for any batch, however small, so batches wait here until they are
//! worth that. No clock is involved: what waits is written when more comes, when somebody
//! needs it in the engine, or when the store closes. After a crash it comes back from the
//! log, and the bound on what is held is the bound on that replay.
//!
//! Readers find held records in memory: [`EngineQueue::persisted`] keeps them there.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::{Engine, EngineError, Meta};
use crate::background::Background;
use crate::kv::Revision;
use crate::mvcc::WriteBatch;
use crate::mvcc::revision::Rev;

/// Batches that may wait. A batch is one round of applying, at most a few MiB.
const QUEUE: usize = 16;
/// Log held back in memory: some 400 heartbeats of a node, an hour of them. While the engine
/// takes so much, readers of old values wait some milliseconds.
pub const HOLD_LOG_BYTES: usize = 256 << 10;
/// Counted for each batch beside its part of the log, so that empty ones are bounded too.
const BATCH_BYTES: usize = 64;
/// Removals cost the log nothing, but the engine as much as records.
pub const HOLD_RECORDS: usize = 4096;

enum Job {
    Write(Vec<(WriteBatch, Meta)>),
    /// Answered when everything before has been taken.
    Barrier(oneshot::Sender<()>),
    Close,
}

/// To the thread; closing the last one ends it.
#[derive(Clone)]
pub struct EngineQueue {
    jobs: mpsc::Sender<Job>,
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
        if let Background::Simulated(_) = background {
            tokio::spawn(run_simulated(engine, queue, seen, background.clone()));
            return Ok((Self { jobs, persisted }, None));
        }
        let thread = std::thread::Builder::new()
            .name("store-engine".into())
            .spawn(move || run(&*engine, queue, &seen))?;
        Ok((Self { jobs, persisted }, Some(thread)))
    }

    /// In this order; a crash may come between two of them.
    pub async fn write(&self, batches: Vec<(WriteBatch, Meta)>) -> Result<(), EngineStopped> {
        self.jobs.send(Job::Write(batches)).await.map_err(|_| EngineStopped)
    }

    /// Returns when everything written before is in the engine.
    pub async fn barrier(&self) -> Result<(), EngineStopped> {
        let (done, wait) = oneshot::channel();
        self.jobs.send(Job::Barrier(done)).await.map_err(|_| EngineStopped)?;
        wait.await.map_err(|_| EngineStopped)
    }

    /// Ends the thread, after what is queued.
    pub async fn close(&self) {
        // Already gone is as good.
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

    fn write(&mut self, engine: &dyn Engine, persisted: &AtomicI64) -> Result<(), EngineError> {
        let Self { mut batch, meta, .. } = std::mem::take(self);
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
    let mut held = Held::default();
    while let Some(job) = queue.blocking_recv() {
        if round(engine, job, &mut held, &mut queue, persisted).is_err() {
            return;
        }
    }
    finish(engine, held, persisted);
}

/// On a simulation's one thread.
async fn run_simulated(
    engine: Arc<dyn Engine>,
    mut queue: mpsc::Receiver<Job>,
    persisted: Arc<AtomicI64>,
    background: Background,
) {
    let mut held = Held::default();
    while let Some(job) = queue.recv().await {
        background.take_time("engine").await;
        if round(&*engine, job, &mut held, &mut queue, &persisted).is_err() {
            return;
        }
    }
    finish(&*engine, held, &persisted);
}

fn round(
    engine: &dyn Engine,
    job: Job,
    held: &mut Held,
    queue: &mut mpsc::Receiver<Job>,
    persisted: &AtomicI64,
) -> Result<(), EngineStopped> {
    let write = |held: &mut Held| {
        held.write(engine, persisted).map_err(|error| {
            tracing::error!(%error, "the engine cannot write; the store stops and rebuilds it at the next start");
            EngineStopped
        })
    };
    match job {
        Job::Write(batches) => {
            for (batch, meta) in batches {
                held.add(batch, meta);
                if held.is_due() {
                    write(held)?;
                }
            }
        }
        Job::Barrier(done) => {
            write(held)?;
            // Who has gone away does not want to know.
            let _ = done.send(());
        }
        Job::Close => queue.close(),
    }
    Ok(())
}

fn finish(engine: &dyn Engine, mut held: Held, persisted: &AtomicI64) {
    if let Err(error) = held.write(engine, persisted) {
        tracing::warn!(%error, "the engine could not write what it held; the next start replays more of the log");
    }
}

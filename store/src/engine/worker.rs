//! The engine's thread: takes batches off the appliers' hands.
//!
//! Clients are answered from memory, and from the log's sync; the engine may lag behind.
//! How far is bounded by the queue, so the memory that holds what it has not taken is too.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::{Engine, Meta};
use crate::kv::Revision;
use crate::mvcc::WriteBatch;
use crate::mvcc::revision::Rev;

/// Batches that may wait. A batch is one round of applying, at most a few MiB.
const QUEUE: usize = 16;
/// What waits is merged into one engine write up to so many records.
const MERGE_RECORDS: usize = 4096;

enum Job {
    Write(WriteBatch, Meta),
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
    ) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let persisted = Arc::new(AtomicI64::new(persisted));
        let seen = persisted.clone();
        let thread = std::thread::Builder::new()
            .name("store-engine".into())
            .spawn(move || run(&*engine, queue, &seen))?;
        Ok((Self { jobs, persisted }, thread))
    }

    pub async fn write(&self, batch: WriteBatch, meta: Meta) -> Result<(), EngineStopped> {
        self.jobs.send(Job::Write(batch, meta)).await.map_err(|_| EngineStopped)
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

    /// Every record up to here is in the engine.
    pub fn persisted(&self) -> Rev {
        Rev::new(self.persisted.load(Ordering::Acquire), u32::MAX)
    }

    /// After the engine's content was replaced.
    pub fn reset(&self, persisted: Revision) {
        self.persisted.store(persisted, Ordering::Release);
    }
}

fn run(engine: &dyn Engine, mut queue: mpsc::Receiver<Job>, persisted: &AtomicI64) {
    while let Some(job) = queue.blocking_recv() {
        let mut barriers = Vec::new();
        let mut merged: Option<(WriteBatch, Meta)> = None;
        let mut next = Some(job);
        while let Some(job) = next.take() {
            match job {
                Job::Write(batch, meta) => merge(&mut merged, batch, meta),
                Job::Barrier(done) => barriers.push(done),
                Job::Close => queue.close(),
            }
            if barriers.is_empty()
                && merged.as_ref().is_none_or(|(batch, _)| batch.puts.len() < MERGE_RECORDS)
            {
                next = queue.try_recv().ok();
            }
        }
        if let Some((batch, meta)) = merged {
            if let Err(error) = engine.apply(batch, Some(&meta)) {
                tracing::error!(%error, "the engine cannot write; the store stops and rebuilds it at the next start");
                return;
            }
            persisted.store(meta.revision, Ordering::Release);
        }
        for done in barriers {
            let _ = done.send(());
        }
    }
    if let Err(error) = engine.flush() {
        tracing::warn!(%error, "the engine could not write its buffer; the next start replays more of the log");
    }
}

fn merge(merged: &mut Option<(WriteBatch, Meta)>, batch: WriteBatch, meta: Meta) {
    match merged {
        None => *merged = Some((batch, meta)),
        Some((into, last)) => {
            into.puts.extend(batch.puts);
            into.removes.extend(batch.removes);
            into.leases.extend(batch.leases);
            *last = meta;
        }
    }
}

//! The engine's queue: what it holds back and when it lets go. What the engine itself does is in
//! its modules' tests, and in the simulation.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};

use skiff_store::background::Background;
use skiff_store::engine::segments::SegmentEngine;
use skiff_store::engine::worker::{EngineQueue, HOLD_LOG_BYTES};
use skiff_store::engine::{Engine, EngineError, Meta, Tidy, Visit};
use skiff_store::kv::{LeaseId, Revision};
use skiff_store::mvcc::record::Record;
use skiff_store::mvcc::revision::Rev;
use skiff_store::mvcc::{ReadFault, Records, WriteBatch};
use skiff_store::wal::disk::{Disk, RealDisk};
use support::hooked::{Full, HookedDisk};

/// The revisions put and removed, and the meta's.
type Written = (Vec<Revision>, Vec<Revision>, Revision);

/// Notes what it is given.
#[derive(Default)]
struct Notes(Mutex<Vec<Written>>);

impl Records for Notes {
    fn record(&self, _: Rev) -> Result<Option<Record>, ReadFault> {
        Ok(None)
    }
}

impl Engine for Notes {
    fn apply(&self, batch: &WriteBatch, meta: Option<&Meta>) -> Result<(), EngineError> {
        let puts = batch.puts.iter().map(|(rev, _)| rev.main).collect();
        let removes = batch.removes.iter().map(|rev| rev.main).collect();
        let revision = meta.map_or(0, |meta| meta.revision);
        self.0.lock().unwrap().push((puts, removes, revision));
        Ok(())
    }

    fn meta(&self) -> Result<Option<Meta>, EngineError> {
        Ok(None)
    }

    fn leases(&self) -> Result<Vec<(LeaseId, i64)>, EngineError> {
        Ok(Vec::new())
    }

    fn scan(&self, _: Rev, _: Rev, _: Visit) -> Result<(), EngineError> {
        Ok(())
    }

    fn clear(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn tidy(&self, _: Tidy) -> Result<bool, EngineError> {
        Ok(false)
    }

    fn flush(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn close(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}

fn put(main: Revision, log_bytes: usize) -> (WriteBatch, Meta) {
    let puts = vec![(Rev::first_of(main), Record::tombstone("k".into()))];
    let meta = Meta { revision: main, ..Meta::default() };
    (WriteBatch { puts, log_bytes, ..WriteBatch::default() }, meta)
}

#[tokio::test]
async fn small_batches_wait_for_each_other() {
    let engine = Arc::new(Notes::default());
    let (queue, thread) =
        EngineQueue::start(engine.clone(), Arc::new(RealDisk), 1, &Background::Threads).unwrap();
    let write = async |main, log_bytes, removes: &[Revision]| {
        let (mut batch, meta) = put(main, log_bytes);
        batch.removes = removes.iter().map(|main| Rev::first_of(*main)).collect();
        queue.write(vec![(batch, meta)]).await.unwrap();
    };
    write(5, 100, &[]).await;
    write(6, 100, &[]).await;
    // 6 came and went while it was held; 3 is in the engine.
    write(7, 100, &[3, 6]).await;
    assert_eq!(queue.persisted().main, 1);
    queue.barrier().await.unwrap();
    assert_eq!(queue.persisted().main, 7);
    assert_eq!(*engine.0.lock().unwrap(), [(vec![5, 7], vec![3], 7)]);
    // Nothing is held: nothing is written.
    queue.barrier().await.unwrap();
    write(8, 10, &[]).await;
    write(9, HOLD_LOG_BYTES, &[]).await;
    write(10, 10, &[]).await;
    queue.close().await;
    thread.unwrap().join().unwrap();
    let written = [(vec![5, 7], vec![3], 7), (vec![8, 9], vec![], 9), (vec![10], vec![], 10)];
    assert_eq!(*engine.0.lock().unwrap(), written);
}

fn records(engine: &dyn Engine) -> Vec<Revision> {
    let mut found = Vec::new();
    let all = Rev::new(Revision::MAX, u32::MAX);
    let visit = &mut |rev: Rev, _| {
        found.push(rev.main);
        true
    };
    engine.scan(Rev::default(), all, visit).unwrap();
    found
}

/// Whoever waits for the engine waits for space with it; nothing is lost, or written twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(Full::default());
    let disk: Arc<dyn Disk> = Arc::new(HookedDisk(full.clone()));
    let open = || Arc::new(SegmentEngine::open(disk.clone(), dir.path(), 1 << 20).unwrap());
    let engine = open();
    let (queue, thread) =
        EngineQueue::start(engine.clone(), disk.clone(), 1, &Background::Threads).unwrap();
    queue.write(vec![put(5, 0)]).await.unwrap();
    queue.barrier().await.unwrap();
    full.set(true);
    queue.write(vec![put(6, HOLD_LOG_BYTES)]).await.unwrap();
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { queue.barrier().await }
    });
    full.waited.wait_for(2);
    assert_eq!((queue.persisted().main, records(&*engine)), (5, vec![5]));
    assert!(!waiting.is_finished());
    full.set(false);
    waiting.await.unwrap().unwrap();
    assert_eq!((queue.persisted().main, records(&*engine)), (6, vec![5, 6]));

    // Closed on a full disk, what it holds is left to the log.
    full.set(true);
    queue.write(vec![put(7, HOLD_LOG_BYTES)]).await.unwrap();
    full.waited.wait_for(full.waited.now() + 1);
    queue.close().await;
    thread.unwrap().join().unwrap();
    engine.close().unwrap();
    full.set(false);
    assert_eq!(records(&*open()), [5, 6]);
}

/// Written once, read back over a restart, and given back when most of it has gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn space_is_given_back_between_writes_and_under_a_scan() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Arc::new(SegmentEngine::open(Arc::new(RealDisk), dir.path(), 64 << 10).unwrap());
    let engine = open();
    let meta = Meta { revision: 1, ..Meta::default() };
    let record = |main: Revision| {
        let value = vec![main as u8; 400].into();
        Record { key: "k".into(), value, create: 2, version: main, lease: 0 }
    };
    for portion in 0..10 {
        let puts = (1..=500).map(|n| portion * 500 + n);
        let puts = puts.map(|main| (Rev::first_of(main), record(main))).collect();
        engine.apply(&WriteBatch { puts, ..WriteBatch::default() }, Some(&meta)).unwrap();
    }
    let removes = (1..=5000).filter(|main| main % 50 != 0).map(Rev::first_of).collect();
    engine.apply(&WriteBatch { removes, ..WriteBatch::default() }, Some(&meta)).unwrap();
    let before = engine.disk_bytes();
    assert!(before > 5000 * 400);
    let mut left = 0;
    engine
        .scan(Rev::default(), Rev::first_of(5000), &mut |rev, got| {
            assert_eq!(got, record(rev.main));
            left += 1;
            // Moved under the reader, who goes on with the same records.
            engine.tidy(Tidy::Everything).unwrap();
            true
        })
        .unwrap();
    assert_eq!(left, 100);
    while engine.tidy(Tidy::Everything).unwrap() {}
    assert!(engine.disk_bytes() < before / 10, "{} of {before}", engine.disk_bytes());
    let on_disk: u64 = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(on_disk, engine.disk_bytes());
    drop(engine);
    let engine = open();
    assert_eq!(engine.record(Rev::first_of(50)).unwrap(), Some(record(50)));
    assert_eq!(engine.record(Rev::first_of(51)).unwrap(), None);
    assert_eq!(records(&*engine).len(), 100);
    // Out of order, nothing is written.
    let puts = vec![(Rev::first_of(7), record(7))];
    let early = engine.apply(&WriteBatch { puts, ..WriteBatch::default() }, Some(&meta));
    assert!(matches!(early, Err(EngineError::Inconsistent)), "{early:?}");
    assert_eq!(records(&*engine).len(), 100);
}

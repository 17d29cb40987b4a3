//! The engine: what its queue holds back and when it lets go, and the index beside it.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use skiff_store::background::Background;
use skiff_store::engine::index_file::{self, IndexEntry};
use skiff_store::engine::redb::RedbEngine;
use skiff_store::engine::worker::{EngineQueue, HOLD_LOG_BYTES};
use skiff_store::engine::{Engine, EngineError, Meta, Visit};
use skiff_store::kv::{LeaseId, Revision};
use skiff_store::mvcc::index::Version;
use skiff_store::mvcc::record::Record;
use skiff_store::mvcc::revision::Rev;
use skiff_store::mvcc::{ReadFault, Records, WriteBatch};

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
    fn apply(&self, batch: WriteBatch, meta: Option<&Meta>) -> Result<(), EngineError> {
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

    fn verify(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn compact(&self) -> Result<bool, EngineError> {
        Ok(true)
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
    let (queue, thread) = EngineQueue::start(engine.clone(), 1, &Background::Threads).unwrap();
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

fn entry(key: &'static str, main: Revision) -> IndexEntry {
    let record = Record { key: key.into(), value: "v".into(), create: main, version: 1, lease: 7 };
    let version = Version::of(Rev::first_of(main), &record);
    IndexEntry { key: record.key, version, lease: 7 }
}

#[test]
fn a_saved_index_is_used_once_and_only_beside_the_very_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("engine");
    let meta = Meta { revision: 3, ..Meta::default() };
    let record = Record::tombstone("k".into());
    let write = |main| {
        let engine = RedbEngine::open(&path, 1 << 20).unwrap();
        let puts = vec![(Rev::first_of(main), record.clone())];
        engine.apply(WriteBatch { puts, ..WriteBatch::default() }, Some(&meta)).unwrap();
        engine.close().unwrap();
    };
    let entries = [entry("a", 2), entry("b", 3)];
    write(2);
    index_file::save(&path, &meta, &entries).unwrap();
    let saved = index_file::take(&path).expect("it fits");
    assert_eq!(saved.meta, meta);
    let mut read = Vec::new();
    saved.read(|entry| read.push(entry)).unwrap();
    assert_eq!(read, entries);
    assert!(index_file::take(&path).is_none(), "it is used once");

    index_file::save(&path, &meta, &entries).unwrap();
    write(3);
    assert!(index_file::take(&path).is_none(), "the engine has gone on");

    index_file::save(&path, &meta, &entries).unwrap();
    let db = path.join("state.redb");
    let mut bytes = std::fs::read(&db).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&db, bytes).unwrap();
    assert!(index_file::take(&path).is_none(), "a bit of the engine is wrong");

    index_file::save(&path, &meta, &entries).unwrap();
    let index = dir.path().join("engine.index");
    let mut bytes = std::fs::read(&index).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&index, bytes).unwrap();
    assert!(index_file::take(&path).is_none(), "a bit of the index is wrong");
}

#[test]
fn free_space_is_given_back_but_not_under_a_scan() {
    let dir = tempfile::tempdir().unwrap();
    let engine = RedbEngine::open(&dir.path().join("engine"), 1 << 20).unwrap();
    let meta = Meta { revision: 1, ..Meta::default() };
    let record = |main| {
        let value = vec![main as u8; 4000].into();
        Record { key: "k".into(), value, create: 2, version: main, lease: 0 }
    };
    for portion in 0..10 {
        let puts = (0..500).map(|n| 1 + portion * 500 + n);
        let puts = puts.map(|main| (Rev::first_of(main), record(main))).collect();
        engine.apply(WriteBatch { puts, ..WriteBatch::default() }, Some(&meta)).unwrap();
    }
    let removes = (1..=5000).filter(|main| main % 50 != 0).map(Rev::first_of).collect();
    engine.apply(WriteBatch { removes, ..WriteBatch::default() }, Some(&meta)).unwrap();
    engine.flush().unwrap();
    let before = engine.disk_bytes();
    assert!(before > 5000 * 4000);
    let mut left = 0;
    engine
        .scan(Rev::default(), Rev::first_of(5000), &mut |rev, got| {
            assert_eq!(got, record(rev.main));
            if left == 0 {
                assert!(!engine.compact().unwrap(), "pages are moved under a reader");
            }
            left += 1;
            true
        })
        .unwrap();
    assert_eq!(left, 100);
    assert!(engine.compact().unwrap());
    assert!(engine.disk_bytes() < before / 10, "{} of {before}", engine.disk_bytes());
    assert_eq!(
        skiff_store::mvcc::Records::record(&engine, Rev::first_of(50)).unwrap(),
        Some(record(50))
    );
}

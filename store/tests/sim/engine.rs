//! The engine's folder on a simulated disk: what else than a crash may happen to it, and whether
//! an engine alone keeps what it promises.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skiff_store::engine::segments::SegmentEngine;
use skiff_store::engine::{Engine, EngineError, Meta, Tidy};
use skiff_store::kv::LeaseId;
use skiff_store::mvcc::record::Record;
use skiff_store::mvcc::revision::Rev;
use skiff_store::mvcc::{Digest, WriteBatch};

use super::bugs::Bug;
use super::disk::SimDisk;
use super::random::Random;
use super::seeds::number;

fn folder() -> PathBuf {
    PathBuf::from("/data/store/engine")
}

type Files = Vec<(PathBuf, Vec<u8>)>;

/// Remembers how it was at an earlier start.
#[derive(Default)]
pub struct EngineFolder {
    earlier: Files,
    now: Files,
}

impl EngineFolder {
    pub fn look_at(&mut self, disk: &SimDisk) {
        let now = disk.state().copy(&folder());
        self.earlier = std::mem::replace(&mut self.now, now);
    }

    /// What may be found there after a crash, besides what the crash itself has left.
    pub fn damage(&self, disk: &SimDisk, random: &mut Random, bug: Option<Bug>) {
        if bug == Some(Bug::AppliedWithoutData) {
            forget_the_newest(disk);
        }
        let mut files = disk.state().copy(&folder());
        match random.below(5) {
            0 | 1 => return,
            2 => files.clear(),
            3 => files = self.earlier.clone(),
            _ => break_one(&mut files, random),
        }
        disk.state().replace(&folder(), files);
    }
}

fn break_one(files: &mut Files, random: &mut Random) {
    if files.is_empty() {
        return;
    }
    let at = random.below(files.len() as u64) as usize;
    let content = &mut files[at].1;
    let len = content.len() as u64;
    match random.below(3) {
        0 => content.truncate(random.below(len + 1) as usize),
        1 if len > 0 => content[random.below(len) as usize] ^= 1 << random.below(8),
        _ => drop(files.remove(at)),
    }
}

/// The newest records go, and the meta says that they were never meant to be there.
fn forget_the_newest(disk: &SimDisk) {
    let Ok(engine) = open(disk) else { return };
    let Ok(Some(mut meta)) = engine.meta() else { return };
    let mut removes: Vec<_> = content(&engine).unwrap().records.into_keys().collect();
    removes.drain(..removes.len() * 3 / 4);
    engine.apply(&WriteBatch { removes, ..WriteBatch::default() }, Some(&meta)).unwrap();
    meta.digest = content(&engine).unwrap().digest();
    engine.apply(&WriteBatch::default(), Some(&meta)).unwrap();
}

const SEGMENT_BYTES: u64 = 1 << 10;

fn open(disk: &SimDisk) -> Result<SegmentEngine, EngineError> {
    SegmentEngine::open(Arc::new(disk.next_life()), &folder(), SEGMENT_BYTES)
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Content {
    records: BTreeMap<Rev, Record>,
    leases: BTreeMap<LeaseId, i64>,
    meta: Option<Meta>,
}

impl Content {
    fn digest(&self) -> Digest {
        let mut digest = Digest::default();
        for (rev, record) in &self.records {
            digest.add(*rev, record.checksum(*rev));
        }
        digest
    }

    fn apply(&mut self, batch: &WriteBatch) {
        self.records.extend(batch.puts.iter().cloned());
        for rev in &batch.removes {
            self.records.remove(rev);
        }
        for (id, ttl_seconds) in &batch.leases {
            match ttl_seconds {
                Some(ttl_seconds) => self.leases.insert(*id, *ttl_seconds),
                None => self.leases.remove(id),
            };
        }
    }
}

fn content(engine: &SegmentEngine) -> Result<Content, EngineError> {
    let mut records = BTreeMap::new();
    engine.scan(Rev::default(), Rev::new(i64::MAX, u32::MAX), &mut |rev, record| {
        records.insert(rev, record);
        true
    })?;
    Ok(Content { records, leases: engine.leases()?.into_iter().collect(), meta: engine.meta()? })
}

/// What an engine went through: its content after each batch.
struct Past {
    disk: SimDisk,
    after: Vec<Content>,
    /// Power loss may not take anything up to here.
    synced: usize,
    /// Nor may what has happened take anything up to here.
    kept: usize,
}

impl Past {
    fn batch(&self, random: &mut Random) -> (WriteBatch, Content) {
        let mut now = self.after.last().unwrap().clone();
        let mut meta = now.meta.clone().unwrap_or_default();
        let mut batch = WriteBatch::default();
        for sub in 0..random.below(4) as u32 {
            meta.revision += i64::from(sub == 0 || random.percent(70));
            let rev = Rev::new(meta.revision, sub);
            let key = format!("k{}", random.below(9)).into();
            let value = vec![sub as u8; random.below(300) as usize].into();
            batch.puts.push((rev, Record { key, value, create: 1, version: 1, lease: 0 }));
        }
        let some = random.below(50);
        let gone = |_: &&Rev| random.percent(some);
        batch.removes = now.records.keys().filter(gone).copied().collect();
        if random.percent(20) {
            let id = random.below(4) as i64;
            batch.leases.push((id, random.percent(60).then_some(60 + meta.revision)));
        }
        now.apply(&batch);
        meta.digest = now.digest();
        now.meta = Some(meta);
        (batch, now)
    }

    /// Until something fails, or so many steps.
    fn live(&mut self, engine: &SegmentEngine, random: &mut Random) -> Result<(), EngineError> {
        for _ in 0..random.between(1, 60) {
            match random.below(12) {
                0 => {
                    engine.flush()?;
                    self.synced = self.after.len() - 1;
                }
                1 | 2 => while engine.tidy(Tidy::Needed)? {},
                3 => while engine.tidy(Tidy::Everything)? {},
                _ => {
                    let (batch, now) = self.batch(random);
                    let meta = now.meta.clone();
                    // It may have got there even if it fails.
                    self.after.push(now);
                    engine.apply(&batch, meta.as_ref())?;
                }
            }
        }
        assert_eq!(content(engine)?, *self.after.last().unwrap());
        Ok(())
    }

    /// Whatever is there now must be what was there at some time, and not too long ago.
    fn recover(&mut self, engine: &SegmentEngine, what: &str) {
        let found = content(engine).unwrap_or_else(|error| panic!("{what}: {error}"));
        let at = self.after.iter().rposition(|content| *content == found);
        let at = at.unwrap_or_else(|| panic!("{what}: it never was like this: {found:?}"));
        assert!(at >= self.kept, "{what}: {at} of {}, not {}", self.after.len(), self.kept);
        self.after.truncate(at + 1);
        for (rev, record) in &found.records {
            use skiff_store::mvcc::Records;
            assert_eq!(engine.record(*rev).unwrap().as_ref(), Some(record));
        }
    }
}

/// Crashes at any operation: batches are there whole or not at all, from the front, and those
/// that were synced are. Killed, it has all that it took. `SKIFF_SIM_ENGINE_SEEDS` runs so many.
#[test]
fn an_engine_that_crashes_has_its_first_batches() {
    for seed in 1..=number("SKIFF_SIM_ENGINE_SEEDS").unwrap_or(1000) {
        let mut random = Random::new(seed);
        let mut past =
            Past { disk: SimDisk::default(), after: vec![Content::default()], synced: 0, kept: 0 };
        for life in 1..=8 {
            let what = format!("seed {seed}, life {life}");
            let engine = open(&past.disk).unwrap_or_else(|error| panic!("{what}: {error}"));
            past.recover(&engine, &what);
            past.disk.state().crash_in = random.percent(80).then(|| random.between(1, 60));
            let ended = past.live(&engine, &mut random);
            assert!(ended.is_ok() || past.disk.state().dead, "{what}: {ended:?}");
            if random.percent(70) {
                past.disk.state().crash(&mut random);
                past.kept = past.synced;
            } else {
                past.disk.state().process_died();
                // Its last batch may have failed, all before are there.
                past.kept = (past.after.len() - 1).saturating_sub(usize::from(ended.is_err()));
            }
        }
    }
}

/// Whatever is changed in its files: it does not open, its meta does not fit its records, or it
/// is as it was at some time.
#[test]
fn damage_does_not_pass_for_content() {
    let mut found = [0; 3];
    for seed in 1..=400 {
        let mut random = Random::new(seed);
        let mut past =
            Past { disk: SimDisk::default(), after: vec![Content::default()], synced: 0, kept: 0 };
        let engine = open(&past.disk).unwrap();
        for _ in 0..4 {
            past.live(&engine, &mut random).unwrap();
        }
        drop(engine);
        let mut files = past.disk.state().copy(&folder());
        break_one(&mut files, &mut random);
        past.disk.state().replace(&folder(), files);
        let read = open(&past.disk).and_then(|engine| content(&engine));
        found[match read {
            Err(_) => 0,
            Ok(read) if read.meta.as_ref().is_some_and(|meta| meta.digest != read.digest()) => 1,
            Ok(read) => {
                assert!(past.after.contains(&read), "seed {seed}: it never was like this");
                2
            }
        }] += 1;
    }
    assert!(found.iter().all(|found| *found > 0), "{found:?}");
}

#[test]
fn what_is_not_its_own_is_not_touched() {
    let disk = SimDisk::default();
    let foreign = folder().join("db");
    disk.state().replace(&folder(), vec![(foreign.clone(), b"sled's".to_vec())]);
    let error = open(&disk).err().expect("refused").to_string();
    assert!(error.contains("/data/store/engine/db is not a segment of it"), "{error}");
    assert_eq!(disk.state().copy(Path::new(&folder())), [(foreign, b"sled's".to_vec())]);
}

//! An engine in memory that loses what a crash may take: nothing, its newest batches,
//! everything, or its senses.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use skiff_store::engine::{Engine, EngineError, Meta, Visit};
use skiff_store::kv::LeaseId;
use skiff_store::mvcc::record::Record;
use skiff_store::mvcc::revision::Rev;
use skiff_store::mvcc::{Digest, ReadFault, Records, WriteBatch};

use super::bugs::Bug;
use super::random::Random;

#[derive(Debug, Default, Clone)]
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
}

#[derive(Debug, Default)]
struct State {
    now: Content,
    /// As it was before each of the last batches, oldest first.
    before: VecDeque<Content>,
}

const KEPT: usize = 6;

/// The engine's folder: outlives the member's process.
#[derive(Debug, Default, Clone)]
pub struct SimEngine(Arc<Mutex<State>>);

impl SimEngine {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("the simulation has one thread")
    }

    pub fn lose_everything(&self) {
        *self.state() = State::default();
    }

    /// The process ended without closing it: the newest batches may not have lasted.
    pub fn process_died(&self, random: &mut Random) {
        let mut state = self.state();
        let back = random.below(1 + state.before.len() as u64) as usize;
        for _ in 0..back {
            if let Some(before) = state.before.pop_back() {
                state.now = before;
            }
        }
        state.before.clear();
    }

    /// What a crash of the machine leaves of it.
    pub fn crash(&self, random: &mut Random, bug: Option<Bug>) {
        let mut state = self.state();
        let meta = state.now.meta.clone();
        match random.below(5) {
            0 => {}
            1 => state.now = Content::default(),
            2 => {
                // Batches whole, but the newest are gone.
                let back = random.below(1 + state.before.len() as u64) as usize;
                for _ in 0..back {
                    if let Some(before) = state.before.pop_back() {
                        state.now = before;
                    }
                }
            }
            3 => {
                // An old copy of the folder.
                if let Some(before) = state.before.pop_front() {
                    state.now = before;
                }
            }
            _ => {
                let count = state.now.records.len() as u64;
                let victim = state.now.records.keys().nth(random.below(count) as usize).copied();
                if let Some(victim) = victim {
                    state.now.records.remove(&victim);
                }
            }
        }
        state.before.clear();
        if bug == Some(Bug::AppliedWithoutData)
            && let Some(mut meta) = meta
        {
            meta.digest = state.now.digest();
            state.now.meta = Some(meta);
        }
    }
}

impl Records for SimEngine {
    fn record(&self, rev: Rev) -> Result<Option<Record>, ReadFault> {
        Ok(self.state().now.records.get(&rev).cloned())
    }
}

impl Engine for SimEngine {
    fn apply(&self, batch: WriteBatch, meta: Option<&Meta>) -> Result<(), EngineError> {
        let mut state = self.state();
        let before = state.now.clone();
        state.before.push_back(before);
        if state.before.len() > KEPT {
            state.before.pop_front();
        }
        let now = &mut state.now;
        now.records.extend(batch.puts);
        for rev in batch.removes {
            now.records.remove(&rev);
        }
        for (id, ttl_seconds) in batch.leases {
            match ttl_seconds {
                Some(ttl_seconds) => now.leases.insert(id, ttl_seconds),
                None => now.leases.remove(&id),
            };
        }
        now.meta = meta.cloned();
        Ok(())
    }

    fn meta(&self) -> Result<Option<Meta>, EngineError> {
        let state = self.state();
        if state.now.meta.is_none() && !state.now.records.is_empty() {
            return Err(EngineError::Inconsistent);
        }
        Ok(state.now.meta.clone())
    }

    fn leases(&self) -> Result<Vec<(LeaseId, i64)>, EngineError> {
        Ok(self.state().now.leases.iter().map(|(id, ttl)| (*id, *ttl)).collect())
    }

    fn scan(&self, from: Rev, to: Rev, visit: Visit) -> Result<(), EngineError> {
        let found: Vec<_> = {
            let state = self.state();
            if from > to {
                return Ok(());
            }
            state.now.records.range(from..=to).map(|(rev, r)| (*rev, r.clone())).collect()
        };
        for (rev, record) in found {
            if !visit(rev, record) {
                break;
            }
        }
        Ok(())
    }

    fn clear(&self) -> Result<(), EngineError> {
        self.state().now = Content::default();
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

//! redb behind the engine's trait, for comparison only.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, TableDefinition};
use skiff_store::engine::{Engine, EngineError, Meta, Visit};
use skiff_store::kv::LeaseId;
use skiff_store::mvcc::record::Record;
use skiff_store::mvcc::revision::Rev;
use skiff_store::mvcc::{ReadFault, Records, WriteBatch};

const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const LEASES: TableDefinition<i64, i64> = TableDefinition::new("leases");

pub struct RedbEngine {
    db: Database,
    path: PathBuf,
    sync_every: u64,
    batches: AtomicU64,
}

fn failed(error: impl std::fmt::Display) -> EngineError {
    EngineError::Failed { operation: "redb", fault: error.to_string() }
}

impl RedbEngine {
    pub fn open(path: &Path, sync_every: u64) -> Result<Self, EngineError> {
        let mut builder = redb::Builder::new();
        builder.set_cache_size(super::CACHE_BYTES as usize);
        let db = builder.create(path).map_err(failed)?;
        Ok(Self { db, path: path.to_owned(), sync_every, batches: AtomicU64::new(0) })
    }
}

impl Records for RedbEngine {
    fn record(&self, rev: Rev) -> Result<Option<Record>, ReadFault> {
        let mut found = None;
        let scanned = self.scan(rev, rev, &mut |_, record| {
            found = Some(record);
            false
        });
        scanned.map_err(|error| ReadFault { rev, fault: error.to_string() })?;
        Ok(found)
    }
}

impl Engine for RedbEngine {
    fn apply(&self, batch: WriteBatch, meta: Option<&Meta>) -> Result<(), EngineError> {
        let mut write = self.db.begin_write().map_err(failed)?;
        let count = self.batches.fetch_add(1, Ordering::Relaxed);
        if !count.is_multiple_of(self.sync_every) {
            write.set_durability(Durability::None).map_err(failed)?;
        }
        {
            let mut records = write.open_table(RECORDS).map_err(failed)?;
            for (rev, record) in &batch.puts {
                records.insert(&rev.to_bytes()[..], &record.encode()[..]).map_err(failed)?;
            }
            for rev in &batch.removes {
                records.remove(&rev.to_bytes()[..]).map_err(failed)?;
            }
            let mut leases = write.open_table(LEASES).map_err(failed)?;
            for (id, ttl_seconds) in &batch.leases {
                match ttl_seconds {
                    Some(ttl_seconds) => drop(leases.insert(id, ttl_seconds).map_err(failed)?),
                    None => drop(leases.remove(id).map_err(failed)?),
                }
            }
            if let Some(meta) = meta {
                let mut metas = write.open_table(META).map_err(failed)?;
                metas.insert("meta", &meta.encode()[..]).map_err(failed)?;
            }
        }
        write.commit().map_err(failed)
    }

    fn meta(&self) -> Result<Option<Meta>, EngineError> {
        let read = self.db.begin_read().map_err(failed)?;
        let metas = read.open_table(META).map_err(failed)?;
        let Some(meta) = metas.get("meta").map_err(failed)? else { return Ok(None) };
        Ok(Some(Meta::decode(Bytes::copy_from_slice(meta.value()))?))
    }

    fn leases(&self) -> Result<Vec<(LeaseId, i64)>, EngineError> {
        let read = self.db.begin_read().map_err(failed)?;
        let leases = read.open_table(LEASES).map_err(failed)?;
        let mut all = Vec::new();
        for entry in leases.range::<i64>(..).map_err(failed)? {
            let (id, ttl_seconds) = entry.map_err(failed)?;
            all.push((id.value(), ttl_seconds.value()));
        }
        Ok(all)
    }

    fn scan(&self, from: Rev, to: Rev, visit: Visit) -> Result<(), EngineError> {
        let read = self.db.begin_read().map_err(failed)?;
        let records = read.open_table(RECORDS).map_err(failed)?;
        let (from, to) = (from.to_bytes(), to.to_bytes());
        for entry in records.range::<&[u8]>(&from[..]..=&to[..]).map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            let rev = Rev::from_bytes(key.value()).ok_or(EngineError::Inconsistent)?;
            if !visit(rev, Record::decode(Bytes::copy_from_slice(value.value()))?) {
                break;
            }
        }
        Ok(())
    }

    fn clear(&self) -> Result<(), EngineError> {
        let write = self.db.begin_write().map_err(failed)?;
        write.delete_table(RECORDS).map_err(failed)?;
        write.delete_table(META).map_err(failed)?;
        write.delete_table(LEASES).map_err(failed)?;
        write.commit().map_err(failed)
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.db.begin_write().map_err(failed)?.commit().map_err(failed)
    }

    fn disk_bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }
}

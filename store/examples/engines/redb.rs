//! The engine as it was on redb 4: one file of copy-on-write pages, each with a checksum.
//!
//! ```text
//! records  main i64 BE, sub u32 BE -> record
//! leases   id                      -> TTL in seconds
//! meta     ()                      -> meta
//! ```
//!
//! A batch is a commit that syncs nothing: a process that ends without closing loses it, and
//! the log brings it back. Now and then one is a commit that lasts, for two reasons: it bounds
//! that replay, and only then may the pages it replaced be used again, so without it the file
//! would grow with every write. An idle store writes nothing.

use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use ::redb::{
    CompactionError, Database, Durability, Error, ReadableDatabase, ReadableTable, TableDefinition,
};
use bytes::Bytes;

use skiff_store::engine::{Engine, EngineError, Meta, Tidy, Visit};
use skiff_store::kv::LeaseId;
use skiff_store::mvcc::record::Record;
use skiff_store::mvcc::revision::Rev;
use skiff_store::mvcc::{ReadFault, Records, WriteBatch};

const RECORDS: TableDefinition<&[u8; 12], &[u8]> = TableDefinition::new("records");
const LEASES: TableDefinition<LeaseId, i64> = TableDefinition::new("leases");
const META: TableDefinition<(), &[u8]> = TableDefinition::new("meta");

const FILE: &str = "state.redb";
const PAGE_BYTES: usize = 4096;
/// Pages written between two commits that last, counted generously.
const UNSYNCED_BYTES: u64 = 16 << 20;

pub struct RedbEngine {
    /// `None` once it is closed.
    db: RwLock<Option<Database>>,
    file: PathBuf,
    /// Since the last commit that lasts.
    unsynced_bytes: AtomicU64,
}

/// redb panics on some damage; that is an error like any other here.
fn guarded<T>(
    operation: &'static str,
    call: impl FnOnce() -> Result<T, Error>,
) -> Result<T, EngineError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(EngineError::Failed { operation, fault: error.to_string() }),
        Err(panic) => Err(EngineError::Failed { operation, fault: panic_text(&*panic) }),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    format!("redb panicked: {}", text.unwrap_or_else(|| "no message".to_owned()))
}

impl RedbEngine {
    pub fn open(folder: &Path, cache_bytes: u64) -> Result<Self, EngineError> {
        let file = folder.join(FILE);
        let mut builder = ::redb::Builder::new();
        builder.set_cache_size(usize::try_from(cache_bytes).unwrap_or(usize::MAX));
        let db = guarded("open redb", || {
            std::fs::create_dir_all(folder)?;
            if !file.exists() && std::fs::read_dir(folder)?.next().is_some() {
                let fault = "the folder holds another engine's files";
                return Err(Error::Corrupted(fault.to_owned()));
            }
            Ok(builder.create(&file)?)
        })?;
        let engine = Self { db: RwLock::new(Some(db)), file, unsynced_bytes: AtomicU64::new(0) };
        engine.with("create tables", create_tables)?;
        Ok(engine)
    }

    fn with<T>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&Database) -> Result<T, Error>,
    ) -> Result<T, EngineError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        guarded(operation, || call(db.as_ref().ok_or(Error::DatabaseClosed)?))
    }

    /// Whether this commit is one that lasts.
    fn is_due(&self, batch: &WriteBatch) -> bool {
        let puts = batch.puts.iter().map(|(_, record)| record.size() as usize + PAGE_BYTES / 16);
        // A record that goes takes a page with it that others live on.
        let bytes = puts.sum::<usize>() + batch.removes.len() * PAGE_BYTES + 2 * PAGE_BYTES;
        let before = self.unsynced_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        before + bytes as u64 >= UNSYNCED_BYTES
    }
}

impl Drop for RedbEngine {
    fn drop(&mut self) {
        // What it holds that does not last yet comes back from the log.
        let _ = self.close();
    }
}

/// So that no reader meets a file without them.
fn create_tables(db: &Database) -> Result<(), Error> {
    if db.begin_read()?.list_tables()?.count() == 3 {
        return Ok(());
    }
    let write = db.begin_write()?;
    write.open_table(RECORDS)?;
    write.open_table(LEASES)?;
    write.open_table(META)?;
    Ok(write.commit()?)
}

fn write(db: &Database, batch: &WriteBatch, meta: Option<&Meta>, lasts: bool) -> Result<(), Error> {
    let mut write = db.begin_write()?;
    if !lasts {
        write.set_durability(Durability::None)?;
    }
    {
        let mut records = write.open_table(RECORDS)?;
        for (rev, record) in &batch.puts {
            records.insert(&rev.to_bytes(), &record.encode()[..])?;
        }
        for rev in &batch.removes {
            records.remove(&rev.to_bytes())?;
        }
    }
    if !batch.leases.is_empty() {
        let mut leases = write.open_table(LEASES)?;
        for (id, ttl_seconds) in &batch.leases {
            match ttl_seconds {
                Some(ttl_seconds) => leases.insert(id, ttl_seconds)?,
                None => leases.remove(id)?,
            };
        }
    }
    {
        let mut table = write.open_table(META)?;
        match meta {
            Some(meta) => table.insert((), &meta.encode()[..])?,
            None => table.remove(())?,
        };
    }
    Ok(write.commit()?)
}

impl Records for RedbEngine {
    fn record(&self, rev: Rev) -> Result<Option<Record>, ReadFault> {
        let fault = |fault: String| ReadFault { rev, fault };
        // Copied, because what is borrowed keeps pages from being used again.
        let bytes = self.with("get", |db| {
            let records = db.begin_read()?.open_table(RECORDS)?;
            Ok(records.get(&rev.to_bytes())?.map(|value| Bytes::copy_from_slice(value.value())))
        });
        let bytes = bytes.map_err(|error| fault(error.to_string()))?;
        bytes.map(Record::decode).transpose().map_err(|error| fault(error.to_string()))
    }
}

impl Engine for RedbEngine {
    fn apply(&self, batch: &WriteBatch, meta: Option<&Meta>) -> Result<(), EngineError> {
        let lasts = self.is_due(batch);
        self.with("write", |db| write(db, batch, meta, lasts))?;
        if lasts {
            self.unsynced_bytes.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    fn meta(&self) -> Result<Option<Meta>, EngineError> {
        let (meta, blank) = self.with("read meta", |db| {
            let read = db.begin_read()?;
            let meta = read.open_table(META)?.get(())?;
            let meta = meta.map(|meta| Bytes::copy_from_slice(meta.value()));
            Ok((meta, read.open_table(RECORDS)?.first()?.is_none()))
        })?;
        match meta {
            Some(bytes) => Ok(Some(Meta::decode(bytes)?)),
            None if blank => Ok(None),
            None => Err(EngineError::Inconsistent),
        }
    }

    fn leases(&self) -> Result<Vec<(LeaseId, i64)>, EngineError> {
        self.with("read leases", |db| {
            let leases = db.begin_read()?.open_table(LEASES)?;
            let mut all = Vec::new();
            for entry in leases.iter()? {
                let (id, ttl_seconds) = entry?;
                all.push((id.value(), ttl_seconds.value()));
            }
            Ok(all)
        })
    }

    fn scan(&self, from: Rev, to: Rev, visit: Visit) -> Result<(), EngineError> {
        let mut entries = self.with("scan", |db| {
            let records = db.begin_read()?.open_table(RECORDS)?;
            Ok(records.range_owned::<&[u8; 12]>(&from.to_bytes()..=&to.to_bytes())?)
        })?;
        loop {
            let next = guarded("scan", || {
                let Some(entry) = entries.next() else { return Ok(None) };
                let (key, value) = entry?;
                Ok(Some((*key.value(), Bytes::copy_from_slice(value.value()))))
            })?;
            let Some((key, value)) = next else { return Ok(()) };
            let rev = Rev::from_bytes(&key).ok_or(EngineError::Inconsistent)?;
            if !visit(rev, Record::decode(value)?) {
                return Ok(());
            }
        }
    }

    fn clear(&self) -> Result<(), EngineError> {
        self.with("clear", |db| {
            let write = db.begin_write()?;
            write.delete_table(RECORDS)?;
            write.delete_table(LEASES)?;
            write.delete_table(META)?;
            write.open_table(RECORDS)?;
            write.open_table(LEASES)?;
            write.open_table(META)?;
            Ok(write.commit()?)
        })
    }

    fn tidy(&self, what: Tidy) -> Result<bool, EngineError> {
        if what == Tidy::Needed {
            // It uses its free pages again by itself.
            return Ok(false);
        }
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        guarded("compact", || match db.as_mut().ok_or(Error::DatabaseClosed)?.compact() {
            Ok(_) | Err(CompactionError::TransactionInProgress) => Ok(false),
            Err(error) => Err(error.into()),
        })
    }

    fn flush(&self) -> Result<(), EngineError> {
        if self.unsynced_bytes.swap(0, Ordering::Relaxed) == 0 {
            return Ok(());
        }
        self.with("flush", |db| Ok(db.begin_write()?.commit()?))
    }

    fn close(&self) -> Result<(), EngineError> {
        let db = self.db.write().unwrap_or_else(PoisonError::into_inner).take();
        guarded("close", || {
            drop(db);
            Ok(())
        })
    }

    fn disk_bytes(&self) -> u64 {
        // The file has holes.
        std::fs::metadata(&self.file).map_or(0, |file| file.blocks() * 512)
    }
}

//! sled 0.34 behind the engine's trait, for comparison only.
//!
//! One tree; the first byte of a key is its kind:
//!
//! ```text
//! l | lease id i64 BE            -> TTL in seconds, i64 BE
//! m                              -> meta
//! r | main i64 BE | sub u32 BE   -> record
//! ```
//!
//! sled writes its buffer with each batch (traced) and nothing syncs it: traced, its `flush()` makes
//! no fsync either. Its own background flusher is off, so an idle store writes nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::Bytes;

use skiff_store::engine::{Engine, EngineError, Meta, Tidy, Visit};
use skiff_store::kv::LeaseId;
use skiff_store::mvcc::record::Record;
use skiff_store::mvcc::revision::Rev;
use skiff_store::mvcc::{ReadFault, Records, WriteBatch};
use skiff_store::wal::disk::is_no_space;

const META: &[u8] = b"m";
const LEASE: u8 = b'l';
const RECORD: u8 = b'r';

pub struct SledEngine {
    db: ::sled::Db,
}

/// sled panics on some damage; that is an error like any other here.
fn guarded<T>(
    operation: &'static str,
    call: impl FnOnce() -> ::sled::Result<T>,
) -> Result<T, EngineError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(::sled::Error::Io(error))) if is_no_space(&error) => {
            Err(EngineError::NoSpace { operation })
        }
        Ok(Err(error)) => Err(EngineError::Failed { operation, fault: error.to_string() }),
        Err(panic) => Err(EngineError::Failed { operation, fault: panic_text(&*panic) }),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    format!("sled panicked: {}", text.unwrap_or_else(|| "no message".to_owned()))
}

fn record_key(rev: Rev) -> [u8; 13] {
    let mut key = [RECORD; 13];
    key[1..].copy_from_slice(&rev.to_bytes());
    key
}

impl SledEngine {
    pub fn open(folder: &Path, cache_bytes: u64) -> Result<Self, EngineError> {
        let config = ::sled::Config::new()
            .path(folder)
            .cache_capacity(cache_bytes)
            .flush_every_ms(None)
            .mode(::sled::Mode::LowSpace);
        let db = guarded("open sled", || config.open())?;
        Ok(Self { db })
    }
}

impl Records for SledEngine {
    fn record(&self, rev: Rev) -> Result<Option<Record>, ReadFault> {
        let fault = |fault: String| ReadFault { rev, fault };
        let value = guarded("get", || self.db.get(record_key(rev)))
            .map_err(|error| fault(error.to_string()))?;
        let Some(value) = value else { return Ok(None) };
        let record = Record::decode(Bytes::copy_from_slice(&value))
            .map_err(|error| fault(error.to_string()))?;
        Ok(Some(record))
    }
}

impl Engine for SledEngine {
    fn apply(&self, writes: &WriteBatch, meta: Option<&Meta>) -> Result<(), EngineError> {
        let mut batch = ::sled::Batch::default();
        for (rev, record) in &writes.puts {
            batch.insert(&record_key(*rev)[..], record.encode());
        }
        for rev in &writes.removes {
            batch.remove(&record_key(*rev)[..]);
        }
        for (id, ttl_seconds) in &writes.leases {
            let key = lease_key(*id);
            match ttl_seconds {
                Some(ttl_seconds) => batch.insert(&key[..], &ttl_seconds.to_be_bytes()[..]),
                None => batch.remove(&key[..]),
            }
        }
        match meta {
            Some(meta) => batch.insert(META, meta.encode()),
            None => batch.remove(META),
        }
        guarded("write", || self.db.apply_batch(batch))
    }

    fn meta(&self) -> Result<Option<Meta>, EngineError> {
        match guarded("read meta", || self.db.get(META))? {
            Some(bytes) => Ok(Some(Meta::decode(Bytes::copy_from_slice(&bytes))?)),
            None if guarded("read", || self.db.first())?.is_some() => {
                Err(EngineError::Inconsistent)
            }
            None => Ok(None),
        }
    }

    fn leases(&self) -> Result<Vec<(LeaseId, i64)>, EngineError> {
        let mut leases = Vec::new();
        let mut entries = self.db.scan_prefix([LEASE]);
        while let Some((key, ttl_seconds)) = guarded("read leases", || entries.next().transpose())?
        {
            let number = |bytes: &[u8]| bytes.try_into().map(i64::from_be_bytes);
            match (number(&key[1..]), number(&ttl_seconds)) {
                (Ok(id), Ok(ttl_seconds)) => leases.push((id, ttl_seconds)),
                _ => return Err(EngineError::Inconsistent),
            }
        }
        Ok(leases)
    }

    fn scan(&self, from: Rev, to: Rev, visit: Visit) -> Result<(), EngineError> {
        let mut entries = self.db.range(record_key(from)..=record_key(to));
        while let Some((key, value)) = guarded("scan", || entries.next().transpose())? {
            let rev = Rev::from_bytes(&key[1..]).ok_or(EngineError::Inconsistent)?;
            let record = Record::decode(Bytes::copy_from_slice(&value))?;
            if !visit(rev, record) {
                break;
            }
        }
        Ok(())
    }

    fn clear(&self) -> Result<(), EngineError> {
        guarded("clear", || self.db.clear())
    }

    /// It has no means to.
    fn tidy(&self, _: Tidy) -> Result<bool, EngineError> {
        Ok(false)
    }

    fn flush(&self) -> Result<(), EngineError> {
        guarded("flush", || self.db.flush()).map(|_| ())
    }

    fn close(&self) -> Result<(), EngineError> {
        self.flush()
    }

    fn disk_bytes(&self) -> u64 {
        guarded("size", || self.db.size_on_disk()).unwrap_or(0)
    }
}

fn lease_key(id: LeaseId) -> [u8; 9] {
    let mut key = [LEASE; 9];
    key[1..].copy_from_slice(&id.to_be_bytes());
    key
}

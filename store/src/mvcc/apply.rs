//! Commands applied: transactions with etcd's rules, leases, compaction.
//!
//! A transaction decides all its comparisons, nested ones too, before it writes; then it
//! checks what could fail; then it writes, and cannot fail any more. All its writes share
//! one main revision.

use super::index::Version;
use super::record::Record;
use super::revision::Rev;
use super::{Change, Mvcc, ReadFault, Records, WriteBatch};
use crate::command::{Answer, Command, Outcome};
use crate::kv::*;

#[derive(Debug)]
pub struct Applied {
    pub answer: Answer,
    pub changes: Vec<Change>,
}

impl Mvcc {
    /// `Err` only if a record could not be read: the state is unusable then.
    pub fn apply(
        &mut self,
        command: &Command,
        records: &dyn Records,
        batch: &mut WriteBatch,
    ) -> Result<Applied, ReadFault> {
        let mut changes = Vec::new();
        if let Some(refused) = self.alarms.refuse(command) {
            return Ok(Applied { answer: Err(refused), changes });
        }
        let answer = match command {
            Command::Txn(txn) => {
                self.apply_txn(txn, records, batch, &mut changes)?.map(Outcome::Txn)
            }
            Command::LeaseGrant { id, ttl_seconds } => {
                let id = *id;
                self.leases.grant(id, *ttl_seconds).map(|ttl_seconds| {
                    batch.leases.push((id, Some(ttl_seconds)));
                    Outcome::LeaseGranted { id, ttl_seconds }
                })
            }
            Command::LeaseRevoke { id } => self.apply_revoke(*id, batch, &mut changes),
            Command::Compact { revision } => self.apply_compact(*revision),
            Command::Alarm(change) => Ok(Outcome::Alarm(self.alarms.change(change))),
        };
        Ok(Applied { answer, changes })
    }

    fn apply_revoke(
        &mut self,
        id: LeaseId,
        batch: &mut WriteBatch,
        changes: &mut Vec<Change>,
    ) -> Answer {
        let keys = self.leases.revoke(id)?;
        batch.leases.push((id, None));
        let mut writer = Writer::new(self, batch, changes);
        for key in keys {
            writer.delete(key);
        }
        let revision = writer.finish();
        Ok(Outcome::LeaseRevoked { revision })
    }

    fn apply_compact(&mut self, revision: Revision) -> Answer {
        if revision <= self.compacted {
            return Err(KvError::Compacted { requested: revision, compacted: self.compacted });
        }
        if revision > self.revision {
            return Err(KvError::FutureRevision { requested: revision, current: self.revision });
        }
        self.compacted = revision;
        let removed = self.index.compact(revision);
        self.forget(removed);
        Ok(Outcome::Compacted { revision: self.revision })
    }

    fn apply_txn(
        &mut self,
        txn: &TxnRequest,
        records: &dyn Records,
        batch: &mut WriteBatch,
        changes: &mut Vec<Change>,
    ) -> Result<Result<TxnResponse, KvError>, ReadFault> {
        let mut path = Vec::new();
        self.decide(txn, records, &mut path)?;
        if let Err(refused) = self.check_path(txn, &path) {
            return Ok(Err(refused));
        }
        let mut writer = Writer::new(self, batch, changes);
        let mut response = writer.txn(txn, records, &mut path.iter())?;
        response.revision = writer.finish();
        Ok(Ok(response))
    }

    /// Which branch each transaction takes, in the order in which they run.
    pub(super) fn decide(
        &self,
        txn: &TxnRequest,
        records: &dyn Records,
        path: &mut Vec<bool>,
    ) -> Result<(), ReadFault> {
        let mut succeeded = true;
        for compare in &txn.compare {
            if !self.compare(compare, records)? {
                succeeded = false;
                break;
            }
        }
        path.push(succeeded);
        for op in branch(txn, succeeded) {
            if let Op::Txn(nested) = op {
                self.decide(nested, records, path)?;
            }
        }
        Ok(())
    }

    fn compare(&self, compare: &Compare, records: &dyn Records) -> Result<bool, ReadFault> {
        let mut any = false;
        for (key, version) in self.index.range(&compare.range, Revision::MAX) {
            any = true;
            let ordering = match &compare.target {
                CompareTarget::Version(given) => version.version.cmp(given),
                CompareTarget::Create(given) => version.create.cmp(given),
                CompareTarget::Mod(given) => version.rev.main.cmp(given),
                CompareTarget::Lease(given) => self.leases.of(key).cmp(given),
                CompareTarget::Value(given) => self.fetch(&version, records)?.value.cmp(given),
            };
            if !holds(compare.result, ordering) {
                return Ok(false);
            }
        }
        if any {
            return Ok(true);
        }
        // A key that is not there has zeros for numbers, and no value to compare with.
        Ok(match &compare.target {
            CompareTarget::Value(_) => false,
            CompareTarget::Version(given)
            | CompareTarget::Create(given)
            | CompareTarget::Mod(given)
            | CompareTarget::Lease(given) => holds(compare.result, 0.cmp(given)),
        })
    }

    /// Everything in the chosen branches that can be refused, against the state before. As
    /// in etcd, all puts are looked at before any range.
    pub(super) fn check_path(&self, txn: &TxnRequest, path: &[bool]) -> Result<(), KvError> {
        check_branches(txn, &mut path.iter(), &|op| match op {
            Op::Put(put) => self.check_put(put),
            _ => Ok(()),
        })?;
        check_branches(txn, &mut path.iter(), &|op| match op {
            Op::Range(range) => self.check_revision(range.revision),
            _ => Ok(()),
        })
    }

    fn check_put(&self, put: &PutRequest) -> Result<(), KvError> {
        if (put.ignore_value || put.ignore_lease) && self.previous(&put.key).is_none() {
            return Err(KvError::KeyNotFound);
        }
        if put.lease != 0 && !self.leases.contains(put.lease) {
            return Err(KvError::LeaseNotFound(put.lease));
        }
        Ok(())
    }
}

fn check_branches(
    txn: &TxnRequest,
    path: &mut dyn Iterator<Item = &bool>,
    check: &dyn Fn(&Op) -> Result<(), KvError>,
) -> Result<(), KvError> {
    let succeeded = path.next().copied().unwrap_or(false);
    for op in branch(txn, succeeded) {
        match op {
            Op::Txn(nested) => check_branches(nested, path, check)?,
            op => check(op)?,
        }
    }
    Ok(())
}

fn branch(txn: &TxnRequest, succeeded: bool) -> &[Op] {
    if succeeded { &txn.success } else { &txn.failure }
}

fn holds(result: CompareResult, ordering: std::cmp::Ordering) -> bool {
    match result {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::NotEqual => ordering.is_ne(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
    }
}

/// The writes of one main revision, which exists only if there are any.
struct Writer<'a> {
    mvcc: &'a mut Mvcc,
    batch: &'a mut WriteBatch,
    changes: &'a mut Vec<Change>,
    main: Revision,
    writes: u32,
}

impl<'a> Writer<'a> {
    fn new(mvcc: &'a mut Mvcc, batch: &'a mut WriteBatch, changes: &'a mut Vec<Change>) -> Self {
        let main = mvcc.revision + 1;
        Self { mvcc, batch, changes, main, writes: 0 }
    }

    /// The revision as seen from within: its own as soon as something is written.
    fn current(&self) -> Revision {
        if self.writes > 0 { self.main } else { self.mvcc.revision }
    }

    fn finish(self) -> Revision {
        let current = self.current();
        self.mvcc.revision = current;
        current
    }

    fn write(&mut self, record: Record, previous: Option<Version>) {
        let rev = Rev::new(self.main, self.writes);
        self.writes += 1;
        // Most often it is the last one; this revision may have written the key before, though.
        let previous = match previous {
            Some(version) if version.rev.main == self.main => self.mvcc.before(rev, &record),
            previous => previous,
        };
        let version = self.mvcc.note(rev, &record);
        self.mvcc.index.add(&record.key, version);
        self.mvcc.recent.push(rev, record.clone());
        self.batch.puts.push((rev, record.clone()));
        self.changes.push(Change { rev, record, previous });
    }

    fn delete(&mut self, key: bytes::Bytes) {
        let previous = self.mvcc.previous(&key);
        if previous.is_some() {
            self.mvcc.leases.detach(&key);
            self.write(Record::tombstone(key), previous);
        }
    }

    fn txn(
        &mut self,
        txn: &TxnRequest,
        records: &dyn Records,
        path: &mut dyn Iterator<Item = &bool>,
    ) -> Result<TxnResponse, ReadFault> {
        let succeeded = path.next().copied().unwrap_or(false);
        let ops = branch(txn, succeeded);
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            responses.push(match op {
                Op::Range(range) => OpResponse::Range(self.range(range, records)?),
                Op::Put(put) => OpResponse::Put { prev: self.put(put, records)? },
                Op::Delete(delete) => self.delete_range(delete, records)?,
                Op::Txn(nested) => OpResponse::Txn(self.txn(nested, records, path)?),
            });
        }
        Ok(TxnResponse { revision: self.current(), succeeded, responses })
    }

    fn range(
        &self,
        request: &RangeRequest,
        records: &dyn Records,
    ) -> Result<RangeResponse, ReadFault> {
        let plan = self.mvcc.plan_at(request, self.current());
        plan.finish(&mut |version| self.mvcc.fetch(version, records))
    }

    fn put(
        &mut self,
        put: &PutRequest,
        records: &dyn Records,
    ) -> Result<Option<KeyValue>, ReadFault> {
        let previous = self.mvcc.previous(&put.key);
        let wanted = put.prev_kv || put.ignore_value;
        let old = match previous {
            Some(version) if wanted => Some(self.mvcc.fetch(&version, records)?),
            _ => None,
        };
        let lease = if put.ignore_lease { self.mvcc.leases.of(&put.key) } else { put.lease };
        let value = match &old {
            Some(old) if put.ignore_value => old.value.clone(),
            _ => put.value.clone(),
        };
        let record = Record {
            key: put.key.clone(),
            value,
            create: previous.map_or(self.main, |v| v.create),
            version: previous.map_or(1, |v| v.version + 1),
            lease,
        };
        self.mvcc.leases.attach(&record.key, lease);
        self.write(record, previous);
        let key_value = previous.zip(old).map(|(version, old)| old.to_key_value(version.rev));
        Ok(key_value.filter(|_| put.prev_kv))
    }

    fn delete_range(
        &mut self,
        delete: &DeleteRequest,
        records: &dyn Records,
    ) -> Result<OpResponse, ReadFault> {
        let hits: Vec<_> = self
            .mvcc
            .index
            .range(&delete.range, Revision::MAX)
            .map(|(key, version)| (key.clone(), version))
            .collect();
        let mut prev = Vec::new();
        let deleted = hits.len() as i64;
        for (key, version) in hits {
            if delete.prev_kv {
                prev.push(self.mvcc.fetch(&version, records)?.to_key_value(version.rev));
            }
            self.delete(key);
        }
        Ok(OpResponse::Delete { deleted, prev })
    }
}

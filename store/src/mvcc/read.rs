//! Ranges: which keys, in which order, how many; then their values.
//!
//! The plan is made under the state's lock. Values that are not in memory are fetched
//! after it has been let go, so a big read does not hold writes up.

use std::cmp::Ordering;

use bytes::Bytes;

use super::index::Version;
use super::record::Record;
use super::{Mvcc, ReadFault, Records};
use crate::kv::*;

#[derive(Debug)]
pub struct Hit {
    pub version: Version,
    /// If it was in memory.
    pub record: Option<Record>,
}

#[derive(Debug)]
pub struct RangePlan {
    pub hits: Vec<Hit>,
    pub revision: Revision,
    count: i64,
    limit: usize,
    sort: Option<(SortOrder, SortTarget)>,
    keys_only: bool,
}

impl Mvcc {
    /// Whether a range at `revision` can be answered; 0: the newest.
    pub fn check_revision(&self, revision: Revision) -> Result<(), KvError> {
        if revision > self.revision {
            return Err(KvError::FutureRevision { requested: revision, current: self.revision });
        }
        if revision > 0 && revision < self.compacted {
            return Err(KvError::Compacted { requested: revision, compacted: self.compacted });
        }
        Ok(())
    }

    pub fn plan(&self, request: &RangeRequest) -> Result<RangePlan, KvError> {
        self.check_revision(request.revision)?;
        Ok(self.plan_at(request, self.revision))
    }

    pub(super) fn plan_at(&self, request: &RangeRequest, current: Revision) -> RangePlan {
        let at = if request.revision > 0 { request.revision } else { current };
        let limit = if request.limit > 0 { request.limit as usize } else { usize::MAX };
        let sort = effective_sort(request.sort);
        // With an order of its own, all have to be looked at. With a target but no order, etcd
        // takes the first keys up to the limit and sorts those, unless it has to filter.
        let cut_first = request.sort.0 == SortOrder::None && !is_filtered(request);
        let all = sort.is_some() && !cut_first;
        let wanted = if all { usize::MAX } else { limit.saturating_add(1) };
        let mut plan = RangePlan {
            hits: Vec::new(),
            revision: current,
            count: 0,
            limit,
            sort,
            keys_only: request.keys_only,
        };
        for (_, version) in self.index.range(&request.range, at) {
            plan.count += 1;
            if !request.count_only && plan.hits.len() < wanted && passes(request, &version) {
                let record = self.recent.get(version.rev).cloned();
                plan.hits.push(Hit { version, record });
            }
        }
        plan
    }

    /// A transaction that only reads, on the state as it is.
    pub fn read_txn(
        &self,
        txn: &TxnRequest,
        records: &dyn Records,
    ) -> Result<TxnResponse, KvError> {
        let mut path = Vec::new();
        self.decide(txn, records, &mut path)?;
        self.check_path(txn, &path)?;
        Ok(self.read_branch(txn, records, &mut path.iter())?)
    }

    fn read_branch(
        &self,
        txn: &TxnRequest,
        records: &dyn Records,
        path: &mut dyn Iterator<Item = &bool>,
    ) -> Result<TxnResponse, ReadFault> {
        let succeeded = path.next().copied().unwrap_or(false);
        let mut responses = Vec::new();
        for op in if succeeded { &txn.success } else { &txn.failure } {
            match op {
                Op::Range(range) => {
                    let plan = self.plan_at(range, self.revision);
                    let response = plan.finish(&mut |version| self.fetch(version, records))?;
                    responses.push(OpResponse::Range(response));
                }
                Op::Txn(nested) => {
                    responses.push(OpResponse::Txn(self.read_branch(nested, records, path)?))
                }
                // The caller has made sure that there are none.
                Op::Put(_) | Op::Delete(_) => {}
            }
        }
        Ok(TxnResponse { revision: self.revision, succeeded, responses })
    }
}

impl RangePlan {
    /// Sorts, cuts and fills in the values.
    pub fn finish(
        mut self,
        fetch: &mut dyn FnMut(&Version) -> Result<Record, ReadFault>,
    ) -> Result<RangeResponse, ReadFault> {
        let by_value = matches!(self.sort, Some((_, SortTarget::Value)));
        if by_value {
            for hit in &mut self.hits {
                if hit.record.is_none() {
                    hit.record = Some(fetch(&hit.version)?);
                }
            }
        }
        if let Some((order, target)) = self.sort {
            sort_hits(&mut self.hits, order, target);
        }
        let more = self.hits.len() > self.limit;
        self.hits.truncate(self.limit);
        let mut kvs = Vec::with_capacity(self.hits.len());
        for hit in self.hits {
            let record = match hit.record {
                Some(record) => record,
                None => fetch(&hit.version)?,
            };
            let mut kv = record.to_key_value(hit.version.rev);
            if self.keys_only {
                kv.value = Bytes::new();
            }
            kvs.push(kv);
        }
        Ok(RangeResponse { revision: self.revision, kvs, more, count: self.count })
    }
}

/// `None` if the order of the index is what is asked for. As in etcd, a target other than
/// the key sorts upwards when no order is given.
fn effective_sort((order, target): (SortOrder, SortTarget)) -> Option<(SortOrder, SortTarget)> {
    match (order, target) {
        (SortOrder::None | SortOrder::Ascend, SortTarget::Key) => None,
        (SortOrder::None, target) => Some((SortOrder::Ascend, target)),
        given => Some(given),
    }
}

fn is_filtered(request: &RangeRequest) -> bool {
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    bounds.iter().any(|bound| *bound != 0)
}

fn passes(request: &RangeRequest, version: &Version) -> bool {
    let within = |value: Revision, min: Revision, max: Revision| {
        (min == 0 || value >= min) && (max == 0 || value <= max)
    };
    within(version.rev.main, request.min_mod_revision, request.max_mod_revision)
        && within(version.create, request.min_create_revision, request.max_create_revision)
}

fn sort_hits(hits: &mut [Hit], order: SortOrder, target: SortTarget) {
    if target == SortTarget::Key {
        // They come in ascending order of keys, and only a descending one gets here.
        hits.reverse();
        return;
    }
    let compare = |a: &Hit, b: &Hit| -> Ordering {
        match target {
            SortTarget::Version => a.version.version.cmp(&b.version.version),
            SortTarget::Create => a.version.create.cmp(&b.version.create),
            SortTarget::Mod => a.version.rev.main.cmp(&b.version.rev.main),
            SortTarget::Key | SortTarget::Value => {
                let value = |hit: &Hit| hit.record.as_ref().map(|r| r.value.clone());
                value(a).cmp(&value(b))
            }
        }
    };
    match order {
        SortOrder::Descend => hits.sort_by(|a, b| compare(b, a)),
        SortOrder::None | SortOrder::Ascend => hits.sort_by(compare),
    }
}

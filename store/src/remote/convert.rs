//! The store's requests as etcd's, and etcd's answers as the store's. Keys and values are
//! shared, not copied.

use bytes::Bytes;
use skiff_proto::grpc::etcdserverpb as pb;
use skiff_proto::grpc::mvccpb;

use crate::kv::*;
use crate::mvcc::range::prefix_end;

pub fn revision(header: &Option<pb::ResponseHeader>) -> Revision {
    header.as_ref().map_or(0, |header| header.revision)
}

/// etcd's key and end. To it, `\0` as an end means all that follows, and none means one key.
pub fn bounds(range: &KeyRange) -> (Bytes, Bytes) {
    let all = || Bytes::from_static(&[0]);
    match range {
        KeyRange::One(key) => (key.clone(), Bytes::new()),
        KeyRange::From(start) => (start.clone(), all()),
        KeyRange::Prefix(prefix) if prefix.is_empty() => (all(), all()),
        KeyRange::Prefix(prefix) => (prefix.clone(), prefix_end(prefix).unwrap_or_else(all)),
        // Nothing lies there, and two ends would be taken for something else.
        KeyRange::Between(start, end) if end <= start => (start.clone(), start.clone()),
        KeyRange::Between(start, end) => (start.clone(), end.clone()),
    }
}

pub fn range(request: &RangeRequest) -> pb::RangeRequest {
    let (key, range_end) = bounds(&request.range);
    pb::RangeRequest {
        key,
        range_end,
        limit: request.limit,
        revision: request.revision,
        sort_order: request.sort.0 as i32,
        sort_target: request.sort.1 as i32,
        serializable: request.serializable,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    }
}

fn put(request: &PutRequest) -> pb::PutRequest {
    pb::PutRequest {
        key: request.key.clone(),
        value: request.value.clone(),
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

fn delete(request: &DeleteRequest) -> pb::DeleteRangeRequest {
    let (key, range_end) = bounds(&request.range);
    pb::DeleteRangeRequest { key, range_end, prev_kv: request.prev_kv }
}

pub fn txn(request: &TxnRequest) -> pb::TxnRequest {
    pb::TxnRequest {
        compare: request.compare.iter().map(compare).collect(),
        success: request.success.iter().map(op).collect(),
        failure: request.failure.iter().map(op).collect(),
    }
}

fn op(op: &Op) -> pb::RequestOp {
    use pb::request_op::Request;
    let request = match op {
        Op::Range(request) => Request::RequestRange(range(request)),
        Op::Put(request) => Request::RequestPut(put(request)),
        Op::Delete(request) => Request::RequestDeleteRange(delete(request)),
        Op::Txn(request) => Request::RequestTxn(txn(request)),
    };
    pb::RequestOp { request: Some(request) }
}

fn compare(compare: &Compare) -> pb::Compare {
    use pb::compare::{CompareResult as Result, CompareTarget as Target, TargetUnion};
    let (target, union) = match &compare.target {
        CompareTarget::Version(version) => (Target::Version, TargetUnion::Version(*version)),
        CompareTarget::Create(at) => (Target::Create, TargetUnion::CreateRevision(*at)),
        CompareTarget::Mod(at) => (Target::Mod, TargetUnion::ModRevision(*at)),
        CompareTarget::Value(value) => (Target::Value, TargetUnion::Value(value.clone())),
        CompareTarget::Lease(lease) => (Target::Lease, TargetUnion::Lease(*lease)),
    };
    let result = match compare.result {
        CompareResult::Equal => Result::Equal,
        CompareResult::Greater => Result::Greater,
        CompareResult::Less => Result::Less,
        CompareResult::NotEqual => Result::NotEqual,
    };
    let (key, range_end) = bounds(&compare.range);
    pb::Compare {
        result: result.into(),
        target: target.into(),
        key,
        range_end,
        target_union: Some(union),
    }
}

/// The revisions that a transaction reads at.
pub fn revisions(request: &TxnRequest) -> Vec<Revision> {
    let ops = request.success.iter().chain(&request.failure);
    let mut revisions = Vec::new();
    for op in ops {
        match op {
            Op::Range(range) if range.revision > 0 => revisions.push(range.revision),
            Op::Txn(nested) => revisions.extend(self::revisions(nested)),
            _ => {}
        }
    }
    revisions
}

fn key_value(kv: mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

pub fn range_response(response: pb::RangeResponse) -> RangeResponse {
    RangeResponse {
        revision: revision(&response.header),
        kvs: response.kvs.into_iter().map(key_value).collect(),
        more: response.more,
        count: response.count,
    }
}

pub fn txn_response(response: pb::TxnResponse) -> Result<TxnResponse, String> {
    let revision = revision(&response.header);
    nested_response(response, revision)
}

/// etcd leaves the headers of nested answers empty; all are of one revision.
fn nested_response(response: pb::TxnResponse, revision: Revision) -> Result<TxnResponse, String> {
    use pb::response_op::Response;
    let answer = |op: pb::ResponseOp| {
        Ok(match op.response.ok_or("an operation with nothing")? {
            Response::ResponseRange(range) => OpResponse::Range(range_response(range)),
            Response::ResponsePut(put) => OpResponse::Put { prev: put.prev_kv.map(key_value) },
            Response::ResponseDeleteRange(delete) => OpResponse::Delete {
                deleted: delete.deleted,
                prev: delete.prev_kvs.into_iter().map(key_value).collect(),
            },
            Response::ResponseTxn(txn) => OpResponse::Txn(nested_response(txn, revision)?),
        })
    };
    let responses: Result<_, String> = response.responses.into_iter().map(answer).collect();
    Ok(TxnResponse { revision, succeeded: response.succeeded, responses: responses? })
}

pub fn event(event: mvccpb::Event) -> Option<Event> {
    let kind = match event.r#type() {
        mvccpb::event::EventType::Put => EventType::Put,
        mvccpb::event::EventType::Delete => EventType::Delete,
    };
    Some(Event { kind, kv: key_value(event.kv?), prev: event.prev_kv.map(key_value) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_holds_nothing_stays_so() {
        let check = |range: KeyRange, key: &'static str, end: &'static str| {
            assert_eq!(bounds(&range), (key.into(), end.into()), "{range:?}");
        };
        check(KeyRange::One("a".into()), "a", "");
        check(KeyRange::From("a".into()), "a", "\0");
        check(KeyRange::Prefix("a".into()), "a", "b");
        check(KeyRange::Prefix("".into()), "\0", "\0");
        check(KeyRange::Between("a".into(), "b".into()), "a", "b");
        check(KeyRange::Between("a".into(), "".into()), "a", "a");
        check(KeyRange::Between("a".into(), "\0".into()), "a", "a");
    }
}

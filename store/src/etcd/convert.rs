//! etcd's wire shapes to the store's own and back. Keys and values are shared, not copied.

use skiff_proto::grpc::etcdserverpb as pb;
use skiff_proto::grpc::mvccpb;
use tonic::Status;

use super::error;
use crate::kv::*;

pub fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value,
        lease: kv.lease,
    }
}

pub fn event(event: Event) -> mvccpb::Event {
    let kind = match event.kind {
        EventType::Put => mvccpb::event::EventType::Put,
        EventType::Delete => mvccpb::event::EventType::Delete,
    };
    mvccpb::Event {
        r#type: kind.into(),
        kv: Some(key_value(event.kv)),
        prev_kv: event.prev.map(key_value),
    }
}

pub fn range(request: pb::RangeRequest) -> Result<RangeRequest, Status> {
    let order = match request.sort_order() {
        pb::range_request::SortOrder::None => SortOrder::None,
        pb::range_request::SortOrder::Ascend => SortOrder::Ascend,
        pb::range_request::SortOrder::Descend => SortOrder::Descend,
    };
    let target = match request.sort_target() {
        pb::range_request::SortTarget::Key => SortTarget::Key,
        pb::range_request::SortTarget::Version => SortTarget::Version,
        pb::range_request::SortTarget::Create => SortTarget::Create,
        pb::range_request::SortTarget::Mod => SortTarget::Mod,
        pb::range_request::SortTarget::Value => SortTarget::Value,
    };
    // A number that is not in the enumeration has been read as its default.
    if order_number(order) != request.sort_order || target_number(target) != request.sort_target {
        return Err(error::bad_sort());
    }
    Ok(RangeRequest {
        revision: request.revision.max(0),
        limit: request.limit,
        sort: (order, target),
        keys_only: request.keys_only,
        count_only: request.count_only,
        serializable: request.serializable,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
        ..RangeRequest::new(KeyRange::from_etcd(request.key, request.range_end))
    })
}

fn order_number(order: SortOrder) -> i32 {
    order as i32
}

fn target_number(target: SortTarget) -> i32 {
    target as i32
}

pub fn range_response(
    response: RangeResponse,
    header: Option<pb::ResponseHeader>,
) -> pb::RangeResponse {
    pb::RangeResponse {
        header,
        kvs: response.kvs.into_iter().map(key_value).collect(),
        more: response.more,
        count: response.count,
    }
}

pub fn put(request: pb::PutRequest) -> PutRequest {
    PutRequest {
        key: request.key,
        value: request.value,
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

pub fn delete(request: pb::DeleteRangeRequest) -> DeleteRequest {
    let range = KeyRange::from_etcd(request.key, request.range_end);
    DeleteRequest { range, prev_kv: request.prev_kv }
}

/// How deep transactions may lie in each other; every level takes operations of etcd's
/// allowance, so that real ones end long before. Guards the stack.
const MAX_DEPTH: usize = 32;

pub fn txn(request: pb::TxnRequest) -> Result<TxnRequest, Status> {
    txn_at(request, 0)
}

fn txn_at(request: pb::TxnRequest, depth: usize) -> Result<TxnRequest, Status> {
    if depth > MAX_DEPTH {
        return Err(error::kv(KvError::TooManyOps { given: depth, limit: MAX_DEPTH }));
    }
    let ops = |ops: Vec<pb::RequestOp>| -> Result<Vec<Op>, Status> {
        ops.into_iter().map(|request| op(request, depth)).collect()
    };
    Ok(TxnRequest {
        compare: request.compare.into_iter().map(compare).collect(),
        success: ops(request.success)?,
        failure: ops(request.failure)?,
    })
}

fn op(op: pb::RequestOp, depth: usize) -> Result<Op, Status> {
    use pb::request_op::Request;
    Ok(match op.request {
        Some(Request::RequestRange(request)) => Op::Range(range(request)?),
        Some(Request::RequestPut(request)) => Op::Put(put(request)),
        Some(Request::RequestDeleteRange(request)) => Op::Delete(delete(request)),
        Some(Request::RequestTxn(request)) => Op::Txn(txn_at(request, depth + 1)?),
        // What etcd says to an operation that is none.
        None => return Err(error::kv(KvError::KeyNotFound)),
    })
}

/// A value of another kind than the target's counts as none, as in etcd.
fn compare(compare: pb::Compare) -> Compare {
    use pb::compare::{CompareResult as Order, CompareTarget as Target, TargetUnion as Given};
    let given = compare.target_union.clone();
    let target = match (compare.target(), given) {
        (Target::Version, Some(Given::Version(version))) => CompareTarget::Version(version),
        (Target::Version, _) => CompareTarget::Version(0),
        (Target::Create, Some(Given::CreateRevision(revision))) => CompareTarget::Create(revision),
        (Target::Create, _) => CompareTarget::Create(0),
        (Target::Mod, Some(Given::ModRevision(revision))) => CompareTarget::Mod(revision),
        (Target::Mod, _) => CompareTarget::Mod(0),
        (Target::Value, Some(Given::Value(value))) => CompareTarget::Value(value),
        (Target::Value, _) => CompareTarget::Value(Default::default()),
        (Target::Lease, Some(Given::Lease(lease))) => CompareTarget::Lease(lease),
        (Target::Lease, _) => CompareTarget::Lease(0),
    };
    let result = match compare.result() {
        Order::Equal => CompareResult::Equal,
        Order::Greater => CompareResult::Greater,
        Order::Less => CompareResult::Less,
        Order::NotEqual => CompareResult::NotEqual,
    };
    Compare { range: KeyRange::from_etcd(compare.key, compare.range_end), target, result }
}

pub fn txn_response(response: TxnResponse, header: Option<pb::ResponseHeader>) -> pb::TxnResponse {
    let after = response.revision;
    let before = if wrote(&response.responses) { after - 1 } else { after };
    let mut revisions = Revisions { current: before, after };
    pb::TxnResponse {
        header,
        succeeded: response.succeeded,
        responses: revisions.ops(response.responses),
    }
}

fn wrote(responses: &[OpResponse]) -> bool {
    responses.iter().any(|response| match response {
        OpResponse::Range(_) => false,
        OpResponse::Put { .. } => true,
        OpResponse::Delete { deleted, .. } => *deleted > 0,
        OpResponse::Txn(nested) => wrote(&nested.responses),
    })
}

/// The operations of a transaction carry the revision as it was when each had run: that
/// before the transaction until the first write, then the transaction's own.
struct Revisions {
    current: Revision,
    after: Revision,
}

impl Revisions {
    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader { revision: self.current, ..Default::default() })
    }

    fn ops(&mut self, responses: Vec<OpResponse>) -> Vec<pb::ResponseOp> {
        responses.into_iter().map(|response| self.op(response)).collect()
    }

    fn op(&mut self, response: OpResponse) -> pb::ResponseOp {
        use pb::response_op::Response;
        let response = match response {
            OpResponse::Range(range) => {
                Response::ResponseRange(range_response(range, self.header()))
            }
            OpResponse::Put { prev } => {
                self.current = self.after;
                Response::ResponsePut(pb::PutResponse {
                    header: self.header(),
                    prev_kv: prev.map(key_value),
                })
            }
            OpResponse::Delete { deleted, prev } => {
                if deleted > 0 {
                    self.current = self.after;
                }
                Response::ResponseDeleteRange(pb::DeleteRangeResponse {
                    header: self.header(),
                    deleted,
                    prev_kvs: prev.into_iter().map(key_value).collect(),
                })
            }
            OpResponse::Txn(nested) => Response::ResponseTxn(pb::TxnResponse {
                // etcd leaves it empty there.
                header: Some(Default::default()),
                succeeded: nested.succeeded,
                responses: self.ops(nested.responses),
            }),
        };
        pb::ResponseOp { response: Some(response) }
    }
}

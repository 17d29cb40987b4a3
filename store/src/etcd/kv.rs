//! The KV service.

use skiff_proto::grpc::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use super::{Face, convert, error};
use crate::kv::{Kv, KvError, LeaseId, Op, OpResponse, Revision, TxnRequest};

impl Face {
    /// A single write is a transaction of one operation.
    async fn one(&self, op: Op) -> Result<(Revision, OpResponse), Status> {
        let txn = TxnRequest { success: vec![op], ..Default::default() };
        let mut response = self.store.txn(txn).await.map_err(error::kv)?;
        let answer = response.responses.pop();
        let answer = answer.ok_or_else(|| unexpected("nothing"))?;
        Ok((response.revision, answer))
    }
}

impl Face {
    fn lease_is_gone(&self, lease: LeaseId) -> bool {
        lease != 0 && self.store.inner.core.mvcc().leases().get(lease).is_none()
    }
}

fn unexpected(answer: &str) -> Status {
    Status::internal(format!("etcdserver: the operation was answered with {answer}"))
}

#[tonic::async_trait]
impl pb::kv_server::Kv for Face {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let request = convert::range(request.into_inner())?;
        let response = self.store.range(request).await.map_err(error::kv)?;
        let header = self.header(response.revision);
        Ok(Response::new(convert::range_response(response, header)))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let request = convert::put(request.into_inner());
        let lease = request.lease;
        let txn = TxnRequest { success: vec![Op::Put(request)], ..Default::default() };
        let mut response = match self.store.txn(txn).await {
            // Of a key and a lease that are both missing, etcd names the lease in a put, and
            // the key in a transaction.
            Err(KvError::KeyNotFound) if self.lease_is_gone(lease) => {
                return Err(error::kv(KvError::LeaseNotFound(lease)));
            }
            outcome => outcome.map_err(error::kv)?,
        };
        let revision = response.revision;
        let answer = response.responses.pop().ok_or_else(|| unexpected("nothing"))?;
        let OpResponse::Put { prev } = answer else { return Err(unexpected("another's answer")) };
        let header = self.header(revision);
        Ok(Response::new(pb::PutResponse { header, prev_kv: prev.map(convert::key_value) }))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let request = convert::delete(request.into_inner());
        let (revision, answer) = self.one(Op::Delete(request)).await?;
        let OpResponse::Delete { deleted, prev } = answer else {
            return Err(unexpected("another's answer"));
        };
        Ok(Response::new(pb::DeleteRangeResponse {
            header: self.header(revision),
            deleted,
            prev_kvs: prev.into_iter().map(convert::key_value).collect(),
        }))
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let request = convert::txn(request.into_inner())?;
        let response = self.store.txn(request).await.map_err(error::kv)?;
        let header = self.header(response.revision);
        Ok(Response::new(convert::txn_response(response, header)))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let request = request.into_inner();
        let compacted = self.store.compact(request.revision, request.physical).await;
        let revision = compacted.map_err(error::kv)?;
        Ok(Response::new(pb::CompactionResponse { header: self.header(revision) }))
    }
}

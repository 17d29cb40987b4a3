//! The Lease service.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use skiff_proto::grpc::etcdserverpb as pb;
use tonic::{Request, Response, Status, Streaming};

use super::{Face, error};
use crate::kv::{Kv, KvError, LeaseId};

type Answers = Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send>>;

impl Face {
    /// A lease that is gone is no error: it has no time left.
    async fn keep_alive(&self, id: LeaseId) -> Result<pb::LeaseKeepAliveResponse, Status> {
        let ttl = match self.store.lease_keep_alive(id).await {
            Ok(ttl) => ttl,
            Err(KvError::LeaseNotFound(_)) => 0,
            Err(refused) => return Err(error::kv(refused)),
        };
        Ok(pb::LeaseKeepAliveResponse { header: self.header_now(), id, ttl })
    }

    /// The next answer; `None` when the client is done or an error has been given.
    async fn next_keep_alive(
        &self,
        requests: &mut Streaming<pb::LeaseKeepAliveRequest>,
    ) -> Option<Result<pb::LeaseKeepAliveResponse, Status>> {
        tokio::select! {
            () = self.shutdown.cancelled() => Some(Err(error::stopped())),
            request = requests.next() => match request? {
                Ok(request) => Some(self.keep_alive(request.id).await),
                Err(status) => Some(Err(status)),
            },
        }
    }
}

#[tonic::async_trait]
impl pb::lease_server::Lease for Face {
    type LeaseKeepAliveStream = Answers;

    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let request = request.into_inner();
        let granted = self.store.lease_grant(request.id, request.ttl).await;
        let (id, ttl) = granted.map_err(error::kv)?;
        let header = self.header_now();
        Ok(Response::new(pb::LeaseGrantResponse { header, id, ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let revoked = self.store.lease_revoke(request.into_inner().id).await;
        let revision = revoked.map_err(error::kv)?;
        Ok(Response::new(pb::LeaseRevokeResponse { header: self.header(revision) }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let open = Some((self.clone(), request.into_inner()));
        let answers = futures_util::stream::unfold(open, |open| async move {
            let (face, mut requests) = open?;
            let answer = face.next_keep_alive(&mut requests).await?;
            let next = answer.is_ok().then_some((face, requests));
            Some((answer, next))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let request = request.into_inner();
        let info = self.store.lease_time_to_live(request.id, request.keys).await;
        let info = info.map_err(error::kv)?;
        Ok(Response::new(pb::LeaseTimeToLiveResponse {
            header: self.header_now(),
            id: info.id,
            ttl: info.ttl_seconds,
            granted_ttl: info.granted_ttl_seconds,
            keys: info.keys,
        }))
    }

    async fn lease_leases(
        &self,
        _: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let ids = self.store.leases().await.map_err(error::kv)?;
        let leases = ids.into_iter().map(|id| pb::LeaseStatus { id }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: self.header_now(), leases }))
    }
}

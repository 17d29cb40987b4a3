//! Which service a request is for, and how it gets there.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use prost::Message;
use skiff_proto::grpc::etcdserverpb as pb;
use skiff_proto::grpc::etcdserverpb::kv_server::Kv as _;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::codegen::Service;

use super::unary::{self, Opened, Reply};
use super::{Face, VERSION, error, metrics};

/// What a message has beside its request's keys and values; etcd allows as much.
const MESSAGE_OVERHEAD_BYTES: usize = 512 << 10;

/// Of all connections.
pub struct Services {
    face: Face,
    limit_bytes: usize,
    kv: pb::kv_server::KvServer<Face>,
    watch: pb::watch_server::WatchServer<Face>,
    lease: pb::lease_server::LeaseServer<Face>,
    cluster: pb::cluster_server::ClusterServer<Face>,
    maintenance: pb::maintenance_server::MaintenanceServer<Face>,
}

impl Services {
    pub fn new(face: Face) -> Self {
        let limit_bytes = face.store.inner.config.max_request_bytes + MESSAGE_OVERHEAD_BYTES;
        let shared = Arc::new(face.clone());
        let kv = pb::kv_server::KvServer::from_arc(shared.clone());
        Self {
            kv: kv.max_decoding_message_size(limit_bytes),
            watch: pb::watch_server::WatchServer::from_arc(shared.clone()),
            lease: pb::lease_server::LeaseServer::from_arc(shared.clone()),
            cluster: pb::cluster_server::ClusterServer::from_arc(shared.clone()),
            maintenance: pb::maintenance_server::MaintenanceServer::from_arc(shared),
            face,
            limit_bytes,
        }
    }

    pub async fn call(self: Arc<Self>, request: Request<Incoming>) -> Response<Reply> {
        let request = match Brief::of(request.uri().path()) {
            Some(method) if unary::is_plain(&request) => {
                match self.brief(method, Opened::request(request).await).await {
                    Ok(response) => return response,
                    Err(request) => request,
                }
            }
            _ => request.map(Opened::unread),
        };
        // In a task of its own: it may take long, and the connection's other calls go on.
        let running = AbortOnDropHandle::new(tokio::spawn(self.any(request)));
        running.await.unwrap_or_else(|fault| {
            tonic::Status::internal(format!("etcdserver: the call ended: {fault}")).into_http()
        })
    }

    /// Answers in the connection's task. Gives the request back if it is not so simple.
    async fn brief(
        &self,
        method: Brief,
        request: Request<Opened>,
    ) -> Result<Response<Reply>, Request<Opened>> {
        let Some(message) = request.body().message(self.limit_bytes) else { return Err(request) };
        let face = &self.face;
        match method {
            Brief::Range => match decoded(message, is_of_one_key) {
                Some(range) => Ok(unary::answer(request, range, |range| face.range(range)).await),
                None => Err(request),
            },
            Brief::Put => match decoded(message, |_| true) {
                Some(put) => Ok(unary::answer(request, put, |put| face.put(put)).await),
                None => Err(request),
            },
            Brief::Txn => match decoded(message, is_of_single_keys) {
                Some(txn) => Ok(unary::answer(request, txn, |txn| face.txn(txn)).await),
                None => Err(request),
            },
        }
    }

    async fn any(self: Arc<Self>, request: Request<Opened>) -> Response<Reply> {
        let path = request.uri().path();
        let (service, method) = path[1.min(path.len())..].split_once('/').unwrap_or((path, ""));
        let answered = match service {
            "etcdserverpb.KV" => self.kv.clone().call(request).await,
            "etcdserverpb.Watch" => self.watch.clone().call(request).await,
            "etcdserverpb.Lease" => self.lease.clone().call(request).await,
            "etcdserverpb.Cluster" => self.cluster.clone().call(request).await,
            "etcdserverpb.Maintenance" => self.maintenance.clone().call(request).await,
            "etcdserverpb.Auth" => Ok(error::auth(method).into_http()),
            "/health" => Ok(self.health().await),
            "/metrics" => Ok(plain(StatusCode::OK, metrics::render(&self.face.store))),
            "/version" => Ok(plain(StatusCode::OK, version())),
            other => {
                Ok(tonic::Status::unimplemented(format!("unknown service {other}")).into_http())
            }
        };
        answered.unwrap_or_else(|never: Infallible| match never {}).map(Reply::Other)
    }

    /// As etcd's: healthy is who can answer a linearizable read and knows of no alarm.
    async fn health(&self) -> Response<Body> {
        match self.face.catch_up().await {
            Ok(()) if self.face.store.alarms().is_empty() => {
                plain(StatusCode::OK, r#"{"health":"true"}"#.into())
            }
            _ => plain(StatusCode::SERVICE_UNAVAILABLE, r#"{"health":"false"}"#.into()),
        }
    }
}

/// The methods that come most, and are short if they are about single keys.
#[derive(Clone, Copy)]
enum Brief {
    Range,
    Put,
    Txn,
}

impl Brief {
    fn of(path: &str) -> Option<Self> {
        match path.strip_prefix("/etcdserverpb.KV/")? {
            "Range" => Some(Brief::Range),
            "Put" => Some(Brief::Put),
            "Txn" => Some(Brief::Txn),
            _ => None,
        }
    }
}

fn decoded<M: Message + Default>(message: Bytes, is_brief: impl Fn(&M) -> bool) -> Option<M> {
    M::decode(message).ok().filter(is_brief)
}

fn is_of_one_key(range: &pb::RangeRequest) -> bool {
    range.range_end.is_empty()
}

fn is_of_single_keys(txn: &pb::TxnRequest) -> bool {
    use pb::request_op::Request;
    txn.success.iter().chain(&txn.failure).all(|op| match &op.request {
        Some(Request::RequestRange(range)) => is_of_one_key(range),
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestDeleteRange(delete)) => delete.range_end.is_empty(),
        Some(Request::RequestTxn(_)) | None => false,
    })
}

fn version() -> String {
    format!(r#"{{"etcdserver":"{VERSION}","etcdcluster":"3.4.0"}}"#)
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::new(text));
    *response.status_mut() = status;
    response
}

//! Watches over bare gRPC.

use skiff_proto::grpc::etcdserverpb as pb;
use skiff_proto::grpc::mvccpb;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Streaming;

use super::{PATIENCE, Served};

/// A bare watch stream.
pub struct Stream {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

impl Stream {
    pub async fn open(served: &Served) -> Self {
        let (requests, incoming) = mpsc::channel(16);
        let mut client = pb::watch_client::WatchClient::connect(served.url())
            .await
            .unwrap()
            .max_decoding_message_size(usize::MAX);
        let incoming = tokio_stream::wrappers::ReceiverStream::new(incoming);
        let responses = client.watch(incoming).await.unwrap().into_inner();
        Self { requests, responses }
    }

    pub async fn send(&self, request: pb::watch_request::RequestUnion) {
        self.requests.send(pb::WatchRequest { request_union: Some(request) }).await.unwrap();
    }

    pub async fn create(&mut self, request: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.send(pb::watch_request::RequestUnion::CreateRequest(request)).await;
        self.next().await
    }

    pub async fn next(&mut self) -> pb::WatchResponse {
        timeout(PATIENCE, self.responses.message()).await.expect("a response").unwrap().unwrap()
    }

    pub async fn events(&mut self, count: usize) -> Vec<mvccpb::Event> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.next().await.events);
        }
        events
    }
}

pub fn on(key: &'static str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: key.into(), ..Default::default() }
}

pub fn keys(events: &[mvccpb::Event]) -> Vec<String> {
    let show = |event: &mvccpb::Event| {
        let kv = event.kv.as_ref().unwrap();
        let kind = if event.r#type == 0 { "PUT" } else { "DELETE" };
        format!("{kind} {}@{}", String::from_utf8_lossy(&kv.key), kv.mod_revision)
    };
    events.iter().map(show).collect()
}

//! Many watches on one stream, and all that each of them has been told.

use std::collections::BTreeMap;
use std::time::Duration;

use skiff_proto::grpc::etcdserverpb as pb;
use skiff_proto::grpc::mvccpb;
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::etcd_support::PATIENCE;

/// etcd looks every 100 ms for watches that begin in the past. Until then a compaction could
/// come in between, which is no difference.
const ETCD_CATCHES_UP: Duration = Duration::from_millis(250);

pub struct Watches {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
    told: BTreeMap<i64, Told>,
}

#[derive(Default)]
pub struct Told {
    pub request: pb::WatchCreateRequest,
    pub events: Vec<mvccpb::Event>,
    /// Why it ended before its time.
    pub end: Option<String>,
}

impl Told {
    fn newest(&self) -> i64 {
        let last = self.events.last().and_then(|event| event.kv.as_ref());
        last.map_or(0, |kv| kv.mod_revision)
    }
}

impl Watches {
    /// etcd answers a stream with its first response, so a first watch opens it.
    pub async fn on(mut client: pb::watch_client::WatchClient<Channel>) -> Self {
        let (requests, incoming) = mpsc::channel(1);
        let first = pb::WatchCreateRequest { key: "first".into(), ..Default::default() };
        let create = pb::watch_request::RequestUnion::CreateRequest(first.clone());
        requests.send(pb::WatchRequest { request_union: Some(create) }).await.unwrap();
        let incoming = tokio_stream::wrappers::ReceiverStream::new(incoming);
        let responses = client.watch(incoming).await.unwrap().into_inner();
        let mut watches = Self { requests, responses, told: BTreeMap::new() };
        let created = watches.next().await;
        assert!(created.created && !created.canceled, "{created:?}");
        watches.told.insert(created.watch_id, Told { request: first, ..Default::default() });
        watches
    }

    /// What a watch's beginning is answered.
    pub async fn open(&mut self, request: pb::WatchCreateRequest) -> String {
        let create = pb::watch_request::RequestUnion::CreateRequest(request.clone());
        self.requests.send(pb::WatchRequest { request_union: Some(create) }).await.unwrap();
        let past = request.start_revision > 0;
        loop {
            let response = self.next().await;
            if !response.created {
                self.note(response);
                continue;
            }
            let canceled = response.canceled;
            if !canceled {
                let told = Told { request, ..Default::default() };
                self.told.insert(response.watch_id, told);
            }
            if past {
                tokio::time::sleep(ETCD_CATCHES_UP).await;
            }
            let (id, why) = (response.watch_id, response.cancel_reason);
            return format!("watch {id} canceled {canceled} {why:?}");
        }
    }

    async fn next(&mut self) -> pb::WatchResponse {
        let response = tokio::time::timeout(PATIENCE, self.responses.message()).await;
        response.expect("watches are answered in time").unwrap().expect("the stream goes on")
    }

    fn note(&mut self, response: pb::WatchResponse) {
        let told = self.told.get_mut(&response.watch_id).expect("a watch that was opened");
        told.events.extend(response.events);
        if response.canceled {
            told.end = Some(format!("compacted {}", response.compact_revision));
        }
    }

    /// The open watches' requests, by id.
    pub fn open_requests(&self) -> Vec<(i64, pb::WatchCreateRequest)> {
        let open = self.told.iter().filter(|(_, told)| told.end.is_none());
        open.map(|(id, told)| (*id, told.request.clone())).collect()
    }

    /// Until each watch has been told of its revision, or has ended.
    pub async fn wait(&mut self, until: &BTreeMap<i64, i64>) {
        let done = |told: &BTreeMap<i64, Told>| {
            until.iter().all(|(id, at)| {
                told.get(id).is_none_or(|told| told.end.is_some() || told.newest() >= *at)
            })
        };
        while !done(&self.told) {
            let response = self.next().await;
            self.note(response);
        }
    }

    /// What all were told, each up to its revision: what came later was not waited for.
    pub fn text(&self, until: &BTreeMap<i64, i64>) -> String {
        let told = self.told.iter().map(|(id, told)| {
            let last = until.get(id).copied().unwrap_or(i64::MAX);
            let at = |event: &&mvccpb::Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            let events: Vec<_> = told.events.iter().filter(|event| at(event) <= last).collect();
            format!("watch {id} {:#?}\n{events:#?}\nend {:?}\n", told.request, told.end)
        });
        told.collect()
    }
}

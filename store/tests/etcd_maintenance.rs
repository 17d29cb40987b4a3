//! The Maintenance service and progress of watches beside Debian's etcd 3.4: the same
//! requests to both, and every field of the answers compared, but for what says who answers
//! and how its files are.
#![allow(clippy::unwrap_used)]

mod etcd_support;

use std::fmt::Debug;

use etcd_support::*;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use pb::watch_client::WatchClient;
use skiff_proto::grpc::etcdserverpb as pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Response, Status};

struct Side {
    address: String,
    member: u64,
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
    watch: WatchClient<Channel>,
}

/// As text, without the header, which etcd leaves out of some answers.
fn show<T: Debug>(answer: Result<Response<T>, Status>, mend: impl FnOnce(&mut T)) -> String {
    match answer {
        Ok(response) => {
            let mut response = response.into_inner();
            mend(&mut response);
            format!("{response:?}")
        }
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

fn key(name: &str) -> bytes::Bytes {
    name.to_owned().into()
}

impl Side {
    async fn connect(url: &str) -> Self {
        let channel = Channel::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
        let mut maintenance = MaintenanceClient::new(channel.clone());
        let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
        Self {
            address: url.trim_start_matches("http://").to_owned(),
            member: status.header.unwrap().member_id,
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            maintenance,
            watch: WatchClient::new(channel),
        }
    }

    async fn put(&mut self, name: &str) -> String {
        let request = pb::PutRequest { key: key(name), value: key("v"), ..Default::default() };
        show(self.kv.put(request).await, |r| r.header = None)
    }

    async fn delete(&mut self, name: &str) -> String {
        let request = pb::DeleteRangeRequest { key: key(name), ..Default::default() };
        show(self.kv.delete_range(request).await, |r| r.header = None)
    }

    async fn get(&mut self, name: &str) -> String {
        let request = pb::RangeRequest { key: key(name), ..Default::default() };
        show(self.kv.range(request).await, |r| r.header = None)
    }

    async fn txn(&mut self, success: Vec<pb::request_op::Request>) -> String {
        let op = |request| pb::RequestOp { request: Some(request) };
        let success = success.into_iter().map(op).collect();
        let request = pb::TxnRequest { success, ..Default::default() };
        show(self.kv.txn(request).await, |r| r.header = None)
    }

    async fn compact(&mut self, revision: i64) -> String {
        let request = pb::CompactionRequest { revision, physical: true };
        let answer = self.kv.compact(request).await;
        show(answer, |r| {
            let header = r.header.take();
            r.header = header.map(|header| pb::ResponseHeader {
                revision: header.revision,
                ..Default::default()
            });
        })
    }

    async fn alarm(&mut self, action: i32, member_id: u64, alarm: i32) -> String {
        let request = pb::AlarmRequest { action, member_id, alarm };
        show(self.maintenance.alarm(request).await, |r| {
            r.header = None;
            r.alarms.sort_by_key(|alarm| (alarm.alarm, alarm.member_id));
        })
    }

    async fn status(&mut self) -> String {
        let member = self.member;
        show(self.maintenance.status(pb::StatusRequest {}).await, |r| {
            let header = r.header.take().unwrap();
            assert_eq!((header.member_id, r.leader), (member, member));
            assert_eq!(header.raft_term, r.raft_term);
            assert_eq!(r.raft_index, r.raft_applied_index);
            assert!(r.raft_index > 0 && r.db_size >= r.db_size_in_use && r.db_size_in_use >= 0);
            assert!(r.version.starts_with("3.4."));
            *r = pb::StatusResponse {
                // The only one that says the same on both.
                header: Some(pb::ResponseHeader {
                    revision: header.revision,
                    ..Default::default()
                }),
                errors: std::mem::take(&mut r.errors),
                is_learner: r.is_learner,
                ..Default::default()
            };
            r.errors.sort();
        })
    }

    /// The hash itself is each one's own; whether it is another than before is not.
    async fn hash_kv(&mut self, revision: i64, last: &mut u32) -> String {
        let request = pb::HashKvRequest { revision };
        let answer = self.maintenance.hash_kv(request).await;
        show(answer, |r| {
            let header = r.header.take().unwrap();
            assert_eq!(header.member_id, self.member);
            let changed = std::mem::replace(last, r.hash) != r.hash;
            r.hash = changed.into();
            r.header = Some(pb::ResponseHeader { revision: header.revision, ..Default::default() });
        })
    }

    async fn hash(&mut self) -> String {
        let answer = self.maintenance.hash(pb::HashRequest {}).await;
        show(answer, |r| {
            let header = r.header.take().unwrap();
            assert!(r.hash > 0);
            *r = pb::HashResponse::default();
            r.header = Some(pb::ResponseHeader { revision: header.revision, ..Default::default() });
        })
    }

    async fn defragment(&mut self) -> String {
        show(self.maintenance.defragment(pb::DefragmentRequest {}).await, |r| r.header = None)
    }

    /// Code and body of a plain HTTP request.
    async fn http(&self, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(&self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.lines().next().unwrap().split(' ').nth(1).unwrap().to_owned();
        format!("{status} {}", answer.lines().last().unwrap())
    }
}

macro_rules! same {
    ($sides:ident, $side:ident => $ask:expr) => {{
        let expect = {
            let $side = &mut $sides.0;
            $ask.await
        };
        let got = {
            let $side = &mut $sides.1;
            $ask.await
        };
        assert_eq!(got, expect, "skiff, then etcd: {}", stringify!($ask));
        expect
    }};
}

const GET: i32 = 0;
const RAISE: i32 = 1;
const LOWER: i32 = 2;
const NO_SPACE: i32 = 1;
const CORRUPT: i32 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alarms_are_etcds() {
    use pb::request_op::Request;
    let (etcd, served) = (Etcd::start().await, Served::plain().await);
    let mut sides = (Side::connect(&etcd.url).await, Side::connect(&served.url()).await);
    let put = || pb::PutRequest { key: key("a"), ..Default::default() };
    let grant = |id| pb::LeaseGrantRequest { ttl: 60, id };
    same!(sides, side => side.put("a"));
    same!(sides, side => async { show(side.lease.lease_grant(grant(7)).await, |r| r.header = None) });
    same!(sides, side => side.alarm(GET, 0, 0));
    same!(sides, side => side.alarm(LOWER, 0, 0));
    same!(sides, side => side.alarm(LOWER, 5, NO_SPACE));
    same!(sides, side => side.alarm(RAISE, 5, NO_SPACE));
    same!(sides, side => side.alarm(RAISE, 5, NO_SPACE));
    let refused = same!(sides, side => side.put("a"));
    assert_eq!(refused, "ResourceExhausted: etcdserver: mvcc: database space exceeded");
    same!(sides, side => side.txn(vec![Request::RequestPut(put())]));
    same!(sides, side => side.get("a"));
    same!(sides, side => side.txn(vec![Request::RequestRange(pb::RangeRequest {
        key: key("a"), ..Default::default()
    })]));
    let both = || {
        vec![
            Request::RequestDeleteRange(pb::DeleteRangeRequest {
                key: key("b"),
                ..Default::default()
            }),
            Request::RequestPut(put()),
        ]
    };
    same!(sides, side => side.txn(both()));
    same!(sides, side => async { show(side.lease.lease_grant(grant(8)).await, |r| r.header = None) });
    same!(sides, side => side.delete("a"));
    same!(sides, side => side.compact(2));
    same!(sides, side => side.status());
    same!(sides, side => side.http("/health"));
    same!(sides, side => side.alarm(GET, 6, 0));
    same!(sides, side => side.alarm(GET, 0, CORRUPT));
    same!(sides, side => side.alarm(LOWER, 6, NO_SPACE));
    same!(sides, side => side.alarm(RAISE, 6, CORRUPT));
    let refused = same!(sides, side => side.put("a"));
    assert_eq!(refused, "DataLoss: etcdserver: corrupt cluster");
    same!(sides, side => side.delete("a"));
    same!(sides, side => side.compact(3));
    same!(sides, side => side.get("a"));
    let revoke = || pb::LeaseRevokeRequest { id: 7 };
    same!(sides, side => async { show(side.lease.lease_revoke(revoke()).await, |r| r.header = None) });
    same!(sides, side => side.status());
    same!(sides, side => side.defragment());
    same!(sides, side => side.alarm(GET, 0, 0));
    same!(sides, side => side.alarm(LOWER, 5, NO_SPACE));
    same!(sides, side => side.alarm(LOWER, 6, CORRUPT));
    same!(sides, side => side.alarm(GET, 0, 0));
    same!(sides, side => side.put("a"));
    same!(sides, side => side.http("/health"));
    same!(sides, side => async { show(side.lease.lease_revoke(revoke()).await, |r| r.header = None) });
    // An etcd of that version dies of this one.
    let nonsense = sides.1.alarm(RAISE, 1, 0).await;
    assert_eq!(nonsense, "InvalidArgument: etcdserver: there is no such alarm");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_hashes_and_defragmentation_are_etcds() {
    let (etcd, served) = (Etcd::start().await, Served::plain().await);
    let mut sides = (Side::connect(&etcd.url).await, Side::connect(&served.url()).await);
    // The hash of nothing is nothing here, and something in etcd.
    let (mut theirs, mut ours) = (0, 1);
    let hash_kv = async |sides: &mut (Side, Side), theirs: &mut u32, ours: &mut u32, revision| {
        let expect = sides.0.hash_kv(revision, theirs).await;
        let got = sides.1.hash_kv(revision, ours).await;
        assert_eq!(got, expect, "HashKV at {revision}: skiff, then etcd");
    };
    same!(sides, side => side.status());
    hash_kv(&mut sides, &mut theirs, &mut ours, 0).await;
    for name in ["a", "b", "a", "c"] {
        same!(sides, side => side.put(name));
    }
    same!(sides, side => side.delete("b"));
    for revision in [0, 0, 1, 2, 3, 6, 6, 7] {
        hash_kv(&mut sides, &mut theirs, &mut ours, revision).await;
    }
    same!(sides, side => side.compact(4));
    for revision in [0, 3, 4, 5, 6, 100] {
        hash_kv(&mut sides, &mut theirs, &mut ours, revision).await;
    }
    same!(sides, side => side.hash());
    same!(sides, side => side.defragment());
    hash_kv(&mut sides, &mut theirs, &mut ours, 0).await;
    same!(sides, side => side.status());
    same!(sides, side => side.http("/health"));
    served.stop().await;
}

/// The first compaction may be at 0; then that is compacted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_compaction_at_nothing_is_refused() {
    let (etcd, served) = (Etcd::start().await, Served::plain().await);
    let mut sides = (Side::connect(&etcd.url).await, Side::connect(&served.url()).await);
    for revision in [-1, 0, 0, -1, 1, 1] {
        same!(sides, side => side.compact(revision));
    }
    served.stop().await;
}

/// What a stream of watches says to requests for progress, after the events of its watches.
async fn progress(client: &mut WatchClient<Channel>, kv: &mut KvClient<Channel>) -> Vec<String> {
    use pb::watch_request::RequestUnion::{CreateRequest, ProgressRequest};
    let (requests, incoming) = tokio::sync::mpsc::channel(8);
    let ask = |union| pb::WatchRequest { request_union: Some(union) };
    let watch = |name: &str| {
        ask(CreateRequest(pb::WatchCreateRequest { key: key(name), ..Default::default() }))
    };
    requests.send(watch("a")).await.unwrap();
    let stream = client.watch(ReceiverStream::new(incoming)).await.unwrap();
    let mut responses = stream.into_inner();
    let mut told = Vec::new();
    let mut next = async |told: &mut Vec<String>| {
        let response = tokio::time::timeout(PATIENCE, responses.message()).await;
        let mut response = response.expect("in time").unwrap().expect("the stream goes on");
        let revision = response.header.take().unwrap().revision;
        told.push(format!("{revision} {response:?}"));
    };
    next(&mut told).await;
    requests.send(ask(ProgressRequest(pb::WatchProgressRequest {}))).await.unwrap();
    next(&mut told).await;
    requests.send(watch("b")).await.unwrap();
    next(&mut told).await;
    for name in ["a", "other"] {
        let put = pb::PutRequest { key: key(name), ..Default::default() };
        kv.put(put).await.unwrap();
    }
    next(&mut told).await;
    requests.send(ask(ProgressRequest(pb::WatchProgressRequest {}))).await.unwrap();
    next(&mut told).await;
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_that_is_asked_for_is_etcds() {
    let (etcd, served) = (Etcd::start().await, Served::plain().await);
    let mut sides = (Side::connect(&etcd.url).await, Side::connect(&served.url()).await);
    let expect = progress(&mut sides.0.watch, &mut sides.0.kv).await;
    let got = progress(&mut sides.1.watch, &mut sides.1.kv).await;
    assert_eq!(got, expect, "skiff, then etcd");
    served.stop().await;
}

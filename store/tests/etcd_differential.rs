//! Random operations on Debian's etcd 3.4 and on the store, side by side: every answer must
//! be the same, but for who gives it.
//!
//! `SKIFF_DIFF_OPS` sets how many operations, `SKIFF_DIFF_SEED` which ones; a difference
//! prints the command that brings it back.
#![allow(clippy::unwrap_used)]

mod etcd_support;

use std::fmt::Debug;
use std::process::Stdio;

use bytes::Bytes;
use etcd_support::*;
use pb::{kv_client::KvClient, lease_client::LeaseClient, watch_client::WatchClient};
use skiff_proto::grpc::etcdserverpb as pb;
use tokio::process::{Child, Command};
use tonic::transport::Channel;
use tonic::{Response, Status};

/// A real etcd in a folder of its own; killed when it is dropped.
struct Etcd {
    _dir: tempfile::TempDir,
    _child: Child,
    url: String,
}

impl Etcd {
    async fn start() -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (clients, peers) = (free(), free());
        let url =
            |listener: &std::net::TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let (url, peer_url) = (url(&clients), url(&peers));
        drop((clients, peers));
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(dir.path().join("data"));
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer_url]);
        command.args(["--initial-advertise-peer-urls", &peer_url]);
        command.args(["--initial-cluster", &format!("default={peer_url}")]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let child = command
            .spawn()
            .expect("run etcd: it is in Debian's package etcd-server, which this test needs");
        let answers = async {
            loop {
                if let Ok(mut client) = KvClient::connect(url.clone()).await
                    && client.range(range("x")).await.is_ok()
                {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, answers).await.expect("etcd answers in time");
        Self { _dir: dir, _child: child, url }
    }
}

fn range(key: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), ..Default::default() }
}

/// xorshift64*: the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn key(&mut self) -> Bytes {
        if self.chance(1) {
            return Bytes::new();
        }
        format!("k{}", self.below(12)).into()
    }

    /// Keys to a range's end; most often none.
    fn end(&mut self) -> Bytes {
        match self.below(8) {
            0 => Bytes::from_static(&[0]),
            1 | 2 => "l".into(),
            3 => self.key(),
            _ => Bytes::new(),
        }
    }

    fn lease(&mut self) -> i64 {
        if self.chance(80) { 0 } else { 1 + self.below(6) as i64 }
    }

    fn revision(&mut self, newest: i64) -> i64 {
        self.below(newest as u64 + 3) as i64
    }
}

fn random_range(random: &mut Random, newest: i64) -> pb::RangeRequest {
    let bound = |random: &mut Random| if random.chance(8) { random.revision(newest) } else { 0 };
    // A target without an order is left out: with a limit, etcd 3.4 cuts before it sorts.
    let (order, target) = (random.below(3) as i32, random.below(5) as i32);
    let (sort_order, sort_target) =
        if order == 0 || random.chance(60) { (0, 0) } else { (order, target) };
    pb::RangeRequest {
        key: random.key(),
        range_end: random.end(),
        limit: if random.chance(30) { random.below(6) as i64 } else { 0 },
        revision: if random.chance(30) { random.revision(newest) } else { 0 },
        sort_order,
        sort_target,
        serializable: random.chance(20),
        keys_only: random.chance(20),
        count_only: random.chance(10),
        min_mod_revision: bound(random),
        max_mod_revision: bound(random),
        min_create_revision: bound(random),
        max_create_revision: bound(random),
    }
}

fn random_put(random: &mut Random) -> pb::PutRequest {
    let ignore_value = random.chance(8);
    pb::PutRequest {
        key: random.key(),
        value: if ignore_value && random.chance(90) {
            Bytes::new()
        } else {
            format!("v{}", random.below(5)).into()
        },
        // With a key and a lease that are both missing, etcd names the one in a put and the
        // other in a transaction.
        lease: if ignore_value { 0 } else { random.lease() },
        prev_kv: random.chance(30),
        ignore_value,
        ignore_lease: random.chance(8),
    }
}

fn random_delete(random: &mut Random) -> pb::DeleteRangeRequest {
    let range_end = if random.chance(70) { Bytes::new() } else { random.end() };
    pb::DeleteRangeRequest { key: random.key(), range_end, prev_kv: random.chance(40) }
}

fn random_compare(random: &mut Random, newest: i64) -> pb::Compare {
    use pb::compare::TargetUnion;
    let target = random.below(5) as i32;
    let union = match target {
        0 => TargetUnion::Version(random.below(4) as i64),
        1 => TargetUnion::CreateRevision(random.revision(newest)),
        2 => TargetUnion::ModRevision(random.revision(newest)),
        3 => TargetUnion::Value(format!("v{}", random.below(5)).into()),
        _ => TargetUnion::Lease(random.lease()),
    };
    pb::Compare {
        result: random.below(4) as i32,
        target,
        key: random.key(),
        range_end: if random.chance(80) { Bytes::new() } else { random.end() },
        target_union: random.chance(95).then_some(union),
    }
}

fn random_txn(random: &mut Random, newest: i64, depth: u64) -> pb::TxnRequest {
    let ops = |random: &mut Random| -> Vec<pb::RequestOp> {
        use pb::request_op::Request;
        let op = |random: &mut Random| match random.below(if depth < 2 { 8 } else { 7 }) {
            0..=2 => Request::RequestPut(random_put(random)),
            3..=5 => Request::RequestRange(random_range(random, newest)),
            6 => {
                let mut delete = random_delete(random);
                // Looking for keys written twice, etcd takes a range to the end of all keys
                // for an empty one.
                if delete.range_end[..] == [0] {
                    delete.range_end = "l".into();
                }
                Request::RequestDeleteRange(delete)
            }
            _ => Request::RequestTxn(random_txn(random, newest, depth + 1)),
        };
        let count = random.below(4);
        (0..count).map(|_| pb::RequestOp { request: Some(op(random)) }).collect()
    };
    let compares = random.below(3);
    pb::TxnRequest {
        success: ops(random),
        failure: ops(random),
        compare: (0..compares).map(|_| random_compare(random, newest)).collect(),
    }
}

#[derive(Debug, Clone)]
enum Operation {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    Grant(pb::LeaseGrantRequest),
    Revoke(pb::LeaseRevokeRequest),
    Look(pb::LeaseTimeToLiveRequest),
}

fn random_operation(random: &mut Random, newest: i64) -> Operation {
    match random.below(100) {
        0..=29 => Operation::Range(random_range(random, newest)),
        30..=54 => Operation::Put(random_put(random)),
        55..=62 => Operation::Delete(random_delete(random)),
        63..=86 => Operation::Txn(random_txn(random, newest, 0)),
        87 => Operation::Compact(pb::CompactionRequest {
            revision: random.revision(newest).max(1),
            physical: random.chance(50),
        }),
        88..=92 => Operation::Grant(pb::LeaseGrantRequest {
            ttl: 1000 + random.below(3) as i64,
            id: 1 + random.below(6) as i64,
        }),
        93..=95 => Operation::Revoke(pb::LeaseRevokeRequest { id: 1 + random.below(6) as i64 }),
        _ => Operation::Look(pb::LeaseTimeToLiveRequest {
            id: 1 + random.below(6) as i64,
            keys: true,
        }),
    }
}

struct Side {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    watch: WatchClient<Channel>,
}

/// Which member of which cluster answers, and when, is no difference.
fn plain(header: &mut Option<pb::ResponseHeader>) -> i64 {
    let revision = header.as_ref().map_or(0, |header| header.revision);
    *header = Some(pb::ResponseHeader { revision, ..Default::default() });
    revision
}

fn show<T: Debug>(
    outcome: Result<Response<T>, Status>,
    clean: impl Fn(&mut T) -> i64,
) -> (String, i64) {
    match outcome {
        Ok(response) => {
            let mut response = response.into_inner();
            let revision = clean(&mut response);
            (format!("{response:#?}"), revision)
        }
        Err(status) => (format!("{:?}: {}", status.code(), status.message()), 0),
    }
}

impl Side {
    async fn connect(url: &str) -> Self {
        let channel = Channel::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
        Self {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            watch: WatchClient::new(channel),
        }
    }

    async fn answer(&mut self, operation: Operation) -> (String, i64) {
        match operation {
            Operation::Range(r) => show(self.kv.range(r).await, |r| plain(&mut r.header)),
            Operation::Put(r) => show(self.kv.put(r).await, |r| plain(&mut r.header)),
            Operation::Delete(r) => show(self.kv.delete_range(r).await, |r| plain(&mut r.header)),
            Operation::Txn(r) => show(self.kv.txn(r).await, |r| plain(&mut r.header)),
            Operation::Compact(r) => show(self.kv.compact(r).await, |r| plain(&mut r.header)),
            Operation::Grant(r) => show(self.lease.lease_grant(r).await, |r| plain(&mut r.header)),
            Operation::Revoke(r) => {
                show(self.lease.lease_revoke(r).await, |r| plain(&mut r.header))
            }
            Operation::Look(r) => show(self.lease.lease_time_to_live(r).await, |r| {
                // The clocks began at different moments, and etcd gives keys in any order.
                r.ttl = r.ttl.signum();
                r.keys.sort();
                plain(&mut r.header)
            }),
        }
    }

    /// All events from `start` to `last`.
    async fn history(&mut self, start: i64, last: i64) -> String {
        let create = pb::WatchCreateRequest {
            key: Bytes::from_static(&[0]),
            range_end: Bytes::from_static(&[0]),
            start_revision: start,
            prev_kv: true,
            ..Default::default()
        };
        let create = pb::watch_request::RequestUnion::CreateRequest(create);
        let (requests, incoming) = tokio::sync::mpsc::channel(1);
        requests.send(pb::WatchRequest { request_union: Some(create) }).await.unwrap();
        let incoming = tokio_stream::wrappers::ReceiverStream::new(incoming);
        let mut responses = self.watch.watch(incoming).await.unwrap().into_inner();
        let mut events = Vec::new();
        let newest = |events: &Vec<skiff_proto::grpc::mvccpb::Event>| {
            events.last().and_then(|event| event.kv.as_ref()).map_or(0, |kv| kv.mod_revision)
        };
        while newest(&events) < last {
            let response = tokio::time::timeout(PATIENCE, responses.message()).await;
            let response = response.expect("events come in time").unwrap().unwrap();
            assert!(!response.canceled, "{response:?}");
            events.extend(response.events);
        }
        format!("{events:#?}")
    }
}

/// The lines around the first one that differs.
fn first_difference(expect: &str, got: &str) -> String {
    let (expect, got): (Vec<_>, Vec<_>) = (expect.lines().collect(), got.lines().collect());
    let same = expect.iter().zip(&got).take_while(|(theirs, ours)| theirs == ours).count();
    let around = |lines: &[&str]| {
        let from = same.saturating_sub(16).min(lines.len());
        lines[from..(same + 16).min(lines.len())].join("\n")
    };
    format!("\netcd:\n{}\nskiff:\n{}", around(&expect), around(&got))
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect(name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_etcds() {
    let count = setting("SKIFF_DIFF_OPS", 600);
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = setting("SKIFF_DIFF_SEED", clock.as_nanos() as u64 | 1);
    let again = format!(
        "SKIFF_DIFF_SEED={seed} SKIFF_DIFF_OPS={count} cargo test -p skiff-store --test etcd_differential"
    );
    println!("{again}");
    let (etcd, served) = (Etcd::start().await, Served::plain().await);
    let mut theirs = Side::connect(&etcd.url).await;
    let mut ours = Side::connect(&served.url()).await;
    let mut random = Random(seed.max(1));
    let (mut newest, mut compacted) = (1, 1);
    for number in 0..count {
        let operation = random_operation(&mut random, newest);
        let (expect, revision) = theirs.answer(operation.clone()).await;
        let (got, _) = ours.answer(operation.clone()).await;
        assert!(
            got == expect,
            "operation {number} {operation:#?}\netcd: {expect}\nskiff: {got}\nagain: {again}"
        );
        newest = newest.max(revision);
        if let Operation::Compact(request) = &operation
            && revision > 0
        {
            compacted = request.revision;
        }
    }
    if newest > compacted {
        // Of the compacted revision itself etcd has forgotten what was deleted.
        let expect = theirs.history(compacted + 1, newest).await;
        let got = ours.history(compacted + 1, newest).await;
        let at = first_difference(&expect, &got);
        assert!(got == expect, "history from {compacted}: {at}\nagain: {again}");
    }
    served.stop().await;
}

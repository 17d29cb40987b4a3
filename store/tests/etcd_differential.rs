//! Random operations on Debian's etcd 3.4 and on the store, side by side: every answer must
//! be the same, and every event of every watch, but for who gives it.
//!
//! `SKIFF_DIFF_RUNS` sets how many runs, `SKIFF_DIFF_OPS` how many operations each has,
//! `SKIFF_DIFF_SEED` which ones; a difference prints the command that brings it back.
#![allow(clippy::unwrap_used)]

mod differential;
mod etcd_support;

use std::collections::BTreeMap;

use differential::generate::{Operation, Random, random_operation};
use differential::sides::{Side, first_difference, setting};
use etcd_support::*;
use skiff_proto::grpc::etcdserverpb as pb;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_etcds() {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = setting("SKIFF_DIFF_SEED", clock.as_nanos() as u64 | 1);
    let ops = setting("SKIFF_DIFF_OPS", 400);
    for run in 0..setting("SKIFF_DIFF_RUNS", 6) {
        compare(seed.wrapping_add(run), ops).await;
    }
}

/// The two, and the command that brings a difference back.
struct Pair {
    theirs: Side,
    ours: Side,
    again: String,
}

impl Pair {
    /// Both answers must be the same; the answer's revision.
    async fn run(&mut self, number: u64, operation: Operation) -> i64 {
        let (expect, revision) = self.theirs.answer(operation.clone()).await;
        let (got, _) = self.ours.answer(operation.clone()).await;
        let again = &self.again;
        assert!(
            got == expect,
            "operation {number} {operation:#?}\netcd: {expect}\nskiff: {got}\nagain: {again}"
        );
        revision
    }

    fn put(key: &bytes::Bytes) -> Operation {
        Operation::Put(pb::PutRequest { key: key.clone(), ..Default::default() })
    }

    /// Writes in every watch's range, waits until all have told of it, and compares.
    async fn compare_watches(&mut self, ops: u64) {
        let filler = "zz".into();
        for number in 0..4 {
            self.run(ops + number, Self::put(&filler)).await;
        }
        let mut until = BTreeMap::new();
        for (id, request) in self.theirs.watches.open_requests() {
            let key = if request.key.is_empty() { "k0".into() } else { request.key.clone() };
            let put = self.run(ops, Self::put(&key)).await;
            let delete = pb::DeleteRangeRequest { key, ..Default::default() };
            let deleted = self.run(ops, Operation::Delete(delete)).await;
            let no_delete = request.filters.contains(&1);
            // An empty key with no end is the smallest key alone, which nobody writes.
            let heard = !request.key.is_empty() || !request.range_end.is_empty();
            if heard {
                until.insert(id, if no_delete { put } else { deleted });
            }
        }
        self.theirs.watches.wait(&until).await;
        self.ours.watches.wait(&until).await;
        let (expect, got) = (self.theirs.watches.text(&until), self.ours.watches.text(&until));
        let at = first_difference(&expect, &got);
        assert!(got == expect, "watches: {at}\nagain: {}", self.again);
    }
}

async fn compare(seed: u64, ops: u64) {
    let again = format!(
        "SKIFF_DIFF_SEED={seed} SKIFF_DIFF_RUNS=1 SKIFF_DIFF_OPS={ops} \
         cargo test --workspace --test etcd_differential"
    );
    println!("{again}");
    let (etcd, served) = (Etcd::start().await, Served::plain().await);
    let (theirs, ours) = (Side::connect(&etcd.url).await, Side::connect(&served.url()).await);
    let mut pair = Pair { theirs, ours, again };
    let mut random = Random(seed.max(1));
    let (mut newest, mut compacted) = (1, 1);
    // A watch from the beginning, so that the whole history is compared in every run.
    let all = pb::WatchCreateRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        prev_kv: true,
        ..Default::default()
    };
    pair.run(0, Operation::Watch(Box::new(all))).await;
    for number in 1..ops {
        let mut operation = random_operation(&mut random, newest);
        if let Operation::Watch(request) = &mut operation
            && request.start_revision == compacted
        {
            // Of the compacted revision itself etcd 3.4 has forgotten what was deleted.
            request.start_revision += 1;
        }
        let revision = pair.run(number, operation.clone()).await;
        newest = newest.max(revision);
        if let Operation::Compact(request) = &operation
            && revision > 0
        {
            compacted = request.revision;
        }
    }
    pair.compare_watches(ops).await;
    served.stop().await;
}

/// Edges that random requests meet too seldom, each on a fresh pair.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_edges_are_etcds() {
    let (etcd, served) = (Etcd::start().await, Served::plain().await);
    let (theirs, ours) = (Side::connect(&etcd.url).await, Side::connect(&served.url()).await);
    let again = "cargo test --workspace --test etcd_differential known_edges".to_owned();
    let mut pair = Pair { theirs, ours, again };
    for (number, operation) in edges().into_iter().enumerate() {
        pair.run(number as u64, operation).await;
    }
    served.stop().await;
}

fn edges() -> Vec<Operation> {
    use Operation::*;
    use pb::request_op::Request;
    let put = |key: &str, value: &str| pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    };
    let op = |request| pb::RequestOp { request: Some(request) };
    let txn = |ops: Vec<Request>| pb::TxnRequest {
        success: ops.into_iter().map(op).collect(),
        ..Default::default()
    };
    let delete = |key: &str, end: &'static [u8]| pb::DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: end.into(),
        prev_kv: true,
    };
    let range = |target: i32| pb::RangeRequest {
        key: "a".into(),
        range_end: "z".into(),
        sort_target: target,
        limit: 2,
        ..Default::default()
    };
    let compact = |revision| Compact(pb::CompactionRequest { revision, physical: false });
    let grant = |ttl, id| Grant(pb::LeaseGrantRequest { ttl, id });
    let missing = pb::PutRequest { ignore_value: true, lease: 99, ..put("missing", "") };
    let mut nested = txn(vec![Request::RequestPut(put("n", "1"))]);
    for _ in 0..10 {
        nested = txn(vec![Request::RequestTxn(nested)]);
    }
    let many = |count: usize| {
        (0..count).map(|n| Request::RequestPut(put(&format!("m{n:03}"), "v"))).collect::<Vec<_>>()
    };
    let mut full = txn(many(127));
    full.success.push(op(Request::RequestTxn(txn(many(2)))));
    let mut edges = vec![compact(-1), compact(0), compact(5)];
    edges.extend(["c", "b", "a"].map(|key| Put(put(key, key))));
    edges.extend([Put(put("c", "0")), Put(put("a", "9"))]);
    edges.extend((0..5).map(|target| Range(range(target))));
    edges.extend([
        Put(missing.clone()),
        Txn(txn(vec![Request::RequestPut(missing)])),
        Txn(txn(vec![
            Request::RequestPut(put("b", "before")),
            Request::RequestDeleteRange(delete("a", b"\0")),
            Request::RequestPut(put("c", "after")),
        ])),
        Txn(txn(vec![
            Request::RequestDeleteRange(delete("a", b"d")),
            Request::RequestPut(put("c", "after")),
        ])),
        Txn(nested),
        Txn(txn(many(128))),
        Txn(txn(many(129))),
        Txn(full),
        Txn(txn(vec![])),
        Txn(pb::TxnRequest { success: vec![pb::RequestOp::default()], ..Default::default() }),
        Put(put("big", &"x".repeat(1 << 20))),
        Put(put("big", &"x".repeat(1_600_000))),
        grant(0, 5),
        grant(-1, 6),
        grant(10_000_000_000, 7),
        grant(1000, 8),
        grant(1000, 8),
        Leases,
        KeepAlive(pb::LeaseKeepAliveRequest { id: 8 }),
        KeepAlive(pb::LeaseKeepAliveRequest { id: 9 }),
        Look(pb::LeaseTimeToLiveRequest { id: 9, keys: true }),
        Revoke(pb::LeaseRevokeRequest { id: 9 }),
        Range(pb::RangeRequest { limit: -1, revision: -1, ..range(0) }),
        Range(pb::RangeRequest { key: "z".into(), range_end: "a".into(), ..Default::default() }),
        compact(4),
        compact(4),
        compact(1000),
    ]);
    let watch = |key: &'static str, end: &'static str| {
        let (key, range_end) = (key.into(), end.into());
        Watch(Box::new(pb::WatchCreateRequest { key, range_end, ..Default::default() }))
    };
    edges.extend([watch("b", "a"), watch("a", "a"), watch("", ""), watch("a", "\0")]);
    edges
}

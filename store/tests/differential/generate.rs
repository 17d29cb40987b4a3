//! Random requests, the same on every machine for one seed.

use bytes::Bytes;
use skiff_proto::grpc::etcdserverpb as pb;

/// xorshift64*: the same on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn key(&mut self) -> Bytes {
        if self.chance(1) {
            return Bytes::new();
        }
        format!("k{}", self.below(12)).into()
    }

    /// Keys to a range's end; most often none.
    pub fn end(&mut self) -> Bytes {
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
    let (order, target) = (random.below(3) as i32, random.below(5) as i32);
    let (sort_order, sort_target) = if random.chance(60) { (0, 0) } else { (order, target) };
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
        lease: random.lease(),
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
            6 => Request::RequestDeleteRange(random_delete(random)),
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
pub enum Operation {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    Grant(pb::LeaseGrantRequest),
    Revoke(pb::LeaseRevokeRequest),
    Look(pb::LeaseTimeToLiveRequest),
    Leases,
    KeepAlive(pb::LeaseKeepAliveRequest),
    Watch(Box<pb::WatchCreateRequest>),
}

fn random_watch(random: &mut Random, newest: i64) -> pb::WatchCreateRequest {
    let start = match random.below(3) {
        0 => 0,
        1 => newest + random.below(4) as i64,
        _ => random.revision(newest),
    };
    pb::WatchCreateRequest {
        key: random.key(),
        range_end: random.end(),
        start_revision: start,
        prev_kv: random.chance(50),
        // One kind at most: who wants neither hears nothing for ever.
        filters: if random.chance(30) { vec![random.below(2) as i32] } else { vec![] },
        fragment: random.chance(30),
        ..Default::default()
    }
}

pub fn random_operation(random: &mut Random, newest: i64) -> Operation {
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
        96 => Operation::Leases,
        97 => Operation::KeepAlive(pb::LeaseKeepAliveRequest { id: 1 + random.below(6) as i64 }),
        98 => Operation::Watch(Box::new(random_watch(random, newest))),
        _ => Operation::Look(pb::LeaseTimeToLiveRequest {
            id: 1 + random.below(6) as i64,
            keys: true,
        }),
    }
}

//! What goes into the Raft log, and what applying it answers.
//!
//! Many clients' commands share one log entry (a [`Proposal`]), so that a burst of small
//! writes costs Raft as much as one. Results are per command: one that is refused (its
//! lease is gone, say) changes nothing and does not disturb its neighbours.

use bytes::Bytes;

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::kv::*;
use crate::mvcc::alarm::{AlarmChange, RaisedAlarm};

/// A deterministic change of the state. Nothing in it refers to a clock.
#[derive(Debug, Clone)]
pub enum Command {
    Txn(TxnRequest),
    /// The proposer has chosen the id.
    LeaseGrant {
        id: LeaseId,
        ttl_seconds: i64,
    },
    LeaseRevoke {
        id: LeaseId,
    },
    Compact {
        revision: Revision,
    },
    Alarm(AlarmChange),
}

/// What a command answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Txn(TxnResponse),
    LeaseGranted {
        id: LeaseId,
        ttl_seconds: i64,
    },
    LeaseRevoked {
        revision: Revision,
    },
    Compacted {
        revision: Revision,
    },
    /// The alarm it was about, if it is raised now or was.
    Alarm(Option<RaisedAlarm>),
}

pub type Answer = Result<Outcome, KvError>;

/// The encoded commands of one log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal(pub Bytes);

impl std::fmt::Display for Proposal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes of commands", self.0.len())
    }
}

impl Proposal {
    /// From commands that [`Command::encode`] has encoded.
    pub fn join<'a>(count: usize, commands: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        let bytes: usize = commands.clone().map(<[u8]>::len).sum();
        let mut e = Encoder::with_capacity(bytes + COUNT_BYTES);
        e.u64(count as u64);
        for command in commands {
            e.raw(command);
        }
        Self(Bytes::from(e.finish()))
    }

    /// How many commands, and they themselves as they were joined.
    pub fn split(&self) -> Result<(usize, Bytes), DecodeError> {
        let mut d = Decoder::new("log entry", self.0.clone());
        Ok((d.count()?, d.rest()))
    }

    pub fn decode(&self) -> Result<Vec<Command>, DecodeError> {
        let mut d = Decoder::new("log entry", self.0.clone());
        let count = d.count()?;
        let mut commands = Vec::with_capacity(count);
        for _ in 0..count {
            commands.push(Command::decode(&mut d)?);
        }
        d.end()?;
        Ok(commands)
    }
}

/// A count takes no more.
const COUNT_BYTES: usize = 10;
const TXN: u8 = 1;
const LEASE_GRANT: u8 = 2;
const LEASE_REVOKE: u8 = 3;
const COMPACT: u8 = 4;
const ALARM: u8 = 5;

impl Command {
    /// Whether the state may grow by it, as etcd counts: puts in any branch, and new leases.
    pub fn takes_space(&self) -> bool {
        fn puts(txn: &TxnRequest) -> bool {
            txn.success.iter().chain(&txn.failure).any(|op| match op {
                Op::Put(_) => true,
                Op::Txn(nested) => puts(nested),
                Op::Range(_) | Op::Delete(_) => false,
            })
        }
        match self {
            Command::Txn(txn) => puts(txn),
            Command::LeaseGrant { .. } => true,
            Command::LeaseRevoke { .. } | Command::Compact { .. } | Command::Alarm(_) => false,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::with_capacity(self.expected_bytes());
        match self {
            Command::Txn(txn) => {
                e.u8(TXN);
                encode_txn(&mut e, txn);
            }
            Command::LeaseGrant { id, ttl_seconds } => {
                e.u8(LEASE_GRANT);
                e.i64(*id);
                e.i64(*ttl_seconds);
            }
            Command::LeaseRevoke { id } => {
                e.u8(LEASE_REVOKE);
                e.i64(*id);
            }
            Command::Compact { revision } => {
                e.u8(COMPACT);
                e.i64(*revision);
            }
            Command::Alarm(change) => {
                e.u8(ALARM);
                change.encode(&mut e);
            }
        }
        e.finish()
    }

    /// So that the values, most of it, are copied only once.
    fn expected_bytes(&self) -> usize {
        let Command::Txn(txn) = self else { return 32 };
        let values = txn.success.iter().chain(&txn.failure).map(|op| match op {
            Op::Put(put) => put.value.len(),
            _ => 0,
        });
        128 + values.sum::<usize>()
    }

    pub fn decode(d: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(match d.u8()? {
            TXN => Command::Txn(decode_txn(d, 0)?),
            LEASE_GRANT => Command::LeaseGrant { id: d.i64()?, ttl_seconds: d.i64()? },
            LEASE_REVOKE => Command::LeaseRevoke { id: d.i64()? },
            COMPACT => Command::Compact { revision: d.i64()? },
            ALARM => Command::Alarm(AlarmChange::decode(d)?),
            _ => return Err(d.fault("unknown command")),
        })
    }
}

fn encode_range(e: &mut Encoder, range: &KeyRange) {
    match range {
        KeyRange::One(key) => {
            e.u8(0);
            e.bytes(key);
        }
        KeyRange::Prefix(prefix) => {
            e.u8(1);
            e.bytes(prefix);
        }
        KeyRange::Between(start, end) => {
            e.u8(2);
            e.bytes(start);
            e.bytes(end);
        }
        KeyRange::From(start) => {
            e.u8(3);
            e.bytes(start);
        }
    }
}

fn decode_range(d: &mut Decoder) -> Result<KeyRange, DecodeError> {
    Ok(match d.u8()? {
        0 => KeyRange::One(d.bytes()?),
        1 => KeyRange::Prefix(d.bytes()?),
        2 => KeyRange::Between(d.bytes()?, d.bytes()?),
        3 => KeyRange::From(d.bytes()?),
        _ => return Err(d.fault("unknown kind of range")),
    })
}

fn encode_txn(e: &mut Encoder, txn: &TxnRequest) {
    e.u64(txn.compare.len() as u64);
    for compare in &txn.compare {
        encode_compare(e, compare);
    }
    for branch in [&txn.success, &txn.failure] {
        e.u64(branch.len() as u64);
        for op in branch {
            encode_op(e, op);
        }
    }
}

/// Deeper nesting than any client makes; a guard for the stack against a corrupt body.
const MAX_NESTING: usize = 32;

fn decode_txn(d: &mut Decoder, depth: usize) -> Result<TxnRequest, DecodeError> {
    if depth > MAX_NESTING {
        return Err(d.fault("transactions nested too deeply"));
    }
    let mut txn = TxnRequest::default();
    for _ in 0..d.count()? {
        txn.compare.push(decode_compare(d)?);
    }
    for _ in 0..d.count()? {
        txn.success.push(decode_op(d, depth)?);
    }
    for _ in 0..d.count()? {
        txn.failure.push(decode_op(d, depth)?);
    }
    Ok(txn)
}

fn encode_compare(e: &mut Encoder, compare: &Compare) {
    encode_range(e, &compare.range);
    e.u8(match compare.result {
        CompareResult::Equal => 0,
        CompareResult::Greater => 1,
        CompareResult::Less => 2,
        CompareResult::NotEqual => 3,
    });
    let (tag, number) = match &compare.target {
        CompareTarget::Version(v) => (0, *v),
        CompareTarget::Create(v) => (1, *v),
        CompareTarget::Mod(v) => (2, *v),
        CompareTarget::Lease(v) => (4, *v),
        CompareTarget::Value(value) => {
            e.u8(3);
            return e.bytes(value);
        }
    };
    e.u8(tag);
    e.i64(number);
}

fn decode_compare(d: &mut Decoder) -> Result<Compare, DecodeError> {
    let range = decode_range(d)?;
    let result = match d.u8()? {
        0 => CompareResult::Equal,
        1 => CompareResult::Greater,
        2 => CompareResult::Less,
        3 => CompareResult::NotEqual,
        _ => return Err(d.fault("unknown comparison")),
    };
    let target = match d.u8()? {
        0 => CompareTarget::Version(d.i64()?),
        1 => CompareTarget::Create(d.i64()?),
        2 => CompareTarget::Mod(d.i64()?),
        3 => CompareTarget::Value(d.bytes()?),
        4 => CompareTarget::Lease(d.i64()?),
        _ => return Err(d.fault("unknown comparison target")),
    };
    Ok(Compare { range, target, result })
}

fn encode_op(e: &mut Encoder, op: &Op) {
    match op {
        Op::Range(r) => {
            e.u8(0);
            encode_range_request(e, r);
        }
        Op::Put(p) => {
            e.u8(1);
            e.bytes(&p.key);
            e.bytes(&p.value);
            e.i64(p.lease);
            e.u8(u8::from(p.prev_kv)
                | u8::from(p.ignore_value) << 1
                | u8::from(p.ignore_lease) << 2);
        }
        Op::Delete(delete) => {
            e.u8(2);
            encode_range(e, &delete.range);
            e.bool(delete.prev_kv);
        }
        Op::Txn(txn) => {
            e.u8(3);
            encode_txn(e, txn);
        }
    }
}

fn decode_op(d: &mut Decoder, depth: usize) -> Result<Op, DecodeError> {
    Ok(match d.u8()? {
        0 => Op::Range(decode_range_request(d)?),
        1 => {
            let (key, value, lease, flags) = (d.bytes()?, d.bytes()?, d.i64()?, d.u8()?);
            Op::Put(PutRequest {
                key,
                value,
                lease,
                prev_kv: flags & 1 != 0,
                ignore_value: flags & 2 != 0,
                ignore_lease: flags & 4 != 0,
            })
        }
        2 => Op::Delete(DeleteRequest { range: decode_range(d)?, prev_kv: d.bool()? }),
        3 => Op::Txn(decode_txn(d, depth + 1)?),
        _ => return Err(d.fault("unknown operation")),
    })
}

fn encode_range_request(e: &mut Encoder, r: &RangeRequest) {
    encode_range(e, &r.range);
    e.u8(u8::from(r.keys_only) | u8::from(r.count_only) << 1 | u8::from(r.serializable) << 2);
    e.u8(match r.sort.0 {
        SortOrder::None => 0,
        SortOrder::Ascend => 1,
        SortOrder::Descend => 2,
    });
    e.u8(match r.sort.1 {
        SortTarget::Key => 0,
        SortTarget::Version => 1,
        SortTarget::Create => 2,
        SortTarget::Mod => 3,
        SortTarget::Value => 4,
    });
    for number in [
        r.revision,
        r.limit,
        r.min_mod_revision,
        r.max_mod_revision,
        r.min_create_revision,
        r.max_create_revision,
    ] {
        e.i64(number);
    }
}

fn decode_range_request(d: &mut Decoder) -> Result<RangeRequest, DecodeError> {
    let mut r = RangeRequest::new(decode_range(d)?);
    let flags = d.u8()?;
    r.keys_only = flags & 1 != 0;
    r.count_only = flags & 2 != 0;
    r.serializable = flags & 4 != 0;
    r.sort.0 = match d.u8()? {
        0 => SortOrder::None,
        1 => SortOrder::Ascend,
        2 => SortOrder::Descend,
        _ => return Err(d.fault("unknown sort order")),
    };
    r.sort.1 = match d.u8()? {
        0 => SortTarget::Key,
        1 => SortTarget::Version,
        2 => SortTarget::Create,
        3 => SortTarget::Mod,
        4 => SortTarget::Value,
        _ => return Err(d.fault("unknown sort target")),
    };
    r.revision = d.i64()?;
    r.limit = d.i64()?;
    r.min_mod_revision = d.i64()?;
    r.max_mod_revision = d.i64()?;
    r.min_create_revision = d.i64()?;
    r.max_create_revision = d.i64()?;
    Ok(r)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_transaction_comes_back_as_it_was() {
        let mut range = RangeRequest::new(KeyRange::Between("a".into(), "b".into()));
        range.limit = 7;
        range.keys_only = true;
        range.sort = (SortOrder::Descend, SortTarget::Mod);
        range.max_create_revision = 9;
        let inner = TxnRequest {
            compare: vec![Compare {
                range: KeyRange::Prefix("p".into()),
                target: CompareTarget::Value("v".into()),
                result: CompareResult::NotEqual,
            }],
            success: vec![Op::Range(range)],
            failure: vec![Op::Delete(DeleteRequest {
                range: KeyRange::From("z".into()),
                prev_kv: true,
            })],
        };
        let outer = Command::Txn(TxnRequest {
            compare: vec![],
            success: vec![
                Op::Txn(inner),
                Op::Put(PutRequest {
                    key: "k".into(),
                    value: "v".into(),
                    lease: -3,
                    prev_kv: true,
                    ignore_value: false,
                    ignore_lease: true,
                }),
            ],
            failure: vec![],
        });
        let grant = Command::LeaseGrant { id: 5, ttl_seconds: 60 };
        let of = RaisedAlarm { member: 5, alarm: Alarm::Corrupt, by_itself: false };
        let alarm = Command::Alarm(AlarmChange { raise: true, of });
        let encoded = [outer.encode(), grant.encode(), alarm.encode()];
        let proposal = Proposal::join(3, encoded.iter().map(Vec::as_slice));
        let decoded = proposal.decode().unwrap();
        assert_eq!(format!("{decoded:?}"), format!("{:?}", [outer, grant, alarm]));
    }

    #[test]
    fn any_cut_or_flipped_byte_is_an_error_or_another_command_but_never_a_panic() {
        let command = Command::Txn(TxnRequest {
            success: vec![Op::Range(RangeRequest::new(KeyRange::Prefix("abc".into())))],
            ..Default::default()
        })
        .encode();
        let whole = Proposal::join(1, [command.as_slice()].into_iter()).0;
        for cut in 0..whole.len() {
            assert!(Proposal(whole.slice(..cut)).decode().is_err(), "cut at {cut}");
            let mut flipped = whole.to_vec();
            flipped[cut] ^= 0xff;
            let _ = Proposal(flipped.into()).decode();
        }
    }
}

//! Answers of commands as bytes: what the leader sends back to a member that forwarded its
//! clients' commands.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::command::{Answer, Outcome};
use crate::kv::*;
use crate::mvcc::alarm::{decode_alarm, encode_alarm};

pub fn encode_answers(e: &mut Encoder, answers: &[Answer]) {
    e.u64(answers.len() as u64);
    for answer in answers {
        match answer {
            Ok(outcome) => {
                e.u8(0);
                encode_outcome(e, outcome);
            }
            Err(error) => {
                e.u8(1);
                encode_error(e, error);
            }
        }
    }
}

pub fn decode_answers(d: &mut Decoder) -> Result<Vec<Answer>, DecodeError> {
    let count = d.count()?;
    let mut answers = Vec::with_capacity(count);
    for _ in 0..count {
        answers.push(match d.u8()? {
            0 => Ok(decode_outcome(d)?),
            1 => Err(decode_error(d)?),
            _ => return Err(d.fault("unknown kind of answer")),
        });
    }
    Ok(answers)
}

fn encode_outcome(e: &mut Encoder, outcome: &Outcome) {
    match outcome {
        Outcome::Txn(response) => {
            e.u8(0);
            encode_txn_response(e, response);
        }
        Outcome::LeaseGranted { id, ttl_seconds } => {
            e.u8(1);
            e.i64(*id);
            e.i64(*ttl_seconds);
        }
        Outcome::LeaseRevoked { revision } => {
            e.u8(2);
            e.i64(*revision);
        }
        Outcome::Compacted { revision } => {
            e.u8(3);
            e.i64(*revision);
        }
        Outcome::Alarm(alarm) => {
            e.u8(4);
            e.bool(alarm.is_some());
            if let Some(alarm) = alarm {
                encode_alarm(e, alarm);
            }
        }
    }
}

fn decode_outcome(d: &mut Decoder) -> Result<Outcome, DecodeError> {
    Ok(match d.u8()? {
        0 => Outcome::Txn(decode_txn_response(d, 0)?),
        1 => Outcome::LeaseGranted { id: d.i64()?, ttl_seconds: d.i64()? },
        2 => Outcome::LeaseRevoked { revision: d.i64()? },
        3 => Outcome::Compacted { revision: d.i64()? },
        4 if d.bool()? => Outcome::Alarm(Some(decode_alarm(d)?)),
        4 => Outcome::Alarm(None),
        _ => return Err(d.fault("unknown outcome")),
    })
}

fn encode_txn_response(e: &mut Encoder, response: &TxnResponse) {
    e.i64(response.revision);
    e.bool(response.succeeded);
    e.u64(response.responses.len() as u64);
    for response in &response.responses {
        match response {
            OpResponse::Range(range) => {
                e.u8(0);
                e.i64(range.revision);
                e.bool(range.more);
                e.i64(range.count);
                encode_key_values(e, &range.kvs);
            }
            OpResponse::Put { prev } => {
                e.u8(1);
                encode_key_values(e, prev.as_slice());
            }
            OpResponse::Delete { deleted, prev } => {
                e.u8(2);
                e.i64(*deleted);
                encode_key_values(e, prev);
            }
            OpResponse::Txn(inner) => {
                e.u8(3);
                encode_txn_response(e, inner);
            }
        }
    }
}

/// Deeper than any transaction that was accepted.
const MAX_NESTING: usize = 64;

fn decode_txn_response(d: &mut Decoder, depth: usize) -> Result<TxnResponse, DecodeError> {
    if depth > MAX_NESTING {
        return Err(d.fault("answers nested too deeply"));
    }
    let (revision, succeeded, count) = (d.i64()?, d.bool()?, d.count()?);
    let mut responses = Vec::with_capacity(count);
    for _ in 0..count {
        responses.push(match d.u8()? {
            0 => {
                let (revision, more, count) = (d.i64()?, d.bool()?, d.i64()?);
                OpResponse::Range(RangeResponse {
                    revision,
                    kvs: decode_key_values(d)?,
                    more,
                    count,
                })
            }
            1 => OpResponse::Put { prev: decode_key_values(d)?.pop() },
            2 => OpResponse::Delete { deleted: d.i64()?, prev: decode_key_values(d)? },
            3 => OpResponse::Txn(decode_txn_response(d, depth + 1)?),
            _ => return Err(d.fault("unknown kind of response")),
        });
    }
    Ok(TxnResponse { revision, succeeded, responses })
}

fn encode_key_values(e: &mut Encoder, kvs: &[KeyValue]) {
    e.u64(kvs.len() as u64);
    for kv in kvs {
        e.bytes(&kv.key);
        e.bytes(&kv.value);
        e.i64(kv.create_revision);
        e.i64(kv.mod_revision);
        e.i64(kv.version);
        e.i64(kv.lease);
    }
}

fn decode_key_values(d: &mut Decoder) -> Result<Vec<KeyValue>, DecodeError> {
    let count = d.count()?;
    let mut kvs = Vec::with_capacity(count);
    for _ in 0..count {
        kvs.push(KeyValue {
            key: d.bytes()?,
            value: d.bytes()?,
            create_revision: d.i64()?,
            mod_revision: d.i64()?,
            version: d.i64()?,
            lease: d.i64()?,
        });
    }
    Ok(kvs)
}

pub fn encode_error(e: &mut Encoder, error: &KvError) {
    let mut pair = |tag, a, b| {
        e.u8(tag);
        e.i64(a);
        e.i64(b);
    };
    match error {
        KvError::Compacted { requested, compacted } => pair(0, *requested, *compacted),
        KvError::FutureRevision { requested, current } => pair(1, *requested, *current),
        KvError::KeyNotFound => pair(2, 0, 0),
        KvError::EmptyKey => pair(3, 0, 0),
        KvError::ValueProvided => pair(4, 0, 0),
        KvError::LeaseProvided => pair(5, 0, 0),
        KvError::LeaseNotFound(id) => pair(6, *id, 0),
        KvError::LeaseExists(id) => pair(7, *id, 0),
        KvError::LeaseTtlTooLarge(ttl) => pair(8, *ttl, 0),
        KvError::TooManyOps { given, limit } => pair(9, *given as i64, *limit as i64),
        KvError::TooLarge { bytes, limit_bytes } => pair(10, *bytes as i64, *limit_bytes as i64),
        KvError::NoLeader => pair(11, 0, 0),
        KvError::Timeout => pair(12, 0, 0),
        KvError::Stopped => pair(13, 0, 0),
        KvError::Alarmed(alarm) => pair(18, i64::from(alarm.number()), 0),
        KvError::DuplicateKey(key) => {
            e.u8(14);
            e.bytes(key);
        }
        KvError::NoSpace { path } => {
            e.u8(15);
            e.str(path);
        }
        KvError::Internal(text) => {
            e.u8(16);
            e.str(text);
        }
        KvError::Unreachable { datastore, reason } => {
            e.u8(17);
            e.str(datastore);
            e.str(reason);
        }
    }
}

pub fn decode_error(d: &mut Decoder) -> Result<KvError, DecodeError> {
    let tag = d.u8()?;
    match tag {
        14 => return Ok(KvError::DuplicateKey(d.bytes()?)),
        15 => return Ok(KvError::NoSpace { path: d.str()? }),
        16 => return Ok(KvError::Internal(d.str()?)),
        17 => return Ok(KvError::Unreachable { datastore: d.str()?, reason: d.str()? }),
        _ => {}
    }
    let (a, b) = (d.i64()?, d.i64()?);
    Ok(match tag {
        0 => KvError::Compacted { requested: a, compacted: b },
        1 => KvError::FutureRevision { requested: a, current: b },
        2 => KvError::KeyNotFound,
        3 => KvError::EmptyKey,
        4 => KvError::ValueProvided,
        5 => KvError::LeaseProvided,
        6 => KvError::LeaseNotFound(a),
        7 => KvError::LeaseExists(a),
        8 => KvError::LeaseTtlTooLarge(a),
        9 => KvError::TooManyOps { given: a as usize, limit: b as usize },
        10 => KvError::TooLarge { bytes: a as usize, limit_bytes: b as usize },
        11 => KvError::NoLeader,
        12 => KvError::Timeout,
        13 => KvError::Stopped,
        18 => {
            let alarm = u8::try_from(a).ok().and_then(Alarm::numbered);
            KvError::Alarmed(alarm.ok_or_else(|| d.fault("unknown alarm"))?)
        }
        _ => return Err(d.fault("unknown error")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::alarm::RaisedAlarm;

    #[test]
    fn every_answer_comes_back() {
        let kv = |key: &str| KeyValue {
            key: key.to_owned().into(),
            value: "v".into(),
            create_revision: 2,
            mod_revision: 7,
            version: 3,
            lease: -4,
        };
        let range =
            RangeResponse { revision: 7, kvs: vec![kv("a"), kv("b")], more: true, count: 9 };
        let inner = TxnResponse { revision: 7, succeeded: false, responses: vec![] };
        let txn = TxnResponse {
            revision: 8,
            succeeded: true,
            responses: vec![
                OpResponse::Range(range),
                OpResponse::Put { prev: Some(kv("c")) },
                OpResponse::Put { prev: None },
                OpResponse::Delete { deleted: 1, prev: vec![kv("d")] },
                OpResponse::Txn(inner),
            ],
        };
        let answers = vec![
            Ok(Outcome::Txn(txn)),
            Ok(Outcome::LeaseGranted { id: 1, ttl_seconds: 60 }),
            Ok(Outcome::LeaseRevoked { revision: 9 }),
            Ok(Outcome::Compacted { revision: 10 }),
            Ok(Outcome::Alarm(None)),
            Ok(Outcome::Alarm(Some(RaisedAlarm {
                member: 3,
                alarm: Alarm::NoSpace,
                by_itself: true,
            }))),
            Err(KvError::Alarmed(Alarm::Corrupt)),
            Err(KvError::Compacted { requested: 1, compacted: 2 }),
            Err(KvError::FutureRevision { requested: 3, current: 2 }),
            Err(KvError::DuplicateKey("k".into())),
            Err(KvError::KeyNotFound),
            Err(KvError::EmptyKey),
            Err(KvError::ValueProvided),
            Err(KvError::LeaseProvided),
            Err(KvError::LeaseNotFound(5)),
            Err(KvError::LeaseExists(5)),
            Err(KvError::LeaseTtlTooLarge(i64::MAX)),
            Err(KvError::TooManyOps { given: 200, limit: 128 }),
            Err(KvError::TooLarge { bytes: 2, limit_bytes: 1 }),
            Err(KvError::NoSpace { path: "/data".into() }),
            Err(KvError::NoLeader),
            Err(KvError::Timeout),
            Err(KvError::Stopped),
            Err(KvError::Internal("x".into())),
            Err(KvError::Unreachable { datastore: "d".into(), reason: "r".into() }),
        ];
        let mut e = Encoder::default();
        encode_answers(&mut e, &answers);
        let mut d = Decoder::new("answers", e.finish().into());
        assert_eq!(decode_answers(&mut d), Ok(answers));
        assert_eq!(d.end(), Ok(()));
    }
}

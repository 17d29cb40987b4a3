//! What a follower asks of the leader for its clients, and the leader's answers.

use bytes::Bytes;

use crate::answer::{decode_answers, decode_error, encode_answers, encode_error};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::command::Answer;
use crate::kv::{KvError, LeaseId, LeaseInfo};
use crate::raft::types::MemberId;
use crate::store::MemberError;

/// The leader's word on a forwarded request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forwarded<T> {
    Done(T),
    /// Not the leader any more. The request had no effect, so another may be asked.
    NotLeader,
    Failed(KvError),
}

/// A batch of commands that was applied by the entry with this index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub index: u64,
    pub answers: Vec<Answer>,
}

/// Only the leader knows how long leases have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseCall {
    KeepAlive(LeaseId),
    TimeToLive { id: LeaseId, keys: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    Add {
        peer_urls: Vec<String>,
        learner: bool,
    },
    Promote(MemberId),
    Remove(MemberId),
    Update {
        id: MemberId,
        peer_urls: Vec<String>,
    },
    /// A member tells its name and where its clients connect.
    Publish {
        id: MemberId,
        name: String,
        client_urls: Vec<String>,
    },
}

/// The member that was changed, and the index of the entry that did it.
pub type MemberChanged = Result<(MemberId, u64), MemberError>;

const DONE: u8 = 0;
const NOT_LEADER: u8 = 1;
const FAILED: u8 = 2;

fn encode<T>(answer: &Forwarded<T>, done: impl FnOnce(&mut Encoder, &T)) -> Bytes {
    let mut e = Encoder::default();
    match answer {
        Forwarded::Done(value) => {
            e.u8(DONE);
            done(&mut e, value);
        }
        Forwarded::NotLeader => e.u8(NOT_LEADER),
        Forwarded::Failed(error) => {
            e.u8(FAILED);
            encode_error(&mut e, error);
        }
    }
    e.finish().into()
}

fn decode<T>(
    body: Bytes,
    done: impl FnOnce(&mut Decoder) -> Result<T, DecodeError>,
) -> Result<Forwarded<T>, DecodeError> {
    let mut d = Decoder::new("leader's answer", body);
    let answer = match d.u8()? {
        DONE => Forwarded::Done(done(&mut d)?),
        NOT_LEADER => Forwarded::NotLeader,
        FAILED => Forwarded::Failed(decode_error(&mut d)?),
        _ => return Err(d.fault("unknown answer")),
    };
    d.end()?;
    Ok(answer)
}

pub fn encode_applied(answer: &Forwarded<Applied>) -> Bytes {
    encode(answer, |e, applied| {
        e.u64(applied.index);
        encode_answers(e, &applied.answers);
    })
}

pub fn decode_applied(body: Bytes) -> Result<Forwarded<Applied>, DecodeError> {
    decode(body, |d| Ok(Applied { index: d.u64()?, answers: decode_answers(d)? }))
}

pub fn encode_index(answer: &Forwarded<u64>) -> Bytes {
    encode(answer, |e, index| e.u64(*index))
}

pub fn decode_index(body: Bytes) -> Result<Forwarded<u64>, DecodeError> {
    decode(body, Decoder::u64)
}

impl LeaseCall {
    pub fn encode(&self) -> Bytes {
        let mut e = Encoder::default();
        match self {
            LeaseCall::KeepAlive(id) => {
                e.u8(0);
                e.i64(*id);
            }
            LeaseCall::TimeToLive { id, keys } => {
                e.u8(1);
                e.i64(*id);
                e.bool(*keys);
            }
        }
        e.finish().into()
    }

    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut d = Decoder::new("lease call", body);
        let call = match d.u8()? {
            0 => LeaseCall::KeepAlive(d.i64()?),
            1 => LeaseCall::TimeToLive { id: d.i64()?, keys: d.bool()? },
            _ => return Err(d.fault("unknown call")),
        };
        d.end()?;
        Ok(call)
    }
}

pub fn encode_lease(answer: &Forwarded<LeaseInfo>) -> Bytes {
    encode(answer, |e, lease| {
        e.i64(lease.id);
        e.i64(lease.granted_ttl_seconds);
        e.i64(lease.ttl_seconds);
        e.u64(lease.keys.len() as u64);
        for key in &lease.keys {
            e.bytes(key);
        }
    })
}

pub fn decode_lease(body: Bytes) -> Result<Forwarded<LeaseInfo>, DecodeError> {
    decode(body, |d| {
        let (id, granted_ttl_seconds, ttl_seconds) = (d.i64()?, d.i64()?, d.i64()?);
        let mut keys = Vec::new();
        for _ in 0..d.count()? {
            keys.push(d.bytes()?);
        }
        Ok(LeaseInfo { id, granted_ttl_seconds, ttl_seconds, keys })
    })
}

fn encode_urls(e: &mut Encoder, urls: &[String]) {
    e.u64(urls.len() as u64);
    for url in urls {
        e.str(url);
    }
}

fn decode_urls(d: &mut Decoder) -> Result<Vec<String>, DecodeError> {
    (0..d.count()?).map(|_| d.str()).collect()
}

impl MemberChange {
    pub fn encode(&self) -> Bytes {
        let mut e = Encoder::default();
        match self {
            MemberChange::Add { peer_urls, learner } => {
                e.u8(0);
                encode_urls(&mut e, peer_urls);
                e.bool(*learner);
            }
            MemberChange::Promote(id) => {
                e.u8(1);
                e.u64(*id);
            }
            MemberChange::Remove(id) => {
                e.u8(2);
                e.u64(*id);
            }
            MemberChange::Update { id, peer_urls } => {
                e.u8(3);
                e.u64(*id);
                encode_urls(&mut e, peer_urls);
            }
            MemberChange::Publish { id, name, client_urls } => {
                e.u8(4);
                e.u64(*id);
                e.str(name);
                encode_urls(&mut e, client_urls);
            }
        }
        e.finish().into()
    }

    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut d = Decoder::new("change of members", body);
        let change = match d.u8()? {
            0 => MemberChange::Add { peer_urls: decode_urls(&mut d)?, learner: d.bool()? },
            1 => MemberChange::Promote(d.u64()?),
            2 => MemberChange::Remove(d.u64()?),
            3 => MemberChange::Update { id: d.u64()?, peer_urls: decode_urls(&mut d)? },
            4 => MemberChange::Publish {
                id: d.u64()?,
                name: d.str()?,
                client_urls: decode_urls(&mut d)?,
            },
            _ => return Err(d.fault("unknown change")),
        };
        d.end()?;
        Ok(change)
    }
}

pub fn encode_changed(answer: &Forwarded<MemberChanged>) -> Bytes {
    encode(answer, |e, changed| {
        let mut refused = |tag, id| {
            e.u8(tag);
            e.u64(id);
        };
        match changed {
            Ok((id, index)) => {
                refused(0, *id);
                e.u64(*index);
            }
            Err(MemberError::NotFound(id)) => refused(1, *id),
            Err(MemberError::Exists) => refused(2, 0),
            Err(MemberError::NotLearner(id)) => refused(3, *id),
            Err(MemberError::NotReady(id)) => refused(4, *id),
            Err(MemberError::Unhealthy) => refused(5, 0),
            Err(MemberError::TooFewStarted) => refused(6, 0),
            Err(MemberError::TooManyLearners) => refused(7, 0),
            Err(MemberError::Store(error)) => {
                e.u8(8);
                encode_error(e, error);
            }
        }
    })
}

pub fn decode_changed(body: Bytes) -> Result<Forwarded<MemberChanged>, DecodeError> {
    decode(body, |d| {
        let tag = d.u8()?;
        if tag == 8 {
            return Ok(Err(MemberError::Store(decode_error(d)?)));
        }
        let id = d.u64()?;
        Ok(Err(match tag {
            0 => return Ok(Ok((id, d.u64()?))),
            1 => MemberError::NotFound(id),
            2 => MemberError::Exists,
            3 => MemberError::NotLearner(id),
            4 => MemberError::NotReady(id),
            5 => MemberError::Unhealthy,
            6 => MemberError::TooFewStarted,
            7 => MemberError::TooManyLearners,
            _ => return Err(d.fault("unknown refusal")),
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_answers_come_back() {
        let urls = || vec!["http://a:1".to_owned(), "http://b:2".to_owned()];
        for change in [
            MemberChange::Add { peer_urls: urls(), learner: true },
            MemberChange::Promote(3),
            MemberChange::Remove(4),
            MemberChange::Update { id: 5, peer_urls: urls() },
            MemberChange::Publish { id: 6, name: "n".into(), client_urls: urls() },
        ] {
            assert_eq!(MemberChange::decode(change.encode()), Ok(change));
        }
        for call in [LeaseCall::KeepAlive(-1), LeaseCall::TimeToLive { id: 7, keys: true }] {
            assert_eq!(LeaseCall::decode(call.encode()), Ok(call));
        }
        let applied = Applied { index: 3, answers: vec![Err(KvError::KeyNotFound)] };
        for answer in
            [Forwarded::Done(applied), Forwarded::NotLeader, Forwarded::Failed(KvError::Timeout)]
        {
            assert_eq!(decode_applied(encode_applied(&answer)), Ok(answer));
        }
        let lease =
            LeaseInfo { id: 1, granted_ttl_seconds: 9, ttl_seconds: -1, keys: vec!["k".into()] };
        let lease = Forwarded::Done(lease);
        assert_eq!(decode_lease(encode_lease(&lease)), Ok(lease));
        for changed in [
            Ok((1, 2)),
            Err(MemberError::NotFound(1)),
            Err(MemberError::Exists),
            Err(MemberError::NotLearner(2)),
            Err(MemberError::NotReady(2)),
            Err(MemberError::Unhealthy),
            Err(MemberError::TooFewStarted),
            Err(MemberError::TooManyLearners),
            Err(MemberError::Store(KvError::Stopped)),
        ] {
            let answer = Forwarded::Done(changed);
            assert_eq!(decode_changed(encode_changed(&answer)), Ok(answer));
        }
    }
}

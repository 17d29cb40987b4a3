//! What is around the body of every message between members.
//!
//! A request says which cluster it is of, who sent it and whom it is for, so that a member
//! that was restored, moved to another address or removed cannot disturb others. An answer
//! says first whether the request was taken at all.

use bytes::Bytes;

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::raft::types::MemberId;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    pub cluster_id: u64,
    pub from: MemberId,
    pub to: MemberId,
}

/// Why a request was not taken. It had no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it cannot read the message: {0}")]
    Malformed(String),
    #[error("it is of cluster {0:x}")]
    WrongCluster(u64),
    #[error("it is member {0:x}")]
    WrongMember(MemberId),
    /// It knows a list of members, made by the entry with this index, without the sender.
    #[error("the sender is no member of the cluster")]
    NotMember(u64),
    #[error("it cannot: {0}")]
    Unable(String),
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        Refusal::Malformed(error.to_string())
    }
}

impl Envelope {
    pub fn wrap(&self, body: &[u8]) -> Bytes {
        let mut e = Encoder::with_capacity(body.len() + 32);
        e.u64(self.cluster_id);
        e.u64(self.from);
        e.u64(self.to);
        e.raw(body);
        e.finish().into()
    }

    pub fn unwrap(message: Bytes) -> Result<(Self, Bytes), DecodeError> {
        let mut d = Decoder::new("message between members", message);
        let envelope = Self { cluster_id: d.u64()?, from: d.u64()?, to: d.u64()? };
        Ok((envelope, d.rest()))
    }
}

const TAKEN: u8 = 0;
const MALFORMED: u8 = 1;
const WRONG_CLUSTER: u8 = 2;
const WRONG_MEMBER: u8 = 3;
const UNABLE: u8 = 4;
const NOT_MEMBER: u8 = 5;

pub fn encode_answer(answer: Result<Bytes, Refusal>) -> Bytes {
    let mut e = Encoder::default();
    match answer {
        Ok(body) => {
            e.u8(TAKEN);
            e.raw(&body);
        }
        Err(Refusal::Malformed(text)) => {
            e.u8(MALFORMED);
            e.str(&text);
        }
        Err(Refusal::WrongCluster(id)) => {
            e.u8(WRONG_CLUSTER);
            e.u64(id);
        }
        Err(Refusal::WrongMember(id)) => {
            e.u8(WRONG_MEMBER);
            e.u64(id);
        }
        Err(Refusal::NotMember(index)) => {
            e.u8(NOT_MEMBER);
            e.u64(index);
        }
        Err(Refusal::Unable(text)) => {
            e.u8(UNABLE);
            e.str(&text);
        }
    }
    e.finish().into()
}

pub fn decode_answer(message: Bytes) -> Result<Result<Bytes, Refusal>, DecodeError> {
    let mut d = Decoder::new("answer of a member", message);
    Ok(Err(match d.u8()? {
        TAKEN => return Ok(Ok(d.rest())),
        MALFORMED => Refusal::Malformed(d.str()?),
        WRONG_CLUSTER => Refusal::WrongCluster(d.u64()?),
        WRONG_MEMBER => Refusal::WrongMember(d.u64()?),
        NOT_MEMBER => Refusal::NotMember(d.u64()?),
        UNABLE => Refusal::Unable(d.str()?),
        _ => return Err(d.fault("unknown answer")),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_come_back() {
        let envelope = Envelope { cluster_id: 1 << 60, from: 2, to: 3 };
        assert_eq!(Envelope::unwrap(envelope.wrap(b"body")), Ok((envelope, "body".into())));
        for answer in [
            Ok("body".into()),
            Err(Refusal::Malformed("cut".into())),
            Err(Refusal::WrongCluster(7)),
            Err(Refusal::WrongMember(8)),
            Err(Refusal::NotMember(9)),
            Err(Refusal::Unable("stopped".into())),
        ] {
            assert_eq!(decode_answer(encode_answer(answer.clone())), Ok(answer));
        }
    }
}

//! The bodies of the messages between members.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::raft::types::*;
use crate::wal::frame;

type Append = AppendEntriesRequest<TypeConfig>;
type Appended = AppendEntriesResponse<TypeConfig>;

pub fn encode_append(request: Append) -> Bytes {
    let mut e = Encoder::with_capacity(256);
    encode_vote(&mut e, &request.vote);
    encode_log_id(&mut e, &request.prev_log_id);
    encode_log_id(&mut e, &request.leader_commit);
    e.u64(request.entries.len() as u64);
    for entry in request.entries {
        let entry = to_wal(entry);
        e.u64(entry.index);
        e.u64(entry.term);
        e.u8(entry.kind);
        e.bytes(&entry.body);
    }
    e.finish().into()
}

pub fn decode_append(body: Bytes) -> Result<Append, DecodeError> {
    let mut d = Decoder::new("append entries", body);
    let vote = decode_vote(&mut d)?;
    let prev_log_id = decode_log_id(&mut d)?;
    let leader_commit = decode_log_id(&mut d)?;
    let mut entries = Vec::new();
    for _ in 0..d.count()? {
        entries.push(from_wal(frame::Entry {
            index: d.u64()?,
            term: d.u64()?,
            kind: d.u8()?,
            body: d.bytes()?,
        })?);
    }
    d.end()?;
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

pub fn encode_appended(response: &Appended) -> Bytes {
    let mut e = Encoder::default();
    match response {
        AppendEntriesResponse::Success => e.u8(0),
        AppendEntriesResponse::PartialSuccess(upto) => {
            e.u8(1);
            encode_log_id(&mut e, upto);
        }
        AppendEntriesResponse::Conflict => e.u8(2),
        AppendEntriesResponse::HigherVote(vote) => {
            e.u8(3);
            encode_vote(&mut e, vote);
        }
    }
    e.finish().into()
}

pub fn decode_appended(body: Bytes) -> Result<Appended, DecodeError> {
    let mut d = Decoder::new("append entries answer", body);
    Ok(match d.u8()? {
        0 => AppendEntriesResponse::Success,
        1 => AppendEntriesResponse::PartialSuccess(decode_log_id(&mut d)?),
        2 => AppendEntriesResponse::Conflict,
        3 => AppendEntriesResponse::HigherVote(decode_vote(&mut d)?),
        _ => return Err(d.fault("unknown answer")),
    })
}

/// `pre`: would the other vote so, if it were asked?
pub fn encode_vote_request(request: &VoteRequest<TypeConfig>, pre: bool) -> Bytes {
    let mut e = Encoder::default();
    e.bool(pre);
    encode_vote(&mut e, &request.vote);
    encode_log_id(&mut e, &request.last_log_id);
    e.bool(request.leadership_transfer);
    e.finish().into()
}

pub fn decode_vote_request(body: Bytes) -> Result<(VoteRequest<TypeConfig>, bool), DecodeError> {
    let mut d = Decoder::new("vote request", body);
    let pre = d.bool()?;
    let mut request = VoteRequest::new(decode_vote(&mut d)?, decode_log_id(&mut d)?);
    request.leadership_transfer = d.bool()?;
    d.end()?;
    Ok((request, pre))
}

pub fn encode_voted(response: &VoteResponse<TypeConfig>) -> Bytes {
    let mut e = Encoder::default();
    encode_vote(&mut e, &response.vote);
    e.bool(response.vote_granted);
    encode_log_id(&mut e, &response.last_log_id);
    e.finish().into()
}

pub fn decode_voted(body: Bytes) -> Result<VoteResponse<TypeConfig>, DecodeError> {
    let mut d = Decoder::new("vote answer", body);
    let vote = decode_vote(&mut d)?;
    let granted = d.bool()?;
    let last_log_id = decode_log_id(&mut d)?;
    d.end()?;
    Ok(VoteResponse::new(vote, last_log_id, granted))
}

pub fn encode_transfer(request: &TransferLeaderRequest<TypeConfig>) -> Bytes {
    let mut e = Encoder::default();
    encode_vote(&mut e, request.from_leader());
    e.u64(*request.to_node_id());
    encode_log_id(&mut e, &request.last_log_id().copied());
    e.finish().into()
}

pub fn decode_transfer(body: Bytes) -> Result<TransferLeaderRequest<TypeConfig>, DecodeError> {
    let mut d = Decoder::new("transfer of leadership", body);
    let request =
        TransferLeaderRequest::new(decode_vote(&mut d)?, d.u64()?, decode_log_id(&mut d)?);
    d.end()?;
    Ok(request)
}

pub fn encode_transferred(response: &TransferLeaderResponse<TypeConfig>) -> Bytes {
    let mut e = Encoder::default();
    match response {
        Ok(()) => e.u8(0),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            e.u8(1);
            encode_vote(&mut e, expected);
            encode_vote(&mut e, actual);
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            e.u8(2);
            encode_log_id(&mut e, expected);
            encode_log_id(&mut e, actual);
        }
    }
    e.finish().into()
}

pub fn decode_transferred(body: Bytes) -> Result<TransferLeaderResponse<TypeConfig>, DecodeError> {
    let mut d = Decoder::new("answer to a transfer of leadership", body);
    Ok(match d.u8()? {
        0 => Ok(()),
        1 => Err(TransferLeaderError::VoteChanged {
            expected: decode_vote(&mut d)?,
            actual: decode_vote(&mut d)?,
        }),
        2 => Err(TransferLeaderError::LogNotFlushed {
            expected: decode_log_id(&mut d)?,
            actual: decode_log_id(&mut d)?,
        }),
        _ => return Err(d.fault("unknown answer")),
    })
}

/// What comes before a snapshot's bytes.
pub fn encode_snapshot_header(vote: &Vote, applied: &AppliedTo) -> Bytes {
    let mut e = Encoder::default();
    encode_vote(&mut e, vote);
    e.bytes(&applied.encode());
    e.finish().into()
}

pub fn decode_snapshot_header(body: Bytes) -> Result<(Vote, AppliedTo), DecodeError> {
    let mut d = Decoder::new("snapshot transfer", body);
    let vote = decode_vote(&mut d)?;
    let applied = AppliedTo::decode(d.bytes()?)?;
    d.end()?;
    Ok((vote, applied))
}

pub fn encode_installed(response: &SnapshotResponse<TypeConfig>) -> Bytes {
    let mut e = Encoder::default();
    encode_vote(&mut e, &response.vote);
    e.finish().into()
}

pub fn decode_installed(body: Bytes) -> Result<SnapshotResponse<TypeConfig>, DecodeError> {
    let mut d = Decoder::new("answer to a snapshot transfer", body);
    Ok(SnapshotResponse::new(decode_vote(&mut d)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Proposal;
    use openraft::EntryPayload;

    fn vote() -> Vote {
        Vote::new_committed(7, 3)
    }

    #[test]
    fn entries_and_answers_come_back() {
        let entry = openraft::Entry {
            log_id: log_id(7, 12),
            payload: EntryPayload::Normal(Proposal("commands".into())),
        };
        let request = AppendEntriesRequest {
            vote: vote(),
            prev_log_id: Some(log_id(6, 11)),
            entries: vec![entry],
            leader_commit: None,
        };
        let back = decode_append(encode_append(request.clone())).unwrap();
        assert_eq!(format!("{back:?}"), format!("{request:?}"));
        let answers = [
            AppendEntriesResponse::Success,
            AppendEntriesResponse::PartialSuccess(Some(log_id(1, 2))),
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::HigherVote(vote()),
        ];
        for answer in answers {
            assert_eq!(decode_appended(encode_appended(&answer)), Ok(answer));
        }
    }

    #[test]
    fn votes_transfers_and_snapshots_come_back() {
        let request = VoteRequest::new(vote(), Some(log_id(6, 11)));
        assert_eq!(decode_vote_request(encode_vote_request(&request, true)), Ok((request, true)));
        let voted = VoteResponse::new(vote(), None, true);
        assert_eq!(decode_voted(encode_voted(&voted)), Ok(voted));
        let transfer = TransferLeaderRequest::new(vote(), 9, Some(log_id(6, 11)));
        assert_eq!(decode_transfer(encode_transfer(&transfer)), Ok(transfer));
        let refused =
            Err(TransferLeaderError::LogNotFlushed { expected: Some(log_id(6, 11)), actual: None });
        assert_eq!(decode_transferred(encode_transferred(&refused)), Ok(refused));
        let applied = AppliedTo { log_id: Some(log_id(6, 11)), ..Default::default() };
        let header = encode_snapshot_header(&vote(), &applied);
        assert_eq!(decode_snapshot_header(header), Ok((vote(), applied)));
    }
}

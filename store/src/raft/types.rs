//! The Raft library's types, filled in, and their bytes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::impls::leader_id_std;
use openraft::vote::RaftLeaderId;
use openraft::{EntryPayload, Membership, RaftTypeConfig};

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::command::{Answer, Proposal};
use crate::raft::runtime::Runtime;
use crate::wal::frame;

pub type MemberId = u64;

/// A member as the others reach it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberNode {
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    /// It was added to vote, and will as soon as it has caught up.
    pub promote: bool,
}

openraft::declare_raft_types!(
    pub TypeConfig:
        D = Proposal,
        R = Vec<Answer>,
        NodeId = MemberId,
        Node = MemberNode,
        LeaderId = leader_id_std::LeaderId<u64, MemberId>,
        AsyncRuntime = Runtime,
);

/// A term; with one leader a term, that says who led too.
pub type Term = <<TypeConfig as RaftTypeConfig>::LeaderId as RaftLeaderId>::Committed;
pub type LogId = openraft::LogId<Term>;
pub type Vote = <TypeConfig as RaftTypeConfig>::Vote;
pub type Entry = <TypeConfig as RaftTypeConfig>::Entry;
pub type StoredMembership = openraft::StoredMembership<Term, MemberId, MemberNode>;
pub type SnapshotMeta = openraft::SnapshotMeta<Term, MemberId, MemberNode>;
pub type MemberSet = Membership<MemberId, MemberNode>;

pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

pub fn term_of(id: &LogId) -> u64 {
    id.committed_leader_id().term
}

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// An entry as the log keeps it.
pub fn to_wal(entry: Entry) -> frame::Entry {
    let (kind, body) = match entry.payload {
        EntryPayload::Blank => (BLANK, Bytes::new()),
        EntryPayload::Normal(proposal) => (NORMAL, proposal.0),
        EntryPayload::Membership(membership) => {
            let mut e = Encoder::default();
            encode_members(&mut e, &membership);
            (MEMBERSHIP, e.finish().into())
        }
    };
    frame::Entry { index: entry.log_id.index(), term: term_of(&entry.log_id), kind, body }
}

pub fn from_wal(entry: frame::Entry) -> Result<Entry, DecodeError> {
    let mut d = Decoder::new("membership entry", entry.body.clone());
    let payload = match entry.kind {
        BLANK => EntryPayload::Blank,
        NORMAL => EntryPayload::Normal(Proposal(entry.body)),
        MEMBERSHIP => EntryPayload::Membership(decode_members(&mut d)?),
        _ => return Err(d.fault("unknown kind of entry")),
    };
    Ok(openraft::Entry { log_id: log_id(entry.term, entry.index), payload })
}

pub fn encode_members(e: &mut Encoder, members: &MemberSet) {
    let configs = members.get_joint_config();
    e.u64(configs.len() as u64);
    for config in configs {
        e.u64(config.len() as u64);
        for id in config {
            e.u64(*id);
        }
    }
    let nodes: Vec<_> = members.nodes().collect();
    e.u64(nodes.len() as u64);
    for (id, node) in nodes {
        e.u64(*id);
        e.str(&node.name);
        for urls in [&node.peer_urls, &node.client_urls] {
            e.u64(urls.len() as u64);
            for url in urls {
                e.str(url);
            }
        }
        e.bool(node.promote);
    }
}

pub fn decode_members(d: &mut Decoder) -> Result<MemberSet, DecodeError> {
    let mut configs = Vec::new();
    for _ in 0..d.count()? {
        let mut config = BTreeSet::new();
        for _ in 0..d.count()? {
            config.insert(d.u64()?);
        }
        configs.push(config);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..d.count()? {
        let id = d.u64()?;
        let name = d.str()?;
        let mut urls = [Vec::new(), Vec::new()];
        for list in &mut urls {
            for _ in 0..d.count()? {
                list.push(d.str()?);
            }
        }
        let [peer_urls, client_urls] = urls;
        let promote = d.bool()?;
        nodes.insert(id, MemberNode { name, peer_urls, client_urls, promote });
    }
    if configs.is_empty() && nodes.is_empty() {
        return Ok(MemberSet::default());
    }
    Membership::new(configs, nodes).map_err(|_| d.fault("voters without an address"))
}

pub fn encode_log_id(e: &mut Encoder, id: &Option<LogId>) {
    e.bool(id.is_some());
    if let Some(id) = id {
        e.u64(term_of(id));
        e.u64(id.index());
    }
}

pub fn decode_log_id(d: &mut Decoder) -> Result<Option<LogId>, DecodeError> {
    if !d.bool()? {
        return Ok(None);
    }
    Ok(Some(log_id(d.u64()?, d.u64()?)))
}

pub fn encode_vote(e: &mut Encoder, vote: &Vote) {
    e.u64(vote.leader_id.term);
    e.u64(vote.leader_id.voted_for);
    e.bool(vote.committed);
}

pub fn decode_vote(d: &mut Decoder) -> Result<Vote, DecodeError> {
    let leader_id = leader_id_std::LeaderId::new(d.u64()?, d.u64()?);
    Ok(Vote { leader_id, committed: d.bool()? })
}

/// Up to where the log has been applied: what the engine keeps for the log's side.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AppliedTo {
    pub log_id: Option<LogId>,
    pub membership: StoredMembership,
}

impl AppliedTo {
    pub fn encode(&self) -> Bytes {
        let mut e = Encoder::default();
        encode_log_id(&mut e, &self.log_id);
        encode_log_id(&mut e, self.membership.log_id());
        encode_members(&mut e, self.membership.membership());
        e.finish().into()
    }

    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut d = Decoder::new("applied position", bytes);
        let log_id = decode_log_id(&mut d)?;
        let membership = StoredMembership::new(decode_log_id(&mut d)?, decode_members(&mut d)?);
        d.end()?;
        Ok(Self { log_id, membership })
    }

    pub fn snapshot_meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.log_id, last_membership: self.membership.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_positions_come_back() {
        let node = |name: &str| MemberNode {
            name: name.into(),
            peer_urls: vec![format!("http://{name}:2380")],
            client_urls: vec![],
            promote: name == "learner",
        };
        let nodes = BTreeMap::from([(1, node("a")), (2, node("b")), (9, node("learner"))]);
        let joint = vec![BTreeSet::from([1]), BTreeSet::from([1, 2])];
        let members = Membership::new(joint, nodes).unwrap();
        let applied = AppliedTo {
            log_id: Some(log_id(3, 17)),
            membership: StoredMembership::new(Some(log_id(2, 4)), members.clone()),
        };
        assert_eq!(AppliedTo::decode(applied.encode()), Ok(applied));
        let entry =
            openraft::Entry { log_id: log_id(2, 4), payload: EntryPayload::Membership(members) };
        assert_eq!(from_wal(to_wal(entry.clone())), Ok(entry));
        assert_eq!(AppliedTo::decode(AppliedTo::default().encode()), Ok(AppliedTo::default()));
    }
}

//! How a store is set up, and what can be wrong with that.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::raft::network::PeerTls;
use crate::raft::types::{MemberId, MemberNode};

/// A member of a new cluster, as all of them are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialMember {
    pub name: String,
    pub peer_urls: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InitialState {
    /// Starts a cluster if there is no data yet.
    #[default]
    New,
    /// Waits to be added to one.
    Existing,
}

#[derive(Debug, Clone)]
pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    /// All voters of a new cluster, this one included. Empty: this member alone.
    pub initial_cluster: Vec<InitialMember>,
    pub initial_state: InitialState,
    /// Of the cluster to join, if it is known and was not made from this list of members.
    pub cluster_id: Option<u64>,
    /// As it was given when this member was added to the cluster.
    pub member_id: Option<MemberId>,
    /// Tells clusters of the same members apart.
    pub cluster_token: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    /// None: members talk in the clear; for loopback only.
    pub peer_tls: Option<PeerTls>,

    /// A segment of the engine; in a large store they are larger.
    pub engine_segment_bytes: u64,
    /// Of the newest records, kept in memory for reads.
    pub recent_bytes: usize,
    /// A segment of the log; two are reserved on disk at any time.
    pub log_segment_bytes: u64,
    /// The log is compacted when it has grown by this much, or by the size of the state if
    /// that is more.
    pub snapshot_log_bytes: u64,
    /// Entries kept when the log is compacted, for members that are only a little behind.
    pub snapshot_keep_entries: u64,
    /// Writes are refused while the disk has less free than this.
    pub min_free_bytes: u64,
    /// Largest request; etcd's default.
    pub max_request_bytes: usize,
    /// Operations in a transaction; etcd's default.
    pub max_txn_ops: usize,
    /// Messages that wait for one watcher before it is cut off.
    pub watch_queue_messages: usize,
    /// With several members.
    pub heartbeat_ms: u64,
    /// A leader that has not been heard for so long is replaced: the others trust it for a
    /// part of this, then each waits a random while before it stands for election.
    pub election_timeout_ms: u64,
}

impl Config {
    /// A single member with the defaults.
    pub fn new(name: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            data_dir: data_dir.into(),
            initial_cluster: Vec::new(),
            initial_state: InitialState::New,
            cluster_id: None,
            member_id: None,
            cluster_token: "skiff".into(),
            peer_urls: vec!["http://127.0.0.1:2380".into()],
            client_urls: vec!["http://127.0.0.1:2379".into()],
            peer_tls: None,
            engine_segment_bytes: 8 << 20,
            recent_bytes: 4 << 20,
            log_segment_bytes: 16 << 20,
            snapshot_log_bytes: 32 << 20,
            snapshot_keep_entries: 1000,
            min_free_bytes: 32 << 20,
            max_request_bytes: 3 << 19,
            max_txn_ops: 128,
            watch_queue_messages: 1024,
            heartbeat_ms: 100,
            election_timeout_ms: 1000,
        }
    }

    /// Every fault at once.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut faults = Vec::new();
        let mut check = |ok: bool, fault: &str| {
            if !ok {
                faults.push(fault.to_owned());
            }
        };
        check(!self.name.is_empty(), "name: must not be empty");
        check(!self.data_dir.as_os_str().is_empty(), "data-dir: must not be empty");
        check(!self.peer_urls.is_empty(), "peer URLs: at least one is needed");
        check(self.engine_segment_bytes > 0, "engine segment: must hold something");
        let largest = self.max_request_bytes as u64;
        check(
            self.log_segment_bytes >= 2 * largest,
            "log segment: must hold at least two of the largest requests",
        );
        check(self.max_txn_ops > 0, "transaction operations: at least one must be allowed");
        check(self.watch_queue_messages > 0, "watch queue: at least one message is needed");
        check(
            self.election_timeout_ms >= 5 * self.heartbeat_ms && self.heartbeat_ms > 0,
            "election timeout: must be at least five heartbeat intervals",
        );
        if !self.initial_cluster.is_empty() {
            let me = self.initial_cluster.iter().find(|member| member.name == self.name);
            check(me.is_some(), "initial cluster: this member's name is not in it");
            check(
                me.is_none_or(|me| me.peer_urls == self.peer_urls),
                "initial cluster: this member's peer URLs differ from those it is given",
            );
            let mut names: Vec<_> =
                self.initial_cluster.iter().map(|member| &member.name).collect();
            names.sort();
            names.dedup();
            check(
                names.len() == self.initial_cluster.len(),
                "initial cluster: a name is in it twice",
            );
        }
        if faults.is_empty() { Ok(()) } else { Err(ConfigError(faults)) }
    }

    /// The voters of the new cluster; the same on every member.
    pub fn initial_members(&self) -> Vec<(MemberId, MemberNode)> {
        let me = InitialMember { name: self.name.clone(), peer_urls: self.peer_urls.clone() };
        let members =
            if self.initial_cluster.is_empty() { vec![me] } else { self.initial_cluster.clone() };
        let alone = members.len() == 1;
        let node = |member: &InitialMember| MemberNode {
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
            // All must begin with the same; each tells its own once there is a leader.
            client_urls: if alone { self.client_urls.clone() } else { Vec::new() },
            promote: false,
        };
        members.iter().map(|member| (self.member_id(&member.peer_urls), node(member))).collect()
    }

    /// How long the others trust a leader they do not hear. While they do, they elect none.
    pub fn leader_lease_ms(&self) -> u64 {
        self.election_timeout_ms * 7 / 20
    }

    /// The shortest time a member then waits before it stands for election; the longest is
    /// another lease.
    pub fn election_wait_ms(&self) -> u64 {
        (self.election_timeout_ms * 3 / 20).max(self.heartbeat_ms + 1)
    }

    /// From the peer URLs and the token, as etcd makes its ids.
    pub fn member_id(&self, peer_urls: &[String]) -> MemberId {
        let mut urls = peer_urls.to_vec();
        urls.sort();
        urls.push(self.cluster_token.clone());
        hash_id(urls.iter().map(String::as_bytes))
    }

    /// Of a member that is added: never one that was there before, whose votes may still be
    /// counted somewhere.
    pub fn new_member_id(&self, peer_urls: &[String]) -> MemberId {
        let random = crate::raft::runtime::random();
        hash_id([&self.member_id(peer_urls).to_be_bytes()[..], &random.to_be_bytes()].into_iter())
    }

    pub fn cluster_id(&self) -> u64 {
        if let Some(id) = self.cluster_id {
            return id;
        }
        let mut ids: Vec<_> =
            self.initial_members().iter().map(|(id, _)| id.to_be_bytes()).collect();
        ids.sort();
        hash_id(ids.iter().map(|id| &id[..]))
    }
}

fn hash_id<'a>(parts: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    let digest = hash.finalize();
    digest[..8].iter().fold(0, |id, byte| id << 8 | u64::from(*byte))
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("store configuration: {}", .0.join("; "))]
pub struct ConfigError(pub Vec<String>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_reported_at_once() {
        let mut config = Config::new("", "/data");
        assert_eq!(Config::new("a", "/data").validate(), Ok(()));
        config.log_segment_bytes = 1;
        config.initial_cluster = vec![InitialMember { name: "b".into(), peer_urls: vec![] }];
        let text = config.validate().unwrap_err().to_string();
        assert_eq!(
            text,
            "store configuration: name: must not be empty; \
             log segment: must hold at least two of the largest requests; \
             initial cluster: this member's name is not in it"
        );
    }

    #[test]
    fn members_agree_on_ids() {
        let member = |name: &str| InitialMember {
            name: name.into(),
            peer_urls: vec![format!("http://{name}:2380")],
        };
        let config = |name: &str| {
            let mut config = Config::new(name, "/data");
            config.initial_cluster = vec![member("a"), member("b")];
            config.peer_urls = member(name).peer_urls;
            config
        };
        assert_eq!(config("a").cluster_id(), config("b").cluster_id());
        let ids =
            |name| config(name).initial_members().into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids("a"), ids("b"));
        assert_ne!(ids("a")[0], ids("a")[1]);
    }
}

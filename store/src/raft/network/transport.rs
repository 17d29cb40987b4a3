//! The port between Raft and the wire.
//!
//! ```text
//!  Raft ── peer ── envelope + encoded body ──▶ Transport::call ──▶ ... ──▶ Receiver::answer ── Raft
//!                                              (grpc, or a test's own)
//! ```
//!
//! A transport carries bytes and knows nothing of Raft: a call is a member, a method and a
//! body, and brings back the answer's bytes. [`super::grpc`] is the real one. A test may hand
//! another to [`crate::Store::open_on`] and give what arrives to the other member's
//! [`super::receiver::Receiver`], so that it exercises the encoding too.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::raft::types::MemberId;
use crate::snapshot::SnapshotFile;

/// What one member asks of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    AppendEntries,
    /// An append without entries. It must not wait behind those with many.
    Heartbeat,
    Vote,
    TransferLeader,
    /// A follower's commands, for the leader.
    Propose,
    /// Up to where a follower's reads must wait.
    ReadIndex,
    Lease,
    /// A change of the members.
    Member,
    /// Who is in the cluster, for one that joins and does not know it yet.
    Members,
}

/// A member to call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    pub id: MemberId,
    pub name: String,
    /// Any of them reaches it.
    pub urls: Vec<String>,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "member {:x} ({})", self.id, self.urls.join(", "))
    }
}

/// Why there is no answer. Whoever repeats a write must know the difference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It never left this member, so it had no effect.
    #[error("cannot reach {to}: {cause}")]
    NotSent { to: String, cause: String },
    /// It may have arrived, and may have had its effect.
    #[error("no answer from {to}: {cause}")]
    Lost { to: String, cause: String },
}

#[async_trait]
pub trait Transport: std::fmt::Debug + Send + Sync + 'static {
    /// One request and its answer, or an error when `timeout` is over. Calls may overtake
    /// each other. A call is never repeated by the transport.
    async fn call(
        &self,
        to: &Target,
        method: Method,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, CallError>;

    /// Sends a header and then the file's bytes, for [`super::receiver::Receiver::snapshot`].
    /// Takes as long as it takes; the caller drops it to give up.
    async fn send_snapshot(
        &self,
        to: &Target,
        header: Bytes,
        file: SnapshotFile,
    ) -> Result<Bytes, CallError>;
}

//! Linearizable reads. The leader makes sure that it still leads, once for all the reads that
//! wait, and names the index they must see; a follower asks it for that index.

use std::sync::Arc;

use openraft::raft::ReadPolicy;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Inner;
use super::forward::{Fault, TIMEOUT};
use crate::kv::KvError;
use crate::raft::network::forward::{Forwarded, decode_index};
use crate::raft::network::transport::Method;

/// Reads that may wait; more callers wait for a place.
const QUEUE: usize = 4096;

type Confirmed = Result<u64, KvError>;

pub(crate) struct Reads {
    queue: mpsc::Sender<oneshot::Sender<Confirmed>>,
}

pub(super) type Waiting = mpsc::Receiver<oneshot::Sender<Confirmed>>;

impl Reads {
    pub fn new() -> (Self, Waiting) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (Self { queue }, waiting)
    }
}

/// One round at a time. Who comes during a round waits for the next, because the running one
/// may have confirmed already what was true before.
pub(super) async fn run(inner: Arc<Inner>, mut queue: Waiting) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, QUEUE).await > 0 {
        let confirmed = inner.confirm().await;
        for reader in waiting.drain(..) {
            // Who has gone away does not want to know.
            let _ = reader.send(confirmed.clone());
        }
    }
}

impl Inner {
    /// Returns when a read of the applied state sees everything that was acknowledged.
    pub async fn linearize(&self) -> Result<(), KvError> {
        if self.sole_voter.is_settled() {
            // Nobody else can commit, and a client is answered only after applying.
            return Ok(());
        }
        let (reader, confirmed) = oneshot::channel();
        self.reads.queue.send(reader).await.map_err(|_| KvError::Stopped)?;
        let index = confirmed.await.map_err(|_| KvError::Stopped)??;
        self.applied(index, Instant::now() + TIMEOUT).await
    }

    /// Waits until this member has applied the entry.
    pub async fn applied(&self, index: u64, deadline: Instant) -> Result<(), KvError> {
        let mut applied = self.core.applied_index.subscribe();
        let reached = applied.wait_for(|applied| *applied >= index);
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(KvError::Stopped),
            Err(_) => Err(KvError::Timeout),
        }
    }

    /// The index that reads which have begun must see. Asking twice is harmless.
    async fn confirm(&self) -> Confirmed {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let leader = self.leadership.wait(deadline).await.ok_or(KvError::NoLeader)?;
            let answer = if leader == self.identity.member_id {
                self.confirm_here().await
            } else {
                let asked = self.ask(leader, Method::ReadIndex, Default::default(), deadline).await;
                match asked.and_then(|body| decode_index(body).map_err(Fault::from)) {
                    // It is the leader that stops, not this member.
                    Ok(Forwarded::Failed(KvError::Stopped)) => Forwarded::NotLeader,
                    Ok(answer) => answer,
                    Err(Fault::NotSent(_) | Fault::Lost(_)) => Forwarded::NotLeader,
                }
            };
            match answer {
                Forwarded::Done(index) => return Ok(index),
                Forwarded::Failed(error) => return Err(error),
                Forwarded::NotLeader if Instant::now() >= deadline => {
                    return Err(KvError::NoLeader);
                }
                Forwarded::NotLeader => self.leadership.reconsider(leader, self.pause()).await,
            }
        }
    }

    /// As the leader: makes sure that a majority follows, now.
    pub async fn confirm_here(&self) -> Forwarded<u64> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Forwarded::Done(linearizer.read_log_id().index()),
            Err(openraft::errors::RaftError::APIError(_)) => Forwarded::NotLeader,
            Err(openraft::errors::RaftError::Fatal(_)) => Forwarded::Failed(KvError::Stopped),
        }
    }
}

//! Proposals: many clients' commands become one log entry.
//!
//! While one entry is on its way to the disk the next is filled with whatever arrives. Two
//! are on their way at most: one being written, one being applied. So a lone client waits
//! for one sync, and many share it. A follower's batch goes to the leader as it is, and there
//! shares an entry with what the leader's own clients and other followers want.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Inner;
use super::forward::TIMEOUT;
use crate::codec::DecodeError;
use crate::command::{Answer, Command, Proposal};
use crate::kv::{Alarm, KvError};
use crate::raft::network::forward::{Applied, Forwarded};

/// Commands that may wait. Each belongs to a caller that waits too, so this bounds memory
/// only against a flood; more callers wait for a place.
const QUEUE: usize = 4096;
/// Commands in one entry.
const MAX_COMMANDS: usize = 1024;
/// Bytes in one entry, unless a single command is larger.
const MAX_BYTES: usize = 1 << 20;
const IN_FLIGHT: usize = 2;

pub(crate) struct Pending {
    /// As they stand in the entry, one behind the other.
    commands: Bytes,
    count: usize,
    takes_space: bool,
    reply: Reply,
    deadline: Instant,
}

/// Who waits.
enum Reply {
    /// With one command.
    Client(oneshot::Sender<Answer>),
    /// Another member, with its clients' commands. They are not passed on a second time.
    Member(oneshot::Sender<Forwarded<Applied>>),
}

impl Reply {
    fn is_closed(&self) -> bool {
        match self {
            Reply::Client(reply) => reply.is_closed(),
            Reply::Member(reply) => reply.is_closed(),
        }
    }

    /// Who has gone away does not want to know.
    fn fail(self, error: &KvError) {
        match self {
            Reply::Client(reply) => drop(reply.send(Err(error.clone()))),
            Reply::Member(reply) => drop(reply.send(Forwarded::Failed(error.clone()))),
        }
    }

    /// Takes as many answers as there were commands.
    fn answer(self, index: u64, count: usize, answers: &mut std::vec::IntoIter<Answer>) {
        match self {
            Reply::Client(reply) => {
                let _ = reply.send(answers.next().unwrap_or(Err(KvError::Stopped)));
            }
            Reply::Member(reply) => {
                let answers = answers.take(count).collect();
                let _ = reply.send(Forwarded::Done(Applied { index, answers }));
            }
        }
    }
}

#[derive(Clone)]
pub(crate) struct Proposer {
    queue: mpsc::Sender<Pending>,
}

impl Proposer {
    pub fn new() -> (Self, mpsc::Receiver<Pending>) {
        let (queue, pending) = mpsc::channel(QUEUE);
        (Self { queue }, pending)
    }

    /// Returns when the command has been applied, after it is on a majority's disks.
    pub async fn propose(&self, command: &Command, limit_bytes: usize) -> Answer {
        let takes_space = command.takes_space();
        let command = command.encode();
        if command.len() > limit_bytes {
            return Err(KvError::TooLarge { bytes: command.len(), limit_bytes });
        }
        let (reply, answer) = oneshot::channel();
        let pending = Pending {
            commands: command.into(),
            count: 1,
            takes_space,
            reply: Reply::Client(reply),
            deadline: Instant::now() + TIMEOUT,
        };
        self.queue.send(pending).await.map_err(|_| KvError::Stopped)?;
        // In time, because its entry has a deadline, and so have those it waits for.
        answer.await.unwrap_or(Err(KvError::Stopped))
    }

    /// As the leader: the same for what another member's clients want.
    pub async fn propose_for_member(
        &self,
        proposal: Proposal,
    ) -> Result<Forwarded<Applied>, DecodeError> {
        // What is in the log must be readable on every member.
        let takes_space = proposal.decode()?.iter().any(Command::takes_space);
        let (count, commands) = proposal.split()?;
        let (reply, answer) = oneshot::channel();
        let reply = Reply::Member(reply);
        let deadline = Instant::now() + TIMEOUT;
        let pending = Pending { commands, count, takes_space, reply, deadline };
        if self.queue.send(pending).await.is_err() {
            return Ok(Forwarded::NotLeader);
        }
        Ok(answer.await.unwrap_or(Forwarded::Failed(KvError::Stopped)))
    }
}

/// Runs until every proposer is gone and everything is answered.
pub(super) async fn run(inner: Arc<Inner>, mut queue: mpsc::Receiver<Pending>) {
    let mut in_flight = FuturesUnordered::new();
    let mut waiting: Vec<Pending> = Vec::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = in_flight.next() => {}
            taken = queue.recv_many(&mut waiting, MAX_COMMANDS), if in_flight.len() < IN_FLIGHT => {
                if taken == 0 {
                    break;
                }
                // What nobody waits for any more is not begun.
                waiting.retain(|pending| !pending.reply.is_closed());
                while !waiting.is_empty() {
                    let batch = take_batch(&mut waiting);
                    in_flight.push(submit(inner.clone(), batch));
                }
            }
        }
    }
    while in_flight.next().await.is_some() {}
}

fn take_batch(waiting: &mut Vec<Pending>) -> Vec<Pending> {
    let mut bytes = 0;
    let count = waiting
        .iter()
        .take_while(|pending| {
            let first = bytes == 0;
            bytes += pending.commands.len();
            first || bytes <= MAX_BYTES
        })
        .count();
    waiting.drain(..count).collect()
}

/// On a full disk a batch is refused as a whole, before it has any effect. What frees space
/// is not to share the fate of its neighbours.
async fn submit(inner: Arc<Inner>, batch: Vec<Pending>) {
    let mixed = batch.iter().any(|pending| pending.takes_space)
        && batch.iter().any(|pending| !pending.takes_space);
    let Some((batch, outcome)) = write(&inner, batch).await else { return };
    match outcome {
        Err(refused @ (KvError::NoSpace { .. } | KvError::Alarmed(Alarm::NoSpace))) if mixed => {
            let (take, free) = batch.into_iter().partition(|pending| pending.takes_space);
            answer(take, Err(refused));
            if let Some((free, outcome)) = write(&inner, free).await {
                answer(free, outcome);
            }
        }
        outcome => answer(batch, outcome),
    }
}

type Written = (Vec<Pending>, Result<Applied, KvError>);

/// Nothing comes back if all are answered already.
async fn write(inner: &Inner, mut batch: Vec<Pending>) -> Option<Written> {
    let is_asked = |pending: &Pending| matches!(pending.reply, Reply::Member(_));
    if batch.iter().any(is_asked) {
        match inner.write_here(join(&batch), deadline(&batch)).await {
            Forwarded::Done(applied) => return Some((batch, Ok(applied))),
            Forwarded::Failed(error) => return Some((batch, Err(error))),
            // The others ask whom they take for the leader next; this member's own go there too.
            Forwarded::NotLeader => {
                for pending in batch.extract_if(.., |pending| is_asked(pending)) {
                    if let Reply::Member(reply) = pending.reply {
                        let _ = reply.send(Forwarded::NotLeader);
                    }
                }
            }
        }
    }
    if batch.is_empty() {
        return None;
    }
    let outcome = inner.write(join(&batch), deadline(&batch)).await;
    Some((batch, outcome))
}

fn join(batch: &[Pending]) -> Proposal {
    let count = batch.iter().map(|pending| pending.count).sum();
    Proposal::join(count, batch.iter().map(|pending| &pending.commands[..]))
}

fn deadline(batch: &[Pending]) -> Instant {
    let deadline = batch.iter().map(|pending| pending.deadline).min();
    deadline.unwrap_or_else(Instant::now)
}

fn answer(batch: Vec<Pending>, outcome: Result<Applied, KvError>) {
    match outcome {
        Ok(Applied { index, answers }) => {
            let mut answers = answers.into_iter();
            for pending in batch {
                pending.reply.answer(index, pending.count, &mut answers);
            }
        }
        Err(error) => batch.into_iter().for_each(|pending| pending.reply.fail(&error)),
    }
}

//! Proposals: many clients' commands become one log entry.
//!
//! While one entry is on its way to the disk the next is filled with whatever arrives. Two
//! are on their way at most: one being written, one being applied. So a lone client waits
//! for one sync, and many share it. A follower's batch goes to the leader as it is.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Inner;
use super::forward::TIMEOUT;
use crate::command::{Answer, Command, Proposal};
use crate::kv::{Alarm, KvError};

/// Commands that may wait. Each belongs to a caller that waits too, so this bounds memory
/// only against a flood; more callers wait for a place.
const QUEUE: usize = 4096;
/// Commands in one entry.
const MAX_COMMANDS: usize = 1024;
/// Bytes in one entry, unless a single command is larger.
const MAX_BYTES: usize = 1 << 20;
const IN_FLIGHT: usize = 2;

pub(super) struct Pending {
    command: Vec<u8>,
    takes_space: bool,
    reply: oneshot::Sender<Answer>,
    deadline: Instant,
}

#[derive(Clone)]
pub(super) struct Proposer {
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
        let deadline = Instant::now() + TIMEOUT;
        let pending = Pending { command, takes_space, reply, deadline };
        self.queue.send(pending).await.map_err(|_| KvError::Stopped)?;
        // In time, because its entry has a deadline, and so have those it waits for.
        answer.await.unwrap_or(Err(KvError::Stopped))
    }
}

type Reply = (Vec<oneshot::Sender<Answer>>, Result<Vec<Answer>, KvError>);

/// Runs until every proposer is gone and everything is answered.
pub(super) async fn run(inner: Arc<Inner>, mut queue: mpsc::Receiver<Pending>) {
    let mut in_flight = FuturesUnordered::new();
    let mut waiting: Vec<Pending> = Vec::new();
    loop {
        tokio::select! {
            biased;
            Some(replies) = in_flight.next() => answer_all(replies),
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
    while let Some(replies) = in_flight.next().await {
        answer_all(replies);
    }
}

fn take_batch(waiting: &mut Vec<Pending>) -> Vec<Pending> {
    let mut bytes = 0;
    let count = waiting
        .iter()
        .take_while(|pending| {
            let first = bytes == 0;
            bytes += pending.command.len();
            first || bytes <= MAX_BYTES
        })
        .count();
    waiting.drain(..count).collect()
}

/// On a full disk a batch is refused as a whole, before it has any effect. What frees space
/// is not to share the fate of its neighbours.
async fn submit(inner: Arc<Inner>, batch: Vec<Pending>) -> Vec<Reply> {
    let mixed = batch.iter().any(|pending| pending.takes_space)
        && batch.iter().any(|pending| !pending.takes_space);
    if !mixed {
        return vec![write(&inner, batch).await];
    }
    let refused = match inner.write(join(&batch), deadline(&batch)).await {
        Err(refused @ (KvError::NoSpace { .. } | KvError::Alarmed(Alarm::NoSpace))) => refused,
        outcome => return vec![(replies(batch), outcome)],
    };
    let (take, free): (Vec<_>, Vec<_>) = batch.into_iter().partition(|pending| pending.takes_space);
    vec![(replies(take), Err(refused)), write(&inner, free).await]
}

async fn write(inner: &Inner, batch: Vec<Pending>) -> Reply {
    let outcome = inner.write(join(&batch), deadline(&batch)).await;
    (replies(batch), outcome)
}

fn join(batch: &[Pending]) -> Proposal {
    let commands = batch.iter().map(|pending| pending.command.as_slice());
    Proposal::join(batch.len(), commands)
}

fn deadline(batch: &[Pending]) -> Instant {
    let deadline = batch.iter().map(|pending| pending.deadline).min();
    deadline.unwrap_or_else(Instant::now)
}

fn replies(batch: Vec<Pending>) -> Vec<oneshot::Sender<Answer>> {
    batch.into_iter().map(|pending| pending.reply).collect()
}

fn answer_all(replies: Vec<Reply>) {
    replies.into_iter().for_each(answer);
}

fn answer((replies, outcome): Reply) {
    match outcome {
        Ok(answers) => {
            for (reply, answer) in replies.into_iter().zip(answers) {
                // Who has gone away does not want to know.
                let _ = reply.send(answer);
            }
        }
        Err(error) => {
            for reply in replies {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }
}

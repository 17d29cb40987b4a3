//! Proposals: many clients' commands become one log entry.
//!
//! While one entry is on its way to the disk the next is filled with whatever arrives. Two
//! are on their way at most: one being written, one being applied. So a lone client waits
//! for one sync, and many share it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use tokio::sync::{mpsc, oneshot};

use super::Inner;
use crate::command::{Answer, Command, Proposal};
use crate::kv::KvError;
use crate::raft::types::TypeConfig;

/// Commands that may wait. Each belongs to a caller that waits too, so this bounds memory
/// only against a flood; more callers wait for a place.
const QUEUE: usize = 4096;
/// Commands in one entry.
const MAX_COMMANDS: usize = 1024;
/// Bytes in one entry, unless a single command is larger.
const MAX_BYTES: usize = 1 << 20;
const IN_FLIGHT: usize = 2;
/// As long as etcd waits before it says that the outcome is not known.
const TIMEOUT: Duration = Duration::from_secs(7);

pub(super) struct Pending {
    command: Vec<u8>,
    reply: oneshot::Sender<Answer>,
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
        let command = command.encode();
        if command.len() > limit_bytes {
            return Err(KvError::TooLarge { bytes: command.len(), limit_bytes });
        }
        let (reply, answer) = oneshot::channel();
        let pending = Pending { command, reply };
        self.queue.send(pending).await.map_err(|_| KvError::Stopped)?;
        match tokio::time::timeout(TIMEOUT, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(KvError::Stopped),
            Err(_) => Err(KvError::Timeout),
        }
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
            Some(reply) = in_flight.next() => answer(reply),
            taken = queue.recv_many(&mut waiting, MAX_COMMANDS), if in_flight.len() < IN_FLIGHT => {
                if taken == 0 {
                    break;
                }
                while !waiting.is_empty() {
                    let batch = take_batch(&mut waiting);
                    in_flight.push(submit(inner.clone(), batch));
                }
            }
        }
    }
    while let Some(reply) = in_flight.next().await {
        answer(reply);
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

async fn submit(inner: Arc<Inner>, batch: Vec<Pending>) -> Reply {
    let commands = batch.iter().map(|pending| pending.command.as_slice());
    let proposal = Proposal::join(batch.len(), commands);
    let replies = batch.into_iter().map(|pending| pending.reply).collect();
    (replies, write(&inner, proposal).await)
}

async fn write(inner: &Inner, proposal: Proposal) -> Result<Vec<Answer>, KvError> {
    inner.check_space(proposal.0.len() as u64)?;
    let (responder, response) =
        ProgressResponder::<TypeConfig, ClientWriteResult<TypeConfig>>::complete_only();
    inner.raft.client_write_ff(proposal, Some(responder)).await.map_err(|error| stopped(&error))?;
    match response.await {
        Ok(Ok(response)) => Ok(response.data),
        Ok(Err(ClientWriteError::ForwardToLeader(_))) => Err(KvError::NoLeader),
        Ok(Err(error)) => Err(KvError::Internal(error.to_string())),
        Err(_) => Err(KvError::Stopped),
    }
}

fn stopped(error: &impl std::fmt::Display) -> KvError {
    tracing::debug!(%error, "a write was refused");
    KvError::Stopped
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

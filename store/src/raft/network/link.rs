//! Calls to one member over one stream, many at a time.
//!
//! ```text
//! call --id, bytes--> queue ==stream==> member
//! call <--waiting[id]-- reader <==stream== member
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use skiff_proto::grpc::raft::{self as wire, Answer, Call};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::grpc::{Client, chain};
use super::transport::Method;

/// Calls that may wait for the stream; more callers wait for a place.
const QUEUE: usize = 64;

/// Why a call has no answer.
pub enum Fault {
    /// It was never put on the stream.
    NotSent(String),
    Lost(String),
}

#[derive(Clone)]
enum State {
    Opening,
    Open,
    Failed(String),
}

pub struct Link {
    queue: mpsc::Sender<Call>,
    state: watch::Receiver<State>,
    waiting: Arc<Mutex<Waiting>>,
    reader: JoinHandle<()>,
}

#[derive(Default)]
struct Waiting {
    next_id: u64,
    calls: HashMap<u64, oneshot::Sender<Bytes>>,
    /// Why the stream ended.
    ended: Option<String>,
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Begins to open the stream, on the runtime where the sockets are.
    pub fn open(client: Client, sockets: &Handle) -> Self {
        let (queue, calls) = mpsc::channel(QUEUE);
        let (tell, state) = watch::channel(State::Opening);
        let waiting = Arc::<Mutex<Waiting>>::default();
        let reader = sockets.spawn(run(client, calls, tell, waiting.clone()));
        Self { queue, state, waiting, reader }
    }

    /// Nothing can be sent on it any more.
    pub fn is_over(&self) -> bool {
        self.reader.is_finished()
    }

    /// One call and its answer. `sent` is set once it may have arrived; so a caller that gives
    /// up knows too.
    pub async fn call(&self, method: Method, body: Bytes, sent: &mut bool) -> Result<Bytes, Fault> {
        let not_sent = |cause: &str| Fault::NotSent(cause.to_owned());
        let mut state = self.state.clone();
        let state = state.wait_for(|state| !matches!(state, State::Opening)).await;
        match state.map(|state| state.clone()) {
            Ok(State::Failed(cause)) => return Err(not_sent(&cause)),
            Ok(State::Open | State::Opening) => {}
            Err(_) => return Err(not_sent("the connection was given up")),
        }
        let (tell, answer) = oneshot::channel();
        let id = {
            let mut waiting = lock(&self.waiting);
            if let Some(cause) = &waiting.ended {
                return Err(not_sent(cause));
            }
            let id = waiting.next_id;
            waiting.next_id += 1;
            waiting.calls.insert(id, tell);
            id
        };
        let _forget = Forget { id, waiting: &self.waiting };
        let call = Call { id, method: number(method).into(), body };
        let place = self.queue.reserve().await;
        place.map_err(|_| not_sent("the connection has ended"))?.send(call);
        *sent = true;
        answer.await.map_err(|_| {
            let cause = lock(&self.waiting).ended.clone();
            Fault::Lost(cause.unwrap_or_else(|| "the connection has ended".to_owned()))
        })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Nobody waits for this call any more.
struct Forget<'a> {
    id: u64,
    waiting: &'a Mutex<Waiting>,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.waiting).calls.remove(&self.id);
    }
}

async fn run(
    mut client: Client,
    calls: mpsc::Receiver<Call>,
    state: watch::Sender<State>,
    waiting: Arc<Mutex<Waiting>>,
) {
    let answers = match client.exchange(ReceiverStream::new(calls)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => {
            state.send_replace(State::Failed(chain(&status)));
            return;
        }
    };
    state.send_replace(State::Open);
    let cause = match read(answers, &waiting).await {
        Ok(()) => "the other ended the connection".to_owned(),
        Err(status) => chain(&status),
    };
    let mut waiting = lock(&waiting);
    waiting.ended = Some(cause);
    // Whoever waits hears of it by that.
    waiting.calls.clear();
}

async fn read(mut answers: Streaming<Answer>, waiting: &Mutex<Waiting>) -> Result<(), Status> {
    while let Some(Answer { id, body }) = answers.message().await? {
        if let Some(call) = lock(waiting).calls.remove(&id) {
            // Who has gone away does not want to know.
            let _ = call.send(body);
        }
    }
    Ok(())
}

fn number(method: Method) -> wire::Method {
    match method {
        Method::AppendEntries => wire::Method::AppendEntries,
        Method::Heartbeat => wire::Method::Heartbeat,
        Method::Vote => wire::Method::Vote,
        Method::TransferLeader => wire::Method::TransferLeader,
        Method::Propose => wire::Method::Propose,
        Method::ReadIndex => wire::Method::ReadIndex,
        Method::Lease => wire::Method::Lease,
        Method::Member => wire::Method::ChangeMember,
        Method::Members => wire::Method::Members,
    }
}

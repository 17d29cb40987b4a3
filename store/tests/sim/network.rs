//! The wire between members: late, out of order, doubled, lost, one way or not at all.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use skiff_store::raft::network::envelope::{Envelope, decode_answer};
use skiff_store::raft::network::messages;
use skiff_store::snapshot::SnapshotFile;
use skiff_store::{CallError, Method, Receiver, Target, Transport};
use tokio::sync::oneshot;

use super::random::{Digest, Random};

/// Index of a member.
pub type At = usize;

/// How one direction between two members behaves.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    pub blocked: bool,
    pub drop_percent: u64,
    pub min_delay_ms: u64,
    pub max_delay_ms: u64,
}

pub const GOOD: Link = Link { blocked: false, drop_percent: 0, min_delay_ms: 1, max_delay_ms: 3 };

type Reply = oneshot::Sender<Result<Bytes, CallError>>;

enum Request {
    Call(Method, Bytes),
    /// Header, bytes, and how many of them arrive.
    Snapshot(Bytes, Bytes, usize),
}

enum Delivery {
    Request { from: At, to: At, request: Request, reply: Option<Reply> },
    Answer { reply: Reply, answer: Result<Bytes, CallError> },
}

/// Where a member that runs takes its messages.
#[derive(Clone)]
pub struct Door {
    pub handle: tokio::runtime::Handle,
    pub receiver: Receiver,
}

pub struct Wire {
    pub now_ms: u64,
    random: Random,
    pub links: Vec<Vec<Link>>,
    queue: BTreeMap<(u64, u64), Delivery>,
    next: u64,
    pub doors: Vec<Option<Door>>,
    pub duplicate_percent: u64,
    pub trace: Digest,
    pub delivered: u64,
    /// Of each member: the newest term in which it has promised its vote to somebody.
    pub granted_terms: Vec<u64>,
}

#[derive(Clone)]
pub struct Network(Arc<Mutex<Wire>>);

impl Network {
    pub fn new(members: usize, random: Random) -> Self {
        Self(Arc::new(Mutex::new(Wire {
            now_ms: 0,
            random,
            links: vec![vec![GOOD; members]; members],
            queue: BTreeMap::new(),
            next: 0,
            doors: vec![None; members],
            duplicate_percent: 0,
            trace: Digest::default(),
            delivered: 0,
            granted_terms: vec![0; members],
        })))
    }

    pub fn wire(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().expect("the simulation has one thread")
    }

    pub fn transport(&self, from: At) -> Arc<dyn Transport> {
        Arc::new(SimTransport { network: self.clone(), from })
    }

    /// Hands over everything that is due.
    pub fn deliver(&self, now_ms: u64) {
        self.wire().now_ms = now_ms;
        loop {
            let delivery = {
                let mut wire = self.wire();
                let Some(entry) = wire.queue.first_entry() else { return };
                if entry.key().0 > now_ms {
                    return;
                }
                entry.remove()
            };
            match delivery {
                Delivery::Answer { reply, answer } => {
                    // Who has given up does not listen.
                    let _ = reply.send(answer);
                }
                Delivery::Request { from, to, request, reply } => {
                    self.hand_over(from, to, request, reply);
                }
            }
        }
    }

    fn hand_over(&self, from: At, to: At, request: Request, reply: Option<Reply>) {
        let door = {
            let mut wire = self.wire();
            wire.delivered += 1;
            let now_ms = wire.now_ms;
            wire.trace.number(now_ms << 8 | (from as u64) << 4 | to as u64);
            if let Request::Call(_, body) = &request {
                wire.trace.add(body);
            }
            wire.doors[to].clone()
        };
        let Some(door) = door else {
            if let Some(reply) = reply {
                let cause = "connection refused".to_owned();
                let refused = Err(CallError::NotSent { to: to.to_string(), cause });
                self.wire().send_answer(to, from, reply, refused);
            }
            return;
        };
        let network = self.clone();
        let granted = asked_for_term(&request);
        door.handle.spawn(async move {
            let answer = match request {
                Request::Call(method, body) => door.receiver.answer(method, body).await,
                Request::Snapshot(header, bytes, whole) => {
                    let chunks = bytes.chunks(1024).map(Bytes::copy_from_slice);
                    let arrives = bytes.len().div_ceil(1024) * whole / 100;
                    let cut = (whole < 100).then_some(Err("the connection broke"));
                    let stream = chunks.take(arrives).map(Ok).chain(cut);
                    let stream: Vec<Result<Bytes, &str>> = stream.collect();
                    door.receiver.snapshot(header, futures_util::stream::iter(stream)).await
                }
            };
            if let Some(term) = granted {
                let term_of_answer = granted_term(answer.clone(), term);
                let mut wire = network.wire();
                wire.granted_terms[to] = wire.granted_terms[to].max(term_of_answer);
            }
            if let Some(reply) = reply {
                network.wire().send_answer(to, from, reply, Ok(answer));
            }
        });
    }
}

/// Of a request for a vote, and not just the question what would be.
fn asked_for_term(request: &Request) -> Option<u64> {
    let Request::Call(Method::Vote, body) = request else { return None };
    let (_, body) = Envelope::unwrap(body.clone()).ok()?;
    let (request, pre) = messages::decode_vote_request(body).ok()?;
    (!pre).then_some(request.vote.leader_id.term)
}

/// The term, if the vote was granted; otherwise 0.
fn granted_term(answer: Bytes, term: u64) -> u64 {
    let Ok(Ok(body)) = decode_answer(answer) else { return 0 };
    messages::decode_voted(body).map_or(0, |voted| if voted.vote_granted { term } else { 0 })
}

impl Wire {
    /// When a message arrives; `None`: never.
    fn arrival(&mut self, from: At, to: At, bytes: usize) -> Option<u64> {
        let link = self.links[from][to];
        if link.blocked || self.random.percent(link.drop_percent) {
            return None;
        }
        let delay_ms = self.random.between(link.min_delay_ms, link.max_delay_ms);
        Some(self.now_ms + delay_ms + bytes as u64 / 10_000)
    }

    fn push(&mut self, at: u64, delivery: Delivery) {
        self.next += 1;
        self.queue.insert((at, self.next), delivery);
    }

    fn send_answer(&mut self, from: At, to: At, reply: Reply, answer: Result<Bytes, CallError>) {
        let bytes = answer.as_ref().map_or(0, Bytes::len);
        match self.arrival(from, to, bytes) {
            Some(at) => self.push(at, Delivery::Answer { reply, answer }),
            None => self.lose(reply),
        }
    }

    /// The caller hears nothing until its own patience ends.
    fn lose(&mut self, reply: Reply) {
        let cause = "no answer".to_owned();
        let answer = Err(CallError::Lost { to: String::new(), cause });
        let at = self.now_ms + 600_000;
        self.push(at, Delivery::Answer { reply, answer });
    }

    fn send(&mut self, from: At, to: At, request: Request, reply: Reply) {
        let bytes = match &request {
            Request::Call(_, body) => body.len(),
            Request::Snapshot(_, bytes, _) => bytes.len(),
        };
        if let Request::Call(method, body) = &request
            && may_come_twice(*method)
            && self.random.percent(self.duplicate_percent)
            && let Some(at) = self.arrival(from, to, bytes)
        {
            let request = Request::Call(*method, body.clone());
            self.push(at, Delivery::Request { from, to, request, reply: None });
        }
        match self.arrival(from, to, bytes) {
            Some(at) => {
                self.push(at, Delivery::Request { from, to, request, reply: Some(reply) });
            }
            None => self.lose(reply),
        }
    }
}

/// Raft repeats these itself and bears them twice. The others come once at most: the port says
/// that a transport never repeats a call.
fn may_come_twice(method: Method) -> bool {
    use Method::*;
    matches!(method, AppendEntries | Heartbeat | Vote | ReadIndex | Members)
}

#[derive(Clone)]
struct SimTransport {
    network: Network,
    from: At,
}

impl std::fmt::Debug for SimTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimTransport({})", self.from)
    }
}

/// Members are called by the number in their URL.
pub fn url(member: At) -> String {
    format!("http://member-{member}:2380")
}

fn member_of(target: &Target) -> At {
    let url = target.urls.first().expect("members have URLs");
    let digits = url.trim_start_matches("http://member-").trim_end_matches(":2380");
    digits.parse().expect("a member's number")
}

impl SimTransport {
    async fn ask(&self, to: &Target, request: Request, patience: Duration) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.network.wire().send(self.from, member_of(to), request, reply);
        let lost = |cause: &str| CallError::Lost { to: to.to_string(), cause: cause.to_owned() };
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(lost("the connection was closed")),
            Err(_) => Err(lost("timed out")),
        }
    }
}

type Answer = Result<Bytes, CallError>;

#[async_trait]
impl Transport for SimTransport {
    async fn call(&self, to: &Target, method: Method, body: Bytes, timeout: Duration) -> Answer {
        self.ask(to, Request::Call(method, body), timeout).await
    }

    async fn send_snapshot(&self, to: &Target, header: Bytes, file: SnapshotFile) -> Answer {
        let mut bytes = Vec::new();
        let lost = |cause: String| CallError::Lost { to: to.to_string(), cause };
        let mut input = file.open().map_err(|error| lost(error.to_string()))?;
        input.read_to_end(&mut bytes).map_err(|error| lost(error.to_string()))?;
        let whole = {
            let mut wire = self.network.wire();
            let breaks = wire.links[self.from][member_of(to)].drop_percent > 0;
            if breaks && wire.random.percent(50) { wire.random.below(100) as usize } else { 100 }
        };
        let request = Request::Snapshot(header, bytes.into(), whole);
        // When the real transport's pings find that it is lost.
        self.ask(to, request, Duration::from_secs(10)).await
    }
}

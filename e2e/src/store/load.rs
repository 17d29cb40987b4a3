//! Concurrent clients of a store, and what they may see of each other.
//!
//! Every writer counts up in a key of its own, so what a read may return is known: no less
//! than what was acknowledged before the read began, no more than what was tried before it
//! ended. After a write whose outcome is not known a writer goes on with a new key, because
//! the lost one may still arrive. A watcher per member must see each event once, in order,
//! and in the end every acknowledged write.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use etcd_client::{Client, EventType, GetOptions, WatchOptions};

use super::Member;

const WRITERS: usize = 2;
const READERS: usize = 1;
/// Between two calls of a client: a load, but a bounded one.
const PAUSE: Duration = Duration::from_millis(4);
const PREFIX: &str = "load/";

#[derive(Default)]
struct Register {
    acked: i64,
    tried: i64,
}

#[derive(Default)]
pub struct Seen {
    registers: Mutex<BTreeMap<String, Register>>,
    /// The newest revision that was acknowledged to anybody.
    revision: AtomicI64,
    stop: AtomicBool,
    /// Writers that may still be told of a success.
    writing: AtomicUsize,
    acks: Mutex<Vec<Instant>>,
    reads: AtomicI64,
    unknown: AtomicI64,
    faults: Mutex<Vec<String>>,
}

impl Seen {
    /// No further write will be acknowledged.
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire) && self.writing.load(Ordering::Acquire) == 0
    }
}

/// Clients of every member, running.
pub struct Load {
    seen: Arc<Seen>,
    threads: Vec<std::thread::JoinHandle<Events>>,
}

/// What a watcher saw: the value of every put, by key.
type Events = BTreeMap<String, Vec<i64>>;

pub struct Report {
    pub writes: usize,
    pub reads: i64,
    pub unknown: i64,
    acks: Vec<Instant>,
}

impl Report {
    /// The longest time without an acknowledged write after `from`, until `to`.
    pub fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let mut last = from;
        let mut longest = Duration::ZERO;
        for at in self.acks.iter().filter(|at| **at > from && **at < to).chain([&to]) {
            longest = longest.max(at.duration_since(last));
            last = *at;
        }
        longest
    }
}

impl Load {
    /// Each member has clients of its own, which stay with it.
    pub fn start(members: &[Member]) -> Self {
        let writing = AtomicUsize::new(members.len() * WRITERS);
        let seen = Arc::new(Seen { writing, ..Seen::default() });
        let spawn = |member: &Member| {
            let (seen, url) = (seen.clone(), member.client_url.clone());
            let (name, namespace) = (member.name.clone(), member.namespace.clone());
            std::thread::spawn(move || {
                if let Some(namespace) = namespace {
                    enter(&namespace);
                }
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(clients(seen, name, url))
            })
        };
        let threads = members.iter().map(spawn).collect();
        Self { seen, threads }
    }

    pub fn writes(&self) -> usize {
        self.seen.acks.lock().expect("acks").len()
    }

    /// Waits for so many more acknowledged writes.
    pub fn wait_writes(&self, more: usize) {
        let from = self.writes();
        crate::eventually("writes go on", Duration::from_secs(60), || {
            let done = self.writes() - from;
            if done >= more { Ok(()) } else { Err(format!("{done} of {more}")) }
        });
    }

    /// Stops the clients, waits until the watchers have seen all, and checks.
    pub fn finish(self) -> Report {
        self.seen.stop.store(true, Ordering::Release);
        let watched: Vec<_> =
            self.threads.into_iter().map(|thread| thread.join().expect("clients")).collect();
        let mut faults = std::mem::take(&mut *self.seen.faults.lock().expect("faults"));
        let registers = self.seen.registers.lock().expect("registers");
        for (at, events) in watched.iter().enumerate() {
            for (key, register) in registers.iter() {
                let got = events.get(key).map_or(&[][..], |values| values);
                let whole: Vec<_> = (1..=got.len() as i64).collect();
                if got != whole || (got.len() as i64) < register.acked {
                    faults.push(format!(
                        "watch of member {}: {key}: acknowledged up to {}, events {got:?}",
                        at + 1,
                        register.acked
                    ));
                }
            }
        }
        assert!(
            faults.is_empty(),
            "{} faults, first: {:#?}",
            faults.len(),
            &faults[..faults.len().min(5)]
        );
        let mut acks = std::mem::take(&mut *self.seen.acks.lock().expect("acks"));
        acks.sort();
        Report {
            writes: acks.len(),
            reads: self.seen.reads.load(Ordering::Relaxed),
            unknown: self.seen.unknown.load(Ordering::Relaxed),
            acks,
        }
    }
}

/// Sockets that this thread opens from now on are of the namespace.
fn enter(namespace: &str) {
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).expect("the namespace");
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("enter the namespace");
}

async fn clients(seen: Arc<Seen>, name: String, url: String) -> Events {
    let local = tokio::task::LocalSet::new();
    for at in 0..WRITERS {
        let (seen, url, base) = (seen.clone(), url.clone(), format!("{PREFIX}{name}-{at}"));
        local.spawn_local(async move {
            writer(seen.clone(), base, url).await;
            seen.writing.fetch_sub(1, Ordering::AcqRel);
        });
    }
    for _ in 0..READERS {
        local.spawn_local(reader(seen.clone(), url.clone()));
    }
    local.run_until(watcher(seen, name, url)).await
}

async fn connect(seen: &Seen, url: &str) -> Option<Client> {
    while !seen.stop.load(Ordering::Acquire) {
        if let Ok(client) = Client::connect([url], None).await {
            return Some(client);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

/// As long as a client waits before it counts the outcome as unknown.
const CALL: Duration = Duration::from_secs(10);

async fn writer(seen: Arc<Seen>, base: String, url: String) {
    let mut epoch = 0;
    'epoch: while let Some(mut client) = connect(&seen, &url).await {
        epoch += 1;
        let key = format!("{base}/{epoch}");
        let mut next = 1;
        while !seen.stop.load(Ordering::Acquire) {
            let register = |set: &dyn Fn(&mut Register)| {
                set(seen.registers.lock().expect("registers").entry(key.clone()).or_default());
            };
            register(&|register| register.tried = next);
            let put = client.put(key.as_str(), next.to_string(), None);
            match tokio::time::timeout(CALL, put).await {
                Ok(Ok(answer)) => {
                    let revision = answer.header().map_or(0, |header| header.revision());
                    seen.revision.fetch_max(revision, Ordering::AcqRel);
                    register(&|register| register.acked = next);
                    seen.acks.lock().expect("acks").push(Instant::now());
                    next += 1;
                }
                _ => {
                    seen.unknown.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(PAUSE).await;
                    continue 'epoch;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        return;
    }
}

async fn reader(seen: Arc<Seen>, url: String) {
    let Some(mut client) = connect(&seen, &url).await else { return };
    let mut turn = 0;
    while !seen.stop.load(Ordering::Acquire) {
        turn += 1;
        tokio::time::sleep(PAUSE).await;
        let picked = {
            let registers = seen.registers.lock().expect("registers");
            let at = turn % registers.len().max(1);
            registers.iter().nth(at).map(|(key, register)| (key.clone(), register.acked))
        };
        let Some((key, acked)) = picked else { continue };
        let floor = seen.revision.load(Ordering::Acquire);
        let Ok(Ok(answer)) = tokio::time::timeout(CALL, client.get(key.as_str(), None)).await
        else {
            continue;
        };
        let tried = seen.registers.lock().expect("registers")[&key].tried;
        let value = answer.kvs().first().and_then(|kv| kv.value_str().ok()?.parse().ok());
        let value: i64 = value.unwrap_or(0);
        let revision = answer.header().map_or(0, |header| header.revision());
        if value < acked || value > tried || revision < floor {
            seen.faults.lock().expect("faults").push(format!(
                "read of {key} at {url}: {value} at revision {revision}; acknowledged before: \
                 {acked}, at revision {floor}; tried: {tried}"
            ));
        }
        seen.reads.fetch_add(1, Ordering::Relaxed);
    }
}

/// Until the load has stopped and everything acknowledged must have come.
async fn watcher(seen: Arc<Seen>, name: String, url: String) -> Events {
    let mut events = Events::new();
    let mut next = 1;
    let mut deadline = None;
    loop {
        if seen.stop.load(Ordering::Acquire) {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + super::PATIENCE);
            let revision = seen.revision.load(Ordering::Acquire);
            if (seen.is_over() && next > revision) || Instant::now() > deadline {
                return events;
            }
        }
        let follow = follow(&seen, &name, &url, &mut next, &mut events);
        // The watch that stands when the load stops may wait for an event that never comes.
        let _ = tokio::time::timeout(Duration::from_secs(2), follow).await;
    }
}

/// One watch, from the next revision on, until it breaks.
async fn follow(
    seen: &Seen,
    name: &str,
    url: &str,
    next: &mut i64,
    events: &mut Events,
) -> Option<()> {
    let mut client = Client::connect([url], None).await.ok()?;
    // A linearizable read, so that an empty watch is known to be up to date.
    let options = GetOptions::new().with_prefix().with_count_only();
    let now = client.get(PREFIX, Some(options)).await.ok()?.header()?.revision();
    let options = WatchOptions::new().with_prefix().with_start_revision(*next);
    let mut stream = client.watch(PREFIX, Some(options)).await.ok()?;
    while let Ok(Some(answer)) = stream.message().await {
        for event in answer.events() {
            let (Some(kv), EventType::Put) = (event.kv(), event.event_type()) else { continue };
            let revision = kv.mod_revision();
            let key = kv.key_str().unwrap_or("?").to_owned();
            if revision < *next {
                let text = format!("watch of {name}: {key} at {revision} comes after {next}");
                seen.faults.lock().expect("faults").push(text);
            }
            let value = kv.value_str().ok().and_then(|value| value.parse().ok()).unwrap_or(-1);
            events.entry(key).or_default().push(value);
            *next = revision + 1;
        }
        if seen.is_over() && *next > now.max(seen.revision.load(Ordering::Acquire)) {
            break;
        }
    }
    Some(())
}

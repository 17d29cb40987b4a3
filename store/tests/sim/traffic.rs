//! Clients: each asks random members for random things, one after the other, and notes what
//! it was told. Who gets no answer in time does not know what became of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use skiff_store::Store;
use skiff_store::kv::*;

use super::bugs::Bug;
use super::history::{Asked, History, Operation, Told};
use super::network::At;
use super::random::Random;

/// A member as clients reach it.
#[derive(Clone)]
pub struct Face {
    pub handle: tokio::runtime::Handle,
    pub store: Arc<Store>,
    pub incarnation: u64,
}

/// Who runs at the moment.
#[derive(Clone, Default)]
pub struct Faces(Arc<Mutex<Vec<Option<Face>>>>);

impl Faces {
    pub fn new(members: usize) -> Self {
        Self(Arc::new(Mutex::new(vec![None; members])))
    }

    pub fn set(&self, at: At, face: Option<Face>) {
        self.0.lock().expect("one thread")[at] = face;
    }

    pub fn get(&self, at: At) -> Option<Face> {
        self.0.lock().expect("one thread")[at].clone()
    }

    pub fn len(&self) -> usize {
        self.0.lock().expect("one thread").len()
    }
}

pub const KEYS: u64 = 8;

pub fn key(number: u64) -> Bytes {
    let folder = if number.is_multiple_of(2) { "a" } else { "b" };
    format!("{folder}/{number}").into()
}

/// Goes with its lease, and not before.
pub fn lease_key(id: LeaseId) -> Bytes {
    format!("b/lease-{id}").into()
}

pub fn put(key: Bytes, value: Bytes, lease: LeaseId) -> Op {
    Op::Put(PutRequest {
        key,
        value,
        lease,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    })
}

pub fn delete(key: Bytes) -> Op {
    Op::Delete(DeleteRequest { range: KeyRange::One(key), prev_kv: false })
}

pub struct Client {
    pub number: usize,
    pub random: Random,
    pub faces: Faces,
    pub history: History,
    pub bug: Option<Bug>,
    /// For values that nobody else writes.
    written: u64,
    lease: LeaseId,
    /// Prefers who answered last, as clients do.
    favourite: At,
}

impl Client {
    pub fn new(
        number: usize,
        random: Random,
        faces: Faces,
        history: History,
        bug: Option<Bug>,
    ) -> Self {
        Self { number, random, faces, history, bug, written: 0, lease: 0, favourite: 0 }
    }

    /// Until it is dropped.
    pub async fn run(mut self) {
        loop {
            let pause = self.random.between(1, 40);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            self.one().await;
        }
    }

    fn member(&mut self) -> At {
        if self.random.percent(60) {
            return self.favourite;
        }
        self.random.below(self.faces.len() as u64) as At
    }

    fn value(&mut self) -> Bytes {
        self.written += 1;
        let padding = if self.random.percent(5) { 900 } else { 0 };
        format!("c{}-{} {}", self.number, self.written, "x".repeat(padding)).into()
    }

    async fn one(&mut self) {
        let key = key(self.random.below(KEYS));
        match self.random.below(100) {
            0..30 => {
                let lease = if self.random.percent(10) { self.lease } else { 0 };
                let value = self.value();
                self.write(vec![put(key, value, lease)]).await;
            }
            30..36 => self.write(vec![delete(key)]).await,
            36..44 => {
                let marker = format!("a/done-{}", self.number).into();
                let value = self.value();
                self.write(vec![delete(key), put(marker, value, 0)]).await;
            }
            44..60 => self.swap(key).await,
            60..86 => {
                let serializable = self.random.percent(35);
                let request = RangeRequest::new(prefix(&mut self.random));
                self.range(request, serializable).await;
            }
            86..90 => {
                let mut request = RangeRequest::new(prefix(&mut self.random));
                let newest = self.history.record().highest_seen;
                request.revision = (newest - self.random.below(20) as i64).max(1);
                let serializable = self.random.percent(50);
                self.range(request, serializable).await;
            }
            90..93 => {
                let newest = self.history.record().highest_seen;
                let revision = newest - self.random.below(10) as i64;
                if revision > 0 {
                    let member = self.member();
                    self.ask(member, Asked::Compact(revision)).await;
                }
            }
            _ => self.lease().await,
        }
    }

    async fn write(&mut self, success: Vec<Op>) {
        let member = self.member();
        self.ask(member, Asked::Txn(TxnRequest { success, ..Default::default() })).await;
    }

    async fn range(&mut self, mut request: RangeRequest, serializable: bool) {
        request.serializable = serializable;
        let member = self.member();
        self.ask(member, Asked::Range(request)).await;
    }

    /// Compare and swap against what some member shows.
    async fn swap(&mut self, key: Bytes) {
        let mut look = RangeRequest::new(KeyRange::One(key.clone()));
        look.serializable = self.random.percent(50);
        let member = self.member();
        let Told::Range(seen) = self.ask(member, Asked::Range(look)).await else { return };
        let found = seen.kvs.first().map_or(0, |kv| kv.mod_revision);
        let compare = Compare {
            range: KeyRange::One(key.clone()),
            target: CompareTarget::Mod(found),
            result: CompareResult::Equal,
        };
        let value = self.value();
        let txn = TxnRequest {
            compare: vec![compare],
            success: vec![put(key.clone(), value, 0)],
            failure: vec![Op::Range(RangeRequest::new(KeyRange::One(key)))],
        };
        let member = self.member();
        self.ask(member, Asked::Txn(txn)).await;
    }

    async fn lease(&mut self) {
        let member = self.member();
        if self.lease == 0 || self.random.percent(40) {
            self.written += 1;
            let id = (self.number as i64 + 1) * 100_000 + self.written as i64;
            let ttl_seconds = self.random.between(2, 4) as i64;
            let told = self.ask(member, Asked::LeaseGrant { id, ttl_seconds }).await;
            if matches!(told, Told::LeaseGranted(_)) {
                self.lease = id;
                let value = self.value();
                self.write(vec![put(lease_key(id), value, id)]).await;
            }
            return;
        }
        let id = self.lease;
        if self.random.percent(15) {
            self.lease = 0;
            self.history.record().revoking.insert(id);
            self.ask(member, Asked::LeaseRevoke { id }).await;
        } else {
            self.ask(member, Asked::LeaseKeepAlive { id }).await;
        }
    }

    pub async fn ask(&mut self, member: At, asked: Asked) -> Told {
        let Some(face) = self.faces.get(member) else {
            self.favourite = self.random.below(self.faces.len() as u64) as At;
            return Told::Refused(KvError::Stopped);
        };
        let (called, called_ms) = self.history.call();
        let patience = Duration::from_millis(self.random.between(300, 3000));
        let (request, stale) = (asked.clone(), self.bug == Some(Bug::ReadWithoutQuorum));
        let store = face.store.clone();
        let answer = face.handle.spawn(async move { perform(&store, request, stale).await });
        let told = match tokio::time::timeout(patience, answer).await {
            Ok(Ok(told)) => told,
            Ok(Err(_)) => Told::Unknown("the member died".into()),
            Err(_) => Told::Unknown("no answer in time".into()),
        };
        let (returned, returned_ms) = self.history.call();
        self.favourite = match &told {
            Told::Unknown(_) => self.random.below(self.faces.len() as u64) as At,
            Told::Refused(KvError::NoSpace { .. }) => member,
            _ => member,
        };
        self.history.note(Operation {
            client: self.number,
            member,
            incarnation: face.incarnation,
            asked,
            told: told.clone(),
            called,
            returned,
            called_ms,
            returned_ms,
        });
        told
    }
}

fn prefix(random: &mut Random) -> KeyRange {
    match random.below(3) {
        0 => KeyRange::Prefix("a/".into()),
        1 => KeyRange::Prefix("b/".into()),
        _ => KeyRange::One(key(random.below(KEYS))),
    }
}

async fn perform(store: &Store, asked: Asked, stale: bool) -> Told {
    let told = match asked {
        Asked::Range(mut request) => {
            request.serializable |= stale;
            store.range(request).await.map(Told::Range)
        }
        Asked::Txn(txn) => store.txn(txn).await.map(Told::Txn),
        Asked::Compact(revision) => store.compact(revision, false).await.map(Told::Compacted),
        Asked::LeaseGrant { id, ttl_seconds } => {
            store.lease_grant(id, ttl_seconds).await.map(|(_, ttl)| Told::LeaseGranted(ttl))
        }
        Asked::LeaseRevoke { id } => store.lease_revoke(id).await.map(Told::LeaseRevoked),
        Asked::LeaseKeepAlive { id } => store.lease_keep_alive(id).await.map(Told::LeaseAlive),
    };
    told.unwrap_or_else(unhappy)
}

/// What an error says about the effect.
fn unhappy(error: KvError) -> Told {
    match error {
        KvError::NoLeader | KvError::Timeout | KvError::Stopped | KvError::Internal(_) => {
            Told::Unknown(error.to_string())
        }
        refused => Told::Refused(refused),
    }
}

//! What transactions, ranges, leases and compaction mean, against etcd's documented rules,
//! on the pure state: no log, no disk, no clock.
#![allow(clippy::unwrap_used)]

mod support;

use skiff_store::command::{Answer, Command, Outcome};
use skiff_store::kv::*;
use skiff_store::mvcc::record::Record;
use skiff_store::mvcc::revision::Rev;
use skiff_store::mvcc::watch::{Offer, Sink, WatchGroups};
use skiff_store::mvcc::{Change, Mvcc, ReadFault, Records, WriteBatch};
use support::*;

/// Everything is in memory; nothing may be fetched.
struct NoEngine;

impl Records for NoEngine {
    fn record(&self, rev: Rev) -> Result<Option<Record>, ReadFault> {
        panic!("record {rev:?} is not in memory")
    }
}

struct State {
    mvcc: Mvcc,
    changes: Vec<Change>,
    batch: WriteBatch,
}

impl State {
    fn new() -> Self {
        Self { mvcc: Mvcc::new(usize::MAX), changes: Vec::new(), batch: WriteBatch::default() }
    }

    fn apply(&mut self, command: Command) -> Answer {
        let applied = self.mvcc.apply(&command, &NoEngine, &mut self.batch).unwrap();
        self.mvcc.take_removals(&mut self.batch, usize::MAX);
        self.changes = applied.changes;
        applied.answer
    }

    fn txn(&mut self, request: TxnRequest) -> Result<TxnResponse, KvError> {
        match self.apply(Command::Txn(request))? {
            Outcome::Txn(response) => Ok(response),
            other => panic!("{other:?}"),
        }
    }

    fn put(&mut self, key: &str, value: &str) -> Revision {
        self.txn(txn(vec![put_op(key, value)])).unwrap().revision
    }

    fn delete(&mut self, key: &str) -> Revision {
        self.txn(txn(vec![delete_op(KeyRange::One(key.to_owned().into()))])).unwrap().revision
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        let plan = self.mvcc.plan(request)?;
        Ok(plan.finish(&mut |version| self.mvcc.fetch(version, &NoEngine))?)
    }

    /// Keys of a range, as text.
    fn keys(&self, request: &RangeRequest) -> String {
        let response = self.range(request).unwrap();
        let keys: Vec<_> =
            response.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect();
        let more = if response.more { "+" } else { "" };
        format!("{}{more} of {}", keys.join(" "), response.count)
    }

    fn compare(&mut self, target: CompareTarget, result: CompareResult, key: &str) -> bool {
        let range = KeyRange::One(key.to_owned().into());
        let compare = vec![Compare { range, target, result }];
        let request = TxnRequest { compare, ..Default::default() };
        self.txn(request).unwrap().succeeded
    }
}

#[test]
fn a_new_store_is_at_revision_one_and_reading_changes_nothing() {
    let mut state = State::new();
    assert_eq!(state.mvcc.revision(), 1);
    let response = state.txn(txn(vec![Op::Range(one("a"))])).unwrap();
    assert_eq!(response.revision, 1);
    assert_eq!(state.delete("a"), 1);
    assert_eq!(state.put("a", "1"), 2);
}

#[test]
fn versions_count_from_creation() {
    let mut state = State::new();
    state.put("a", "1");
    state.put("a", "2");
    state.delete("a");
    state.put("a", "3");
    let seen: Vec<_> = (2..=5)
        .map(|revision| {
            let mut request = one("a");
            request.revision = revision;
            let kv = state.range(&request).unwrap().kvs.pop();
            kv.map(|kv| (kv.create_revision, kv.mod_revision, kv.version))
        })
        .collect();
    assert_eq!(seen, [Some((2, 2, 1)), Some((2, 3, 2)), None, Some((5, 5, 1))]);
}

#[test]
fn all_writes_of_a_transaction_share_a_revision_and_are_seen_within_it() {
    let mut state = State::new();
    state.put("a", "old");
    let request = txn(vec![
        Op::Range(one("a")),
        put_op("b", "new"),
        Op::Range(prefix("")),
        delete_op(KeyRange::One("a".into())),
        Op::Range(prefix("")),
    ]);
    let response = state.txn(request).unwrap();
    assert_eq!(response.revision, 3);
    let shown: Vec<_> = response.responses.iter().map(show_response).collect();
    assert_eq!(shown, ["range@2 a", "put", "range@3 a b", "delete 1", "range@3 b"]);
    let places: Vec<_> =
        state.changes.iter().map(|change| (change.rev.main, change.rev.sub)).collect();
    assert_eq!(places, [(3, 0), (3, 1)]);
}

fn show_response(response: &OpResponse) -> String {
    match response {
        OpResponse::Range(range) => {
            let keys: Vec<_> =
                range.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect();
            format!("range@{} {}", range.revision, keys.join(" "))
        }
        OpResponse::Put { .. } => "put".into(),
        OpResponse::Delete { deleted, .. } => format!("delete {deleted}"),
        OpResponse::Txn(nested) => format!("txn {}", nested.succeeded),
    }
}

#[test]
fn comparisons_with_a_key_that_is_there() {
    use CompareResult::*;
    let mut state = State::new();
    state.put("a", "m");
    state.put("a", "m");
    assert!(state.compare(CompareTarget::Version(2), Equal, "a"));
    assert!(state.compare(CompareTarget::Create(2), Equal, "a"));
    assert!(state.compare(CompareTarget::Mod(2), Greater, "a"));
    assert!(state.compare(CompareTarget::Mod(4), Less, "a"));
    assert!(state.compare(CompareTarget::Value("a".into()), Greater, "a"));
    assert!(!state.compare(CompareTarget::Value("m".into()), NotEqual, "a"));
    assert!(state.compare(CompareTarget::Lease(0), Equal, "a"));
}

/// etcd: numbers of a missing key are zero; a value never compares.
#[test]
fn comparisons_with_a_key_that_is_not_there() {
    use CompareResult::*;
    let mut state = State::new();
    assert!(state.compare(CompareTarget::Create(0), Equal, "a"));
    assert!(state.compare(CompareTarget::Version(1), Less, "a"));
    assert!(!state.compare(CompareTarget::Mod(0), Greater, "a"));
    for result in [Equal, NotEqual, Less, Greater] {
        assert!(!state.compare(CompareTarget::Value("".into()), result, "a"));
    }
}

#[test]
fn a_comparison_of_a_range_holds_for_all_its_keys() {
    let mut state = State::new();
    state.put("k1", "v");
    state.put("k2", "v");
    state.put("k2", "w");
    let compare = |target| Compare {
        range: KeyRange::Prefix("k".into()),
        target,
        result: CompareResult::Greater,
    };
    let run = |state: &mut State, target| {
        let request = TxnRequest { compare: vec![compare(target)], ..Default::default() };
        state.txn(request).unwrap().succeeded
    };
    assert!(run(&mut state, CompareTarget::Mod(1)));
    assert!(!run(&mut state, CompareTarget::Version(1)));
}

/// Nested comparisons are decided before anything is written, as in etcd.
#[test]
fn a_nested_transaction_compares_with_the_state_before() {
    let mut state = State::new();
    let nested = TxnRequest {
        compare: vec![Compare {
            range: KeyRange::One("a".into()),
            target: CompareTarget::Version(0),
            result: CompareResult::Equal,
        }],
        success: vec![put_op("b", "a was not there")],
        failure: vec![put_op("b", "a was there")],
    };
    let response = state.txn(txn(vec![put_op("a", "1"), Op::Txn(nested)])).unwrap();
    assert_eq!(show_response(&response.responses[1]), "txn true");
    assert_eq!(state.keys(&prefix("")), "a b of 2");
}

#[test]
fn a_refused_operation_leaves_no_trace() {
    let mut state = State::new();
    state.put("a", "1");
    let mut wants_lease = put_op("c", "1");
    if let Op::Put(put) = &mut wants_lease {
        put.lease = 5;
    }
    let refused = state.txn(txn(vec![put_op("b", "1"), wants_lease]));
    assert_eq!(refused, Err(KvError::LeaseNotFound(5)));
    let mut future = one("a");
    future.revision = 9;
    let refused = state.txn(txn(vec![put_op("b", "1"), Op::Range(future)]));
    let expected = KvError::FutureRevision { requested: 9, current: 2 };
    assert_eq!(refused, Err(expected));
    let mut ignores = put_op("missing", "");
    if let Op::Put(put) = &mut ignores {
        put.ignore_value = true;
    }
    assert_eq!(state.txn(txn(vec![ignores])), Err(KvError::KeyNotFound));
    assert_eq!((state.mvcc.revision(), state.keys(&prefix(""))), (2, "a of 1".into()));
}

#[test]
fn previous_values_and_ignored_fields() {
    let mut state = State::new();
    state.apply(Command::LeaseGrant { id: 5, ttl_seconds: 60 }).unwrap();
    let put = |value: &str, lease, prev_kv, ignore_value, ignore_lease| {
        Op::Put(PutRequest {
            key: "a".into(),
            value: value.to_owned().into(),
            lease,
            prev_kv,
            ignore_value,
            ignore_lease,
        })
    };
    state.txn(txn(vec![put("1", 5, false, false, false)])).unwrap();
    let response = state.txn(txn(vec![put("2", 0, true, false, true)])).unwrap();
    let OpResponse::Put { prev: Some(prev) } = &response.responses[0] else { panic!() };
    assert_eq!((&prev.value[..], prev.lease, prev.mod_revision), (&b"1"[..], 5, 2));
    state.txn(txn(vec![put("", 0, false, true, false)])).unwrap();
    let kv = state.range(&one("a")).unwrap().kvs.pop().unwrap();
    assert_eq!((&kv.value[..], kv.lease, kv.version), (&b"2"[..], 0, 3));
}

#[test]
fn ranges_sort_limit_filter_and_count() {
    let mut state = State::new();
    for (key, value) in [("c", "1"), ("a", "3"), ("b", "2"), ("a", "4")] {
        state.put(key, value);
    }
    let with = |change: &dyn Fn(&mut RangeRequest)| {
        let mut request = prefix("");
        change(&mut request);
        state.keys(&request)
    };
    assert_eq!(with(&|_| {}), "a b c of 3");
    assert_eq!(with(&|r| r.limit = 2), "a b+ of 3");
    assert_eq!(with(&|r| r.limit = 3), "a b c of 3");
    assert_eq!(with(&|r| r.sort = (SortOrder::Descend, SortTarget::Key)), "c b a of 3");
    assert_eq!(with(&|r| r.sort = (SortOrder::None, SortTarget::Create)), "c a b of 3");
    assert_eq!(with(&|r| r.sort = (SortOrder::Descend, SortTarget::Mod)), "a b c of 3");
    assert_eq!(with(&|r| r.sort = (SortOrder::Ascend, SortTarget::Value)), "c b a of 3");
    assert_eq!(with(&|r| r.sort = (SortOrder::Descend, SortTarget::Version)), "a b c of 3");
    assert_eq!(with(&|r| r.min_mod_revision = 4), "a b of 3");
    assert_eq!(with(&|r| r.max_create_revision = 2), "c of 3");
    assert_eq!(with(&|r| r.count_only = true), " of 3");
    assert_eq!(with(&|r| r.revision = 3), "a c of 2");
    let mut keys_only = one("a");
    keys_only.keys_only = true;
    let kv = state.range(&keys_only).unwrap().kvs.pop().unwrap();
    assert_eq!((kv.value.len(), kv.version), (0, 2));
}

#[test]
fn compaction_refuses_what_is_before_it() {
    let mut state = State::new();
    for value in ["1", "2", "3"] {
        state.put("a", value);
    }
    let compact = |state: &mut State, revision| state.apply(Command::Compact { revision });
    assert_eq!(compact(&mut state, 3), Ok(Outcome::Compacted { revision: 4 }));
    let again = KvError::Compacted { requested: 3, compacted: 3 };
    assert_eq!(compact(&mut state, 3), Err(again));
    let future = KvError::FutureRevision { requested: 5, current: 4 };
    assert_eq!(compact(&mut state, 5), Err(future));
    let at = |revision| {
        let mut request = one("a");
        request.revision = revision;
        state.range(&request).map(|response| response.kvs[0].value.clone())
    };
    assert!(matches!(at(2), Err(KvError::Compacted { .. })));
    assert_eq!(at(3), Ok("2".into()));
    assert_eq!(at(4), Ok("3".into()));
    assert_eq!(state.batch.removes, [Rev::new(2, 0)]);
}

/// etcd #14685, #17780: what is left after a crash and a replay is the same.
#[test]
fn the_same_commands_give_the_same_state_and_digest() {
    let run = || {
        let mut state = State::new();
        state.apply(Command::LeaseGrant { id: 5, ttl_seconds: 60 }).unwrap();
        for n in 0..50 {
            state.put(&format!("k{}", n % 7), &format!("v{n}"));
            if n % 10 == 9 {
                state.delete(&format!("k{}", n % 3));
                let revision = state.mvcc.revision() - 3;
                state.apply(Command::Compact { revision }).unwrap();
            }
        }
        (state.mvcc.revision(), state.mvcc.digest(), state.keys(&prefix("")))
    };
    assert_eq!(run(), run());
}

#[test]
fn a_revoked_lease_deletes_its_keys_in_one_revision() {
    let mut state = State::new();
    state.apply(Command::LeaseGrant { id: 5, ttl_seconds: 60 }).unwrap();
    for key in ["b", "a"] {
        let mut op = put_op(key, "v");
        if let Op::Put(put) = &mut op {
            put.lease = 5;
        }
        state.txn(txn(vec![op])).unwrap();
    }
    state.put("c", "v");
    assert_eq!(
        state.apply(Command::LeaseRevoke { id: 5 }),
        Ok(Outcome::LeaseRevoked { revision: 5 })
    );
    let deleted: Vec<_> =
        state.changes.iter().map(|c| (&c.record.key[..], c.rev.main, c.rev.sub)).collect();
    assert_eq!(deleted, [(&b"a"[..], 5, 0), (&b"b"[..], 5, 1)]);
    assert_eq!(state.apply(Command::LeaseRevoke { id: 5 }), Err(KvError::LeaseNotFound(5)));
}

/// Takes so many messages; then its queue is full.
#[derive(Clone, Default)]
struct Taker(std::rc::Rc<std::cell::RefCell<(Vec<String>, usize)>>);

impl Taker {
    fn with_room(room: usize) -> Self {
        let taker = Self::default();
        taker.0.borrow_mut().1 = room;
        taker
    }

    fn got(&self) -> Vec<String> {
        std::mem::take(&mut self.0.borrow_mut().0)
    }
}

fn text(message: WatchMessage) -> String {
    match message {
        WatchMessage::Events { events, .. } => {
            events.iter().map(show).collect::<Vec<_>>().join(", ")
        }
        WatchMessage::Progress { revision } => format!("progress {revision}"),
        other => format!("{other:?}"),
    }
}

impl Sink for Taker {
    fn offer(&mut self, message: WatchMessage) -> Offer {
        let mut inner = self.0.borrow_mut();
        if inner.0.len() >= inner.1 {
            return Offer::Full;
        }
        inner.0.push(text(message));
        Offer::Taken
    }

    fn close(&mut self, message: WatchMessage) {
        self.0.borrow_mut().0.push(text(message));
    }
}

fn notify(groups: &mut WatchGroups<Taker>, state: &State) {
    groups.notify(state.mvcc.revision(), &state.changes, &mut |change| {
        let version = change.previous?;
        Some(state.mvcc.fetch(&version, &NoEngine).unwrap().to_key_value(version.rev))
    });
}

#[test]
fn watches_hear_of_their_keys_only_and_the_slow_are_cut_off() {
    let mut state = State::new();
    let mut groups = WatchGroups::new(1);
    let (key, all, later, slow) =
        (Taker::with_room(9), Taker::with_room(9), Taker::with_room(9), Taker::with_room(1));
    groups.add(KeyRange::One("a".into()), 2, true, key.clone());
    groups.add(KeyRange::Prefix("".into()), 2, false, all.clone());
    // etcd #20221: a watch on a future revision does not hear of earlier ones.
    let id = groups.add(KeyRange::Prefix("".into()), 4, false, later.clone());
    groups.add(KeyRange::From("a".into()), 2, false, slow.clone());
    state.put("a", "1");
    notify(&mut groups, &state);
    state.put("b", "1");
    notify(&mut groups, &state);
    state.delete("a");
    notify(&mut groups, &state);
    // etcd #15220: progress comes after the events it speaks of.
    groups.progress(id);
    assert_eq!(key.got(), ["PUT a=1@2", "DELETE a@4 was 1"]);
    assert_eq!(all.got(), ["PUT a=1@2", "PUT b=1@3", "DELETE a@4"]);
    assert_eq!(later.got(), ["DELETE a@4", "progress 4"]);
    assert_eq!(slow.got(), ["PUT a=1@2", "TooSlow"]);
    assert_eq!((groups.len(), groups.too_slow), (3, 1));
}

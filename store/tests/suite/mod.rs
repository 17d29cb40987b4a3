//! What every implementation of [`Kv`] must do. Each check has keys of its own; the one
//! that compacts comes last.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use skiff_store::kv::*;

const PATIENCE: Duration = Duration::from_secs(60);

pub async fn all(kv: Arc<dyn Kv>) {
    let kv = &*kv;
    ranges(kv).await;
    pages(kv).await;
    transactions(kv).await;
    refusals(kv).await;
    limits(kv).await;
    leases(kv).await;
    watches(kv).await;
    a_watch_that_is_not_read(kv).await;
    compaction(kv).await;
}

fn key(text: impl Into<String>) -> Bytes {
    Bytes::from(text.into())
}

fn put_op(at: &str, value: impl Into<Bytes>) -> Op {
    Op::Put(PutRequest {
        key: key(at),
        value: value.into(),
        lease: 0,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    })
}

fn with(op: Op, change: impl FnOnce(&mut PutRequest)) -> Op {
    let Op::Put(mut put) = op else { panic!("not a put: {op:?}") };
    change(&mut put);
    Op::Put(put)
}

fn delete_op(range: KeyRange) -> Op {
    Op::Delete(DeleteRequest { range, prev_kv: true })
}

fn one(at: &str) -> RangeRequest {
    RangeRequest::new(KeyRange::One(key(at)))
}

fn prefix(at: &str) -> RangeRequest {
    RangeRequest::new(KeyRange::Prefix(key(at)))
}

async fn run(kv: &dyn Kv, success: Vec<Op>) -> Result<TxnResponse, KvError> {
    kv.txn(TxnRequest { success, ..Default::default() }).await
}

async fn put(kv: &dyn Kv, at: &str, value: &str) -> Revision {
    run(kv, vec![put_op(at, value.to_owned())]).await.unwrap().revision
}

fn keys(response: &RangeResponse) -> String {
    let text = |kv: &KeyValue| String::from_utf8_lossy(&kv.key).into_owned();
    response.kvs.iter().map(text).collect::<Vec<_>>().join(" ")
}

async fn ranges(kv: &dyn Kv) {
    let first = put(kv, "r/a", "3").await;
    put(kv, "r/b", "2").await;
    put(kv, "r/c", "1").await;
    let last = put(kv, "r/a", "4").await;
    let all = kv.range(prefix("r/")).await.unwrap();
    assert_eq!((keys(&all).as_str(), all.count, all.more), ("r/a r/b r/c", 3, false));
    assert!(all.revision >= last);
    let a = &all.kvs[0];
    assert_eq!((a.create_revision, a.mod_revision, a.version, a.lease), (first, last, 2, 0));
    assert_eq!(a.value, "4");

    let at = |revision| RangeRequest { revision, ..one("r/a") };
    assert_eq!(kv.range(at(first)).await.unwrap().kvs[0].value, "3");
    let between = KeyRange::Between(key("r/a"), key("r/c"));
    assert_eq!(keys(&kv.range(RangeRequest::new(between)).await.unwrap()), "r/a r/b");
    let none = KeyRange::Between(key("r/c"), key("r/a"));
    assert_eq!(kv.range(RangeRequest::new(none)).await.unwrap().count, 0);
    let limited = RangeRequest { limit: 2, ..prefix("r/") };
    let limited = kv.range(limited).await.unwrap();
    assert_eq!((keys(&limited).as_str(), limited.count, limited.more), ("r/a r/b", 3, true));
    let counted = RangeRequest { count_only: true, ..prefix("r/") };
    let counted = kv.range(counted).await.unwrap();
    assert_eq!((counted.kvs.len(), counted.count), (0, 3));
    let bare = RangeRequest { keys_only: true, serializable: true, ..prefix("r/") };
    assert!(kv.range(bare).await.unwrap().kvs.iter().all(|kv| kv.value.is_empty()));
    let newest = RangeRequest { min_mod_revision: last, ..prefix("r/") };
    assert_eq!(keys(&kv.range(newest).await.unwrap()), "r/a");
    let sorted = (SortOrder::Descend, SortTarget::Mod);
    let sorted = RangeRequest { sort: sorted, ..prefix("r/") };
    assert_eq!(keys(&kv.range(sorted).await.unwrap()), "r/a r/c r/b");
    let ahead = last + 1000;
    match kv.range(at(ahead)).await {
        Err(KvError::FutureRevision { requested, current }) => {
            assert_eq!((requested, current), (ahead, last))
        }
        other => panic!("{other:?}"),
    }
}

/// As the API server reads many objects: page after page, at the first page's revision.
async fn pages(kv: &dyn Kv) {
    for batch in 0..5 {
        let ops = (0..100).map(|n| put_op(&format!("p/{batch}{n:02}"), vec![b'v'; 1000]));
        run(kv, ops.collect()).await.unwrap();
    }
    let (mut start, mut revision, mut got) = (key("p/"), 0, Vec::new());
    loop {
        let range = KeyRange::Between(start.clone(), key("p0"));
        let request = RangeRequest { limit: 120, revision, ..RangeRequest::new(range) };
        let page = kv.range(request).await.unwrap();
        if revision == 0 {
            revision = page.revision;
            put(kv, "p/000", "changed meanwhile").await;
            put(kv, "p/999", "new").await;
        }
        got.extend(page.kvs.iter().map(|kv| (kv.key.clone(), kv.value.len())));
        if !page.more {
            break;
        }
        start = [&page.kvs.last().unwrap().key[..], b"\0"].concat().into();
    }
    assert_eq!(got.len(), 500);
    assert!(got.iter().all(|(_, bytes)| *bytes == 1000), "all of one revision");
    assert!(got.is_sorted());
}

async fn transactions(kv: &dyn Kv) {
    let compare = |target, result| Compare { range: KeyRange::One(key("t/a")), target, result };
    let absent = compare(CompareTarget::Create(0), CompareResult::Equal);
    let create = TxnRequest {
        compare: vec![absent],
        success: vec![put_op("t/a", "1"), Op::Range(prefix("t/"))],
        failure: vec![Op::Range(one("t/a"))],
    };
    let made = kv.txn(create.clone()).await.unwrap();
    assert!(made.succeeded);
    let OpResponse::Range(seen) = &made.responses[1] else { panic!("{made:?}") };
    assert_eq!((keys(seen).as_str(), seen.kvs[0].mod_revision), ("t/a", made.revision));
    let again = kv.txn(create).await.unwrap();
    assert_eq!((again.succeeded, again.revision), (false, made.revision));
    let OpResponse::Range(seen) = &again.responses[0] else { panic!("{again:?}") };
    assert_eq!(seen.kvs[0].value, "1");

    let inner = TxnRequest {
        compare: vec![compare(CompareTarget::Value("1".into()), CompareResult::Equal)],
        success: vec![put_op("t/b", "inner")],
        failure: vec![],
    };
    let ops = vec![Op::Txn(inner), with(put_op("t/a", "2"), |put| put.prev_kv = true)];
    let nested = run(kv, ops).await.unwrap();
    let OpResponse::Txn(inner) = &nested.responses[0] else { panic!("{nested:?}") };
    assert!(inner.succeeded);
    let OpResponse::Put { prev: Some(prev) } = &nested.responses[1] else { panic!("{nested:?}") };
    assert_eq!(prev.value, "1");
    let gone = run(kv, vec![delete_op(KeyRange::Prefix(key("t/")))]).await.unwrap();
    let OpResponse::Delete { deleted: 2, prev } = &gone.responses[0] else { panic!("{gone:?}") };
    assert_eq!(prev.len(), 2);
    assert_eq!(gone.revision, nested.revision + 1);
    let nothing = run(kv, vec![delete_op(KeyRange::One(key("t/a")))]).await.unwrap();
    assert_eq!(nothing.revision, gone.revision, "what deletes nothing takes no revision");
}

async fn refusals(kv: &dyn Kv) {
    let refused = async |op: Op| run(kv, vec![op]).await.unwrap_err();
    assert_eq!(refused(put_op("", "v")).await, KvError::EmptyKey);
    assert_eq!(kv.range(one("")).await.unwrap_err(), KvError::EmptyKey);
    let value = with(put_op("f/a", "v"), |put| put.ignore_value = true);
    assert_eq!(refused(value).await, KvError::ValueProvided);
    let value = with(put_op("f/a", ""), |put| put.ignore_value = true);
    assert_eq!(refused(value).await, KvError::KeyNotFound);
    let lease = with(put_op("f/a", "v"), |put| (put.ignore_lease, put.lease) = (true, 7));
    assert_eq!(refused(lease).await, KvError::LeaseProvided);
    let lease = with(put_op("f/a", "v"), |put| put.lease = 0x1234);
    assert!(matches!(refused(lease).await, KvError::LeaseNotFound(_)));
    let twice = run(kv, vec![put_op("f/a", "1"), put_op("f/a", "2")]).await.unwrap_err();
    assert_eq!(twice, KvError::DuplicateKey(key("f/a")));
    assert_eq!(kv.range(prefix("f/")).await.unwrap().count, 0);
}

async fn limits(kv: &dyn Kv) {
    let many = (0..129).map(|n| put_op(&format!("l/{n}"), "v")).collect();
    let error = run(kv, many).await.unwrap_err();
    assert!(matches!(error, KvError::TooManyOps { .. }), "{error}");
    for mebibytes in [2, 5] {
        let error = run(kv, vec![put_op("l/big", vec![0; mebibytes << 20])]).await.unwrap_err();
        assert!(matches!(error, KvError::TooLarge { .. }), "{mebibytes} MiB: {error}");
    }
    let value = vec![7; 1 << 20];
    for n in 0..6 {
        run(kv, vec![put_op(&format!("l/large/{n}"), value.clone())]).await.unwrap();
    }
    let all = kv.range(prefix("l/large/")).await.unwrap();
    assert_eq!(all.kvs.iter().map(|kv| kv.value.len()).sum::<usize>(), 6 << 20);
}

async fn leases(kv: &dyn Kv) {
    let (id, ttl) = kv.lease_grant(0, 600).await.unwrap();
    assert_eq!(ttl, 600);
    assert_eq!(kv.lease_grant(id, 600).await, Err(KvError::LeaseExists(id)));
    run(kv, vec![with(put_op("s/a", "v"), |put| put.lease = id)]).await.unwrap();
    assert_eq!(kv.range(one("s/a")).await.unwrap().kvs[0].lease, id);
    assert_eq!(kv.lease_keep_alive(id).await, Ok(600));
    let info = kv.lease_time_to_live(id, true).await.unwrap();
    assert_eq!((info.granted_ttl_seconds, info.keys), (600, vec![key("s/a")]));
    assert!((500..=600).contains(&info.ttl_seconds));
    assert!(kv.leases().await.unwrap().contains(&id));
    kv.lease_revoke(id).await.unwrap();
    assert_eq!(kv.range(one("s/a")).await.unwrap().count, 0);
    assert_eq!(kv.lease_revoke(id).await, Err(KvError::LeaseNotFound(id)));
    assert_eq!(kv.lease_keep_alive(id).await, Err(KvError::LeaseNotFound(id)));
    assert_eq!(kv.lease_time_to_live(id, false).await.unwrap().ttl_seconds, -1);
    let long = kv.lease_grant(0, 10_000_000_000).await;
    assert_eq!(long, Err(KvError::LeaseTtlTooLarge(10_000_000_000)));

    // One that nobody renews takes its keys with it.
    let (id, _) = kv.lease_grant(0, 1).await.unwrap();
    run(kv, vec![with(put_op("s/b", "v"), |put| put.lease = id)]).await.unwrap();
    let mut watch = watch(kv, "s/", 0, true).await;
    if kv.range(one("s/b")).await.unwrap().count == 1 {
        assert_eq!(events(&mut watch, 1).await[0].split('@').next(), Some("DELETE s/b"));
    }
}

async fn watch(kv: &dyn Kv, at: &str, start_revision: Revision, prev_kv: bool) -> Watch {
    let range = KeyRange::Prefix(key(at));
    kv.watch(WatchRequest { range, start_revision, prev_kv }).await.unwrap()
}

async fn next(watch: &mut Watch) -> Option<WatchMessage> {
    loop {
        let message = tokio::time::timeout(PATIENCE, watch.messages.recv()).await;
        match message.expect("the watch delivers in time") {
            Some(WatchMessage::Progress { .. }) => {}
            other => return other,
        }
    }
}

async fn events(watch: &mut Watch, count: usize) -> Vec<String> {
    let mut got = Vec::new();
    while got.len() < count {
        let Some(WatchMessage::Events { revision, events }) = next(watch).await else {
            panic!("the watch ended after {got:?}");
        };
        assert!(events.iter().all(|event| event.kv.mod_revision <= revision));
        got.extend(events.iter().map(show));
    }
    got
}

fn show(event: &Event) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (at, name) = (event.kv.mod_revision, text(&event.kv.key));
    let was = event.prev.as_ref().map_or("-".to_owned(), |prev| text(&prev.value));
    match event.kind {
        EventType::Put => format!("PUT {name}={}@{at} was {was}", text(&event.kv.value)),
        EventType::Delete => format!("DELETE {name}@{at} was {was}"),
    }
}

async fn watches(kv: &dyn Kv) {
    let first = put(kv, "w/a", "1").await;
    let from_now = watch(kv, "w/", 0, false).await;
    assert!(from_now.revision >= first);
    let ahead = watch(kv, "w/", first + 3, false).await;
    let ops = vec![put_op("w/a", "2"), put_op("w/b", "1")];
    assert_eq!(run(kv, ops).await.unwrap().revision, first + 1);
    run(kv, vec![delete_op(KeyRange::One(key("w/a")))]).await.unwrap();
    put(kv, "w/c", "1").await;
    let expect = |from: Revision, prev: bool| -> Vec<String> {
        let was = |value: &str| if prev { value.to_owned() } else { "-".to_owned() };
        let all = [
            (first, format!("PUT w/a=1@{first} was -")),
            (first + 1, format!("PUT w/a=2@{} was {}", first + 1, was("1"))),
            (first + 1, format!("PUT w/b=1@{} was -", first + 1)),
            (first + 2, format!("DELETE w/a@{} was {}", first + 2, was("2"))),
            (first + 3, format!("PUT w/c=1@{} was -", first + 3)),
        ];
        all.into_iter().filter(|(at, _)| *at >= from).map(|(_, text)| text).collect()
    };
    let history = watch(kv, "w/", first, true).await;
    for (mut watch, from, prev) in
        [(from_now, first + 1, false), (ahead, first + 3, false), (history, first, true)]
    {
        let expect = expect(from, prev);
        assert_eq!(events(&mut watch, expect.len()).await, expect);
    }
}

/// What is not read in time is cut off, in order and with a last word; nothing is lost to
/// who watches again from where it was.
async fn a_watch_that_is_not_read(kv: &dyn Kv) {
    const WRITES: i64 = 3000;
    let mut slow = watch(kv, "q/", 0, false).await;
    let begin = slow.revision;
    for n in 0..WRITES {
        put(kv, "q/a", &n.to_string()).await;
    }
    let (mut reached, mut cut) = (begin, 0);
    while reached < begin + WRITES {
        match next(&mut slow).await {
            Some(WatchMessage::Events { events, .. }) => {
                for event in events {
                    assert_eq!(event.kv.mod_revision, reached + 1, "none lost, none twice");
                    reached += 1;
                }
            }
            Some(WatchMessage::TooSlow) => {
                cut += 1;
                assert!(next(&mut slow).await.is_none(), "the last message");
                slow = watch(kv, "q/", reached + 1, false).await;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(cut <= 1, "history waits for its reader");
}

async fn compaction(kv: &dyn Kv) {
    let first = put(kv, "c/a", "1").await;
    let middle = put(kv, "c/a", "2").await;
    let last = put(kv, "c/a", "3").await;
    kv.compact(middle, true).await.unwrap();
    let compacted = |requested| Err::<(), _>(KvError::Compacted { requested, compacted: middle });
    assert_eq!(kv.compact(middle, false).await.map(drop), compacted(middle));
    let at = |revision| RangeRequest { revision, ..one("c/a") };
    assert_eq!(kv.range(at(first)).await.map(drop), compacted(first));
    assert_eq!(kv.range(at(middle)).await.unwrap().kvs[0].value, "2");
    let old = run(kv, vec![Op::Range(at(first))]).await;
    assert_eq!(old.map(drop), compacted(first));
    let ahead = kv.compact(last + 10, false).await.unwrap_err();
    assert_eq!(ahead, KvError::FutureRevision { requested: last + 10, current: last });
    let mut gone = watch(kv, "c/", first, false).await;
    match next(&mut gone).await {
        Some(WatchMessage::Compacted { compacted }) => assert_eq!(compacted, middle),
        other => panic!("{other:?}"),
    }
    assert!(next(&mut gone).await.is_none());
    let mut kept = watch(kv, "c/", last, false).await;
    assert_eq!(events(&mut kept, 1).await, [format!("PUT c/a=3@{last} was -")]);
}

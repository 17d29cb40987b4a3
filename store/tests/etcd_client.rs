//! The `etcd-client` crate, and bare gRPC where it hides what goes over the wire, against
//! the store.
#![allow(clippy::unwrap_used)]

mod etcd_support;

use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, Error, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse,
    WatchOptions,
};
use etcd_support::stream::{Stream, keys, on};
use etcd_support::*;
use skiff_proto::grpc::etcdserverpb as pb;
use tokio::time::timeout;
use tonic::Code;

async fn connect(served: &Served) -> Client {
    Client::connect([served.url()], None).await.unwrap()
}

#[track_caller]
fn refused<T>(outcome: Result<T, Error>, code: Code, text: &str) {
    match outcome {
        Err(Error::GRpcStatus(status)) => {
            assert_eq!((status.code(), status.message()), (code, text))
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{text} was expected"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_etcds_codes_and_texts() {
    let served = Served::plain().await;
    let mut client = connect(&served).await;
    let invalid = Code::InvalidArgument;
    let key = "etcdserver: key is not provided";
    refused(client.put("", "v", None).await, invalid, key);
    refused(client.get("", None).await, invalid, key);
    refused(client.delete("", None).await, invalid, key);
    let ignore = || PutOptions::new().with_ignore_value();
    refused(client.put("k", "", Some(ignore())).await, invalid, "etcdserver: key not found");
    refused(client.put("k", "v", Some(ignore())).await, invalid, "etcdserver: value is provided");
    let options = PutOptions::new().with_ignore_lease().with_lease(7);
    refused(client.put("k", "v", Some(options)).await, invalid, "etcdserver: lease is provided");
    let lease = "etcdserver: requested lease not found";
    let options = PutOptions::new().with_lease(7);
    refused(client.put("k", "v", Some(options)).await, Code::NotFound, lease);
    refused(client.lease_revoke(7).await, Code::NotFound, lease);
    let granted = client.lease_grant(60, Some(etcd_client::LeaseGrantOptions::new().with_id(9)));
    granted.await.unwrap();
    let again = client.lease_grant(60, Some(etcd_client::LeaseGrantOptions::new().with_id(9)));
    refused(again.await, Code::FailedPrecondition, "etcdserver: lease already exists");
    let long = client.lease_grant(10_000_000_000, None).await;
    refused(long, Code::OutOfRange, "etcdserver: too large lease TTL");
    let future = "etcdserver: mvcc: required revision is a future revision";
    let options = GetOptions::new().with_revision(100);
    refused(client.get("k", Some(options)).await, Code::OutOfRange, future);
    refused(client.compact(100, None).await, Code::OutOfRange, future);
    let big = vec![0; 1_600_000];
    refused(client.put("k", big, None).await, invalid, "etcdserver: request is too large");
    let learner = "etcdserver: can only promote a learner member";
    let me = served.store.identity().member_id;
    refused(client.member_promote(me).await, Code::FailedPrecondition, learner);
    refused(client.member_remove(5).await, Code::NotFound, "etcdserver: member not found");
    let urls = "etcdserver: given member URLs are invalid";
    refused(client.member_add(["nonsense"], None).await, invalid, urls);
    let off = "etcdserver: authentication is not enabled";
    refused(client.auth_disable().await, Code::FailedPrecondition, off);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_in_etcds_words_and_reads_go_on() {
    let served = Served::with(|config| config.min_free_bytes = u64::MAX / 2).await;
    let mut client = connect(&served).await;
    let text = "etcdserver: mvcc: database space exceeded";
    refused(client.put("k", "v", None).await, Code::ResourceExhausted, text);
    assert_eq!(client.get("k", None).await.unwrap().count(), 0);
    let alarms = client.alarm(etcd_client::AlarmAction::Get, etcd_client::AlarmType::None, None);
    assert_eq!(alarms.await.unwrap().alarms().len(), 1);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_at_their_edges() {
    let served = Served::plain().await;
    let mut client = connect(&served).await;
    assert!(client.txn(Txn::new()).await.unwrap().succeeded());
    let nested = Txn::new()
        .when([Compare::version("a", CompareOp::Equal, 0)])
        .and_then([TxnOp::put("b", "inner", None)])
        .or_else([TxnOp::put("c", "inner", None)]);
    let outer = Txn::new().and_then([
        TxnOp::get("a", None),
        TxnOp::put("a", "outer", None),
        TxnOp::txn(nested),
        TxnOp::get("a", Some(GetOptions::new().with_prefix())),
        TxnOp::delete("zzz", None),
    ]);
    let response = client.txn(outer).await.unwrap();
    assert_eq!(response.header().unwrap().revision(), 2);
    let responses = response.op_responses();
    let TxnOpResponse::Get(before) = &responses[0] else { panic!("{responses:?}") };
    assert_eq!((before.count(), before.header().unwrap().revision()), (0, 1));
    let TxnOpResponse::Txn(inner) = &responses[2] else { panic!("{responses:?}") };
    assert!(inner.succeeded(), "comparisons see the state before");
    let TxnOpResponse::Get(after) = &responses[3] else { panic!("{responses:?}") };
    let kv = &after.kvs()[0];
    assert_eq!((kv.value(), kv.mod_revision()), (&b"outer"[..], 2), "ranges see the writes");
    assert_eq!(after.header().unwrap().revision(), 2);

    let puts = |count: usize| -> Vec<_> {
        (0..count).map(|i| TxnOp::put(format!("k{i}"), "v", None)).collect()
    };
    client.txn(Txn::new().and_then(puts(128))).await.unwrap();
    let many = client.txn(Txn::new().and_then(puts(129))).await;
    let text = "etcdserver: too many operations in txn request";
    refused(many, Code::InvalidArgument, text);
    let twice = "etcdserver: duplicate key given in txn request";
    let ops = [TxnOp::put("x", "1", None), TxnOp::put("x", "2", None)];
    refused(client.txn(Txn::new().and_then(ops)).await, Code::InvalidArgument, twice);
    let range = etcd_client::DeleteOptions::new().with_prefix();
    let ops = [TxnOp::put("xy", "1", None), TxnOp::delete("x", Some(range))];
    refused(client.txn(Txn::new().and_then(ops)).await, Code::InvalidArgument, twice);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_watches_on_one_stream() {
    const WATCHES: i64 = 300;
    let served = Served::plain().await;
    let mut client = connect(&served).await;
    let mut stream = client.watch("w/0", None).await.unwrap();
    for i in 1..WATCHES {
        stream.watch(format!("w/{i}"), None).await.unwrap();
    }
    for i in 0..WATCHES {
        let created = timeout(PATIENCE, stream.message()).await.unwrap().unwrap().unwrap();
        assert!(created.created());
        assert_eq!(created.watch_id(), i);
    }
    for i in (0..WATCHES).step_by(2) {
        stream.cancel(i).await.unwrap();
        let canceled = timeout(PATIENCE, stream.message()).await.unwrap().unwrap().unwrap();
        assert!(canceled.canceled() && canceled.watch_id() == i);
    }
    for round in 0..3 {
        for i in 0..WATCHES {
            client.put(format!("w/{i}"), round.to_string(), None).await.unwrap();
        }
    }
    let mut seen = vec![String::new(); WATCHES as usize];
    let mut left = WATCHES / 2 * 3;
    while left > 0 {
        let message = timeout(PATIENCE, stream.message()).await.unwrap().unwrap().unwrap();
        for event in message.events() {
            let kv = event.kv().unwrap();
            assert_eq!(kv.key_str().unwrap(), format!("w/{}", message.watch_id()));
            seen[message.watch_id() as usize] += kv.value_str().unwrap();
            left -= 1;
        }
    }
    for (i, seen) in seen.iter().enumerate() {
        assert_eq!(seen, if i % 2 == 0 { "" } else { "012" }, "watch {i}");
    }
    // All have handed on everything, so the stream as a whole can say so.
    stream.request_progress().await.unwrap();
    let progress = timeout(PATIENCE, stream.message()).await.unwrap().unwrap().unwrap();
    assert_eq!((progress.watch_id(), progress.events().len()), (-1, 0));
    assert_eq!(progress.header().unwrap().revision(), served.store.revision());

    // Who has gone away costs nothing any more, once its key changes or others come.
    drop(stream);
    drop(client);
    let gone = async {
        while served.store.watch_counts().0 > 0 {
            let mut client = connect(&served).await;
            for i in 0..WATCHES {
                client.put(format!("w/{i}"), "", None).await.unwrap();
            }
        }
    };
    timeout(PATIENCE, gone).await.expect("its watches end");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_that_are_refused_filtered_or_in_the_future() {
    let served = Served::plain().await;
    let mut client = connect(&served).await;
    let mut stream = Stream::open(&served).await;
    let chosen = stream.create(pb::WatchCreateRequest { watch_id: 1, ..on("k") }).await;
    assert!(chosen.created && !chosen.canceled && chosen.watch_id == 1);
    let twice = stream.create(pb::WatchCreateRequest { watch_id: 1, ..on("k") }).await;
    assert!(twice.created && twice.canceled);
    assert_eq!(twice.watch_id, -1);
    assert_eq!(twice.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    let empty = pb::WatchCreateRequest { range_end: "a".into(), ..on("k") };
    assert_eq!(stream.create(empty).await.cancel_reason, "mvcc: watcher range is empty");
    // Ids that are chosen by the store go round the one that is taken.
    assert_eq!(stream.create(on("n")).await.watch_id, 0);
    assert_eq!(stream.create(on("n")).await.watch_id, 2);
    drop(stream);

    let mut puts = Stream::open(&served).await;
    let filters = vec![pb::watch_create_request::FilterType::Nodelete.into()];
    puts.create(pb::WatchCreateRequest { filters, ..on("k") }).await;
    let mut deletes = Stream::open(&served).await;
    let filters = vec![pb::watch_create_request::FilterType::Noput.into()];
    deletes.create(pb::WatchCreateRequest { filters, prev_kv: true, ..on("k") }).await;
    let mut later = Stream::open(&served).await;
    later.create(pb::WatchCreateRequest { start_revision: 5, ..on("k") }).await;
    let mut all = Stream::open(&served).await;
    all.create(pb::WatchCreateRequest { range_end: [0][..].into(), ..on("") }).await;
    client.put("k", "1", None).await.unwrap();
    client.delete("k", None).await.unwrap();
    client.put("k", "2", None).await.unwrap();
    client.put("k", "3", None).await.unwrap();
    client.delete("k", None).await.unwrap();
    assert_eq!(keys(&puts.events(3).await), ["PUT k@2", "PUT k@4", "PUT k@5"]);
    let events = deletes.events(2).await;
    assert_eq!(keys(&events), ["DELETE k@3", "DELETE k@6"]);
    assert_eq!(events[1].prev_kv.as_ref().unwrap().value, "3");
    assert_eq!(keys(&later.events(2).await), ["PUT k@5", "DELETE k@6"]);
    assert_eq!(all.events(5).await.len(), 5);

    client.compact(4, None).await.unwrap();
    let mut old = Stream::open(&served).await;
    old.create(pb::WatchCreateRequest { start_revision: 2, ..on("k") }).await;
    let compacted = old.next().await;
    assert!(compacted.canceled);
    assert_eq!(compacted.compact_revision, 4);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_revisions_are_sent_in_fragments_to_who_asks() {
    let served = Served::plain().await;
    let mut client = connect(&served).await;
    let mut whole = Stream::open(&served).await;
    let mut cut = Stream::open(&served).await;
    let request = pb::WatchCreateRequest { range_end: [0][..].into(), prev_kv: true, ..on("f") };
    whole.create(request.clone()).await;
    cut.create(pb::WatchCreateRequest { fragment: true, ..request }).await;
    for _ in 0..2 {
        let puts = (0..14).map(|i| TxnOp::put(format!("f{i:02}"), vec![b'x'; 100_000], None));
        client.txn(Txn::new().and_then(puts.collect::<Vec<_>>())).await.unwrap();
    }
    assert_eq!(whole.next().await.events.len(), 14);
    assert_eq!(whole.next().await.events.len(), 14);
    let mut parts = Vec::new();
    while parts.iter().map(|(count, _)| count).sum::<usize>() < 28 {
        let response = cut.next().await;
        parts.push((response.events.len(), response.fragment));
    }
    assert_eq!(parts, [(14, false), (7, true), (7, false)]);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_sleeps_misses_nothing() {
    const WRITES: i64 = 3000;
    let served = Served::with(|config| config.watch_queue_messages = 4).await;
    let mut client = connect(&served).await;
    let mut stream = Stream::open(&served).await;
    stream.create(pb::WatchCreateRequest { range_end: [0][..].into(), ..on("s") }).await;
    // Far more than the connection's windows and the watch's queue hold.
    for i in 0..WRITES {
        client.put(format!("s{}", i % 7), vec![b'x'; 2000], None).await.unwrap();
    }
    assert!(served.store.watch_counts().1 > 0, "the queue ran over at least once");
    let events = stream.events(WRITES as usize).await;
    let revisions: Vec<_> =
        events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision).collect();
    assert_eq!(revisions, (2..WRITES + 2).collect::<Vec<_>>(), "all, once, in order");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_kept_alive_and_run_out() {
    let served = Served::plain().await;
    let mut client = connect(&served).await;
    let id = client.lease_grant(2, None).await.unwrap().id();
    let options = PutOptions::new().with_lease(id);
    client.put("held", "x", Some(options)).await.unwrap();
    let (mut keeper, mut answers) = client.lease_keep_alive(id).await.unwrap();
    keeper.keep_alive().await.unwrap();
    let answer = answers.message().await.unwrap().unwrap();
    assert_eq!((answer.id(), answer.ttl()), (id, 2));
    let mut stream = client.watch("held", None).await.unwrap();
    assert!(stream.message().await.unwrap().unwrap().created());
    let gone = timeout(PATIENCE, stream.message()).await.expect("it runs out").unwrap().unwrap();
    assert_eq!(gone.events()[0].event_type(), etcd_client::EventType::Delete);
    // The same stream asks for one that is gone: no error, no time.
    keeper.keep_alive().await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().ttl(), 0);
    let left = client.lease_time_to_live(id, None).await.unwrap();
    assert_eq!((left.ttl(), left.granted_ttl()), (-1, 0));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_streams_end_when_the_server_stops() {
    let served = Served::plain().await;
    let mut client = connect(&served).await;
    let id = client.lease_grant(60, None).await.unwrap().id();
    let (_keeper, mut answers) = client.lease_keep_alive(id).await.unwrap();
    let options = WatchOptions::new().with_prefix();
    let mut stream = client.watch("a", Some(options)).await.unwrap();
    stream.message().await.unwrap();
    served.shutdown.cancel();
    let text = "etcdserver: server stopped";
    let ended = timeout(Duration::from_secs(30), stream.message()).await.expect("it ends");
    refused(ended, Code::Unavailable, text);
    let ended = timeout(Duration::from_secs(30), answers.message()).await.expect("it ends");
    refused(ended, Code::Unavailable, text);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_and_bounds_of_revisions() {
    let served = Served::plain().await;
    let mut client = connect(&served).await;
    for i in 0..6 {
        client.put(format!("c{i}"), "v", None).await.unwrap();
    }
    let options = || GetOptions::new().with_prefix();
    let counted = client.get("c", Some(options().with_count_only())).await.unwrap();
    assert_eq!((counted.count(), counted.kvs().len(), counted.more()), (6, 0, false));
    let options = options().with_min_mod_revision(4).with_max_mod_revision(6).with_limit(2);
    let bounded = client.get("c", Some(options)).await.unwrap();
    let keys: Vec<_> = bounded.kvs().iter().map(|kv| kv.key_str().unwrap()).collect();
    assert_eq!((keys, bounded.more(), bounded.count()), (vec!["c2", "c3"], true, 6));
    served.stop().await;
}

//! What etcd has got wrong, played at the store's etcd face. With several members and faults:
//! `sim/scenarios.rs` and `e2e/tests/store_faults.rs`.
#![allow(clippy::unwrap_used)]

mod etcd_support;

use etcd_client::{Client, CompactionOptions};
use etcd_support::stream::{Stream, keys, on};
use etcd_support::*;
use pb::watch_request::RequestUnion;
use skiff_proto::grpc::etcdserverpb as pb;

async fn connect(served: &Served) -> Client {
    Client::connect([served.url()], None).await.unwrap()
}

/// etcd #18089, #19179: a delete at the very revision of a compaction is still told, to who
/// begins there and to who was behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletes_at_the_compaction_boundary_are_told() {
    let served = Served::plain().await;
    let mut client = connect(&served).await;
    client.put("k", "1", None).await.unwrap();
    let deleted = client.delete("k", None).await.unwrap().header().unwrap().revision();
    client.put("k", "2", None).await.unwrap();
    let from = || pb::WatchCreateRequest { start_revision: deleted, prev_kv: true, ..on("k") };
    for _ in 0..2 {
        let physical = Some(CompactionOptions::new().with_physical());
        // The second time it is refused, and changes nothing.
        let _ = client.compact(deleted, physical).await;
        let mut stream = Stream::open(&served).await;
        stream.create(from()).await;
        let events = stream.events(2).await;
        let expect = [format!("DELETE k@{deleted}"), format!("PUT k@{}", deleted + 1)];
        assert_eq!(keys(&events), expect);
        assert_eq!(events[0].prev_kv, None, "what it was is compacted");
        served.store.defragment().await.unwrap();
    }
    client.compact(deleted + 1, None).await.unwrap();
    let mut stream = Stream::open(&served).await;
    stream.create(from()).await;
    let compacted = stream.next().await;
    assert!(compacted.canceled);
    assert_eq!(compacted.compact_revision, deleted + 1);
    served.stop().await;
}

/// etcd #20221: a watch that begins in the future hears of nothing before, neither events nor
/// progress, and of everything from there on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_on_a_future_revision_begins_there() {
    let served = Served::with(|config| config.watch_queue_messages = 4).await;
    let mut client = connect(&served).await;
    let mut stream = Stream::open(&served).await;
    let range_end = [0][..].into();
    stream.create(pb::WatchCreateRequest { start_revision: 50, range_end, ..on("k") }).await;
    for n in 0..100 {
        client.put(format!("k{}", n % 3), "v", None).await.unwrap();
    }
    let events = stream.events(52).await;
    let revisions: Vec<_> = events.iter().map(|e| e.kv.as_ref().unwrap().mod_revision).collect();
    assert_eq!(revisions, (50..=101).collect::<Vec<_>>());
    served.stop().await;
}

/// etcd #17529, #15220: with a queue that runs over again and again no event is lost, and no
/// progress is told before the events it speaks of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starved_watches_lose_nothing_and_progress_overtakes_nothing() {
    const WRITES: i64 = 2000;
    let served = Served::with(|config| config.watch_queue_messages = 2).await;
    let mut stream = Stream::open(&served).await;
    for (key, end) in [("a", "b"), ("b", "c")] {
        stream.create(pb::WatchCreateRequest { range_end: end.into(), ..on(key) }).await;
    }
    let mut client = connect(&served).await;
    let (half, written) = tokio::sync::oneshot::channel();
    let mut half = Some(half);
    let writing = tokio::spawn(async move {
        for n in 0..WRITES {
            if n == WRITES / 2 {
                half.take().unwrap().send(()).unwrap();
            }
            let key = if n % 2 == 0 { "a" } else { "b" };
            client.put(format!("{key}{}", n % 7), vec![b'x'; 4000], None).await.unwrap();
        }
    });
    // More than the connection's windows and the queues hold is there before anything is read.
    written.await.unwrap();
    let mut next = [2, 3];
    let mut told = 0;
    while next.iter().any(|next| *next < WRITES + 2) {
        if told % 5 == 0 {
            stream.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
        }
        told += 1;
        let response = stream.next().await;
        let revision = response.header.unwrap().revision;
        if response.watch_id < 0 {
            // Each watch has every second revision.
            assert!(next.iter().all(|next| *next > revision), "{next:?} at progress {revision}");
            continue;
        }
        let next = &mut next[response.watch_id as usize];
        for event in &response.events {
            assert_eq!(event.kv.as_ref().unwrap().mod_revision, *next, "all, once, in order");
            *next += 2;
        }
    }
    writing.await.unwrap();
    assert!(served.store.watch_counts().1 > 0, "the queues ran over at least once");
    served.stop().await;
}

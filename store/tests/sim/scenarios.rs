//! Drills: what other stores have got wrong, each played on purpose.

use skiff_store::kv::*;
use skiff_store::wal::disk::Disk as _;

use super::cluster::Cluster;
use super::faults::Fault;
use super::history::{Asked, Told};
use super::network::At;
use super::run::{ask, finish, wait};
use super::traffic::{delete, put};

/// A cluster that has a leader.
fn cluster(seed: u64, members: usize) -> (Cluster, At) {
    let mut cluster = Cluster::new(seed, members, None);
    while cluster.leader().is_none() {
        cluster.run_for(50);
        assert!(cluster.now_ms < 10_000, "no leader in ten seconds");
    }
    let leader = cluster.leader().unwrap();
    (cluster, leader)
}

fn sound(cluster: Cluster) {
    let outcome = finish(cluster, true);
    if let Some(fault) = outcome.fault {
        panic!("{}\n\n{fault}", outcome.story.join("\n"));
    }
}

fn tell(cluster: &mut Cluster, at: At, asked: Asked) -> Told {
    let until = cluster.now_ms + 3_000;
    ask(cluster, at, asked, until)
}

fn txn(success: Vec<Op>) -> Asked {
    Asked::Txn(TxnRequest { success, ..Default::default() })
}

fn write(cluster: &mut Cluster, at: At, key: &str, value: &str) -> Option<Revision> {
    let op = put(key.to_owned().into(), value.to_owned().into(), 0);
    match tell(cluster, at, txn(vec![op])) {
        Told::Txn(response) => Some(response.revision),
        _ => None,
    }
}

/// Whoever leads takes it, sooner or later.
fn must_write(cluster: &mut Cluster, not_by: Option<At>, key: &str, value: &str) -> Revision {
    for attempt in 0..100 {
        let leader = until_led(cluster, not_by);
        if let Some(revision) = write(cluster, leader, key, &format!("{value} {attempt}")) {
            return revision;
        }
        cluster.run_for(50);
    }
    panic!("{value:?} was never acknowledged\n{:?}", cluster.story)
}

fn read(cluster: &mut Cluster, at: At, key: &str) -> Told {
    let range = KeyRange::One(key.to_owned().into());
    tell(cluster, at, Asked::Range(RangeRequest::new(range)))
}

fn until_led(cluster: &mut Cluster, not_by: Option<At>) -> At {
    let patience = cluster.now_ms + 10_000;
    loop {
        let others = (0..cluster.hosts.len()).filter(|at| Some(*at) != not_by);
        for at in others.collect::<Vec<_>>() {
            let led = cluster.hosts[at].store().is_some_and(|store| {
                let status = store.status();
                status.leader == status.member_id
            });
            if led {
                return at;
            }
        }
        assert!(cluster.now_ms < patience, "no leader in ten seconds");
        cluster.run_for(20);
    }
}

/// Everything a member does to its disk, in a little life of its own.
fn little_life(cluster: &mut Cluster, at: At) {
    for n in 0..4 {
        write(cluster, at, &format!("a/{n}"), &format!("one {n}"));
    }
    tell(cluster, at, txn(vec![delete("a/1".into())]));
    tell(cluster, at, Asked::LeaseGrant { id: 7, ttl_seconds: 60 });
    let newest = cluster.history.record().highest_seen;
    tell(cluster, at, Asked::Compact(newest.max(2)));
    cluster.inflict(Fault::Snapshot { member: at });
    write(cluster, at, "a/2", "two");
    cluster.run_for(50);
    write(cluster, at, "b/2", "three");
}

/// etcd #14370, #13766, #14685, #17780: an answer comes after the sync, data and applied index
/// come back together, and a crash inside of a compaction neither replays nor goes back. The
/// power goes at every single operation of the disk.
fn crash_at_every_operation(members: usize, step: u64) {
    let operations = {
        let (mut cluster, leader) = cluster(1, members);
        let before = cluster.hosts[leader].disk.state().operations;
        little_life(&mut cluster, leader);
        let after = cluster.hosts[leader].disk.state().operations;
        sound(cluster);
        after - before
    };
    assert!(operations > 20, "only {operations} operations");
    for operation in (1..=operations).step_by(step as usize) {
        let (mut cluster, leader) = cluster(operation, members);
        cluster.inflict(Fault::CrashAtOperation { member: leader, operations: operation });
        little_life(&mut cluster, leader);
        sound(cluster);
    }
}

#[test]
fn one_node_loses_nothing_wherever_the_power_goes() {
    crash_at_every_operation(1, 1);
}

#[test]
fn three_nodes_lose_nothing_wherever_the_leaders_power_goes() {
    crash_at_every_operation(3, 3);
}

/// Also when the power goes while it starts.
#[test]
fn a_start_can_be_cut_off_anywhere() {
    for operation in 1..=12 {
        let (mut cluster, _) = cluster(operation, 1);
        little_life(&mut cluster, 0);
        cluster.end(0, true);
        cluster.hosts[0].disk.state().crash_in = Some(operation);
        cluster.start(0);
        cluster.run_for(300);
        sound(cluster);
    }
}

/// etcd #15271: who was cut off shows nothing older than what was acknowledged since.
#[test]
fn no_member_goes_back_in_time_after_a_partition() {
    for seed in 1..=3 {
        let (mut cluster, _) = cluster(seed, 3);
        must_write(&mut cluster, None, "a/1", "before");
        let leader = until_led(&mut cluster, None);
        let cut = (0..3).filter(|at| *at != leader).flat_map(|at| [(at, leader), (leader, at)]);
        cluster.inflict(Fault::Block { pairs: cut.collect(), ms: 4_000 });
        let acknowledged = must_write(&mut cluster, Some(leader), "a/1", "after");
        let answer = read(&mut cluster, leader, "a/1");
        assert!(!matches!(answer, Told::Range(_)), "a member without a majority said {answer:?}");
        cluster.run_for(5_000);
        for at in 0..3 {
            if let Told::Range(response) = read(&mut cluster, at, "a/1") {
                assert!(response.revision >= acknowledged);
            }
        }
        sound(cluster);
    }
}

/// etcd #20418: a leader that slept does not answer from what it dreamt.
#[test]
fn no_stale_read_after_a_process_pause() {
    for seed in 1..=3 {
        let (mut cluster, _) = cluster(seed, 3);
        must_write(&mut cluster, None, "a/1", "before");
        let leader = until_led(&mut cluster, None);
        cluster.inflict(Fault::Pause { member: leader, ms: 3_000 });
        let acknowledged = must_write(&mut cluster, Some(leader), "a/1", "after");
        // Asked while it sleeps, answered as soon as it wakes.
        for _ in 0..20 {
            cluster.run_for(100);
            if let Told::Range(response) = read(&mut cluster, leader, "a/1") {
                assert!(response.revision >= acknowledged, "stale: {response:?}");
            }
        }
        sound(cluster);
    }
}

/// etcd #17529, #15220: who reads slowly loses no event, and progress never overtakes one.
#[test]
fn no_event_is_lost_under_starvation_and_progress_is_in_order() {
    for seed in 1..=2 {
        let (mut cluster, _) = cluster(seed, 3);
        cluster.traffic(6, 12);
        cluster.run_for(2_500);
        sound(cluster);
    }
}

/// etcd #18089, #19179: a delete at the very revision of a compaction is still told, on every
/// member, whatever it was rebuilt from.
#[test]
fn a_delete_at_the_compaction_boundary_is_told() {
    for seed in 1..=4 {
        let (mut cluster, _) = cluster(seed, 3);
        must_write(&mut cluster, None, "a/1", "1");
        let leader = until_led(&mut cluster, None);
        let Told::Txn(deleted) = tell(&mut cluster, leader, txn(vec![delete("a/1".into())])) else {
            panic!("the delete was not acknowledged")
        };
        must_write(&mut cluster, None, "a/2", "2");
        let compacted = tell(&mut cluster, leader, Asked::Compact(deleted.revision));
        assert!(matches!(compacted, Told::Compacted(_)), "{compacted:?}");
        cluster.run_for(300);
        cluster.inflict(Fault::PowerLossEverywhere);
        cluster.run_for(2_500);
        for at in 0..3 {
            let first = first_event(&mut cluster, at, deleted.revision);
            assert_eq!(first.kind, EventType::Delete, "member {at}: {first:?}");
            assert_eq!(first.kv.mod_revision, deleted.revision, "member {at}");
        }
        sound(cluster);
    }
}

fn first_event(cluster: &mut Cluster, at: At, from: Revision) -> Event {
    let face = cluster.faces.get(at).expect("all members are back");
    let request =
        WatchRequest { range: KeyRange::Prefix("a/".into()), start_revision: from, prev_kv: false };
    let watching = face.handle.spawn(async move {
        let mut watch = face.store.watch(request).await?;
        match watch.messages.recv().await {
            Some(WatchMessage::Events { events, .. }) => Ok(events[0].clone()),
            other => Err(KvError::Internal(format!("{other:?}"))),
        }
    });
    let until = cluster.now_ms + 5_000;
    wait(cluster, watching, until).expect("the watch answers").expect("an event")
}

/// etcd #20221: a watch from a revision that is still to come starts there, not before.
#[test]
fn a_watch_on_a_future_revision_gets_nothing_before_it() {
    let (mut cluster, _) = cluster(1, 3);
    let now = must_write(&mut cluster, None, "a/0", "now");
    let future = now + 4;
    let leader = until_led(&mut cluster, None);
    let face = cluster.faces.get(leader).unwrap();
    let request = WatchRequest {
        range: KeyRange::Prefix("a/".into()),
        start_revision: future,
        prev_kv: false,
    };
    let watching = face.handle.spawn(async move {
        let mut watch = face.store.watch(request).await.ok()?;
        match watch.messages.recv().await {
            Some(WatchMessage::Events { events, .. }) => Some(events[0].kv.mod_revision),
            _ => None,
        }
    });
    for n in 1..=6 {
        must_write(&mut cluster, None, "a/0", &format!("{n}"));
    }
    let until = cluster.now_ms + 5_000;
    assert_eq!(wait(&mut cluster, watching, until), Some(Some(future)));
    sound(cluster);
}

/// All power goes in the very moment in which a member has promised its vote, again and again.
#[test]
fn a_vote_that_was_promised_is_not_forgotten() {
    let mut cluster = Cluster::new(1, 3, None);
    for _ in 0..8 {
        let promised = cluster.network.wire().granted_terms.clone();
        let until = cluster.now_ms + 5_000;
        while cluster.network.wire().granted_terms == promised && cluster.now_ms < until {
            cluster.tick();
        }
        cluster.inflict(Fault::PowerLossEverywhere);
        cluster.run_for(1_300);
        assert_eq!(cluster.violation, None);
    }
}

/// With one of three away, dead or cut off, the others' logs are compacted all the same; one
/// that was dead comes back from a snapshot.
#[test]
fn the_log_stays_small_while_a_member_is_away() {
    const WRITES: usize = 400;
    for dead in [true, false] {
        let (mut cluster, _) = cluster(1, 3);
        must_write(&mut cluster, None, "a/1", "before");
        let leader = until_led(&mut cluster, None);
        let away = (leader + 1) % 3;
        if dead {
            cluster.end(away, false);
        } else {
            let cut = (0..3).filter(|at| *at != away).flat_map(|at| [(at, away), (away, at)]);
            cluster.inflict(Fault::Block { pairs: cut.collect(), ms: 600_000 });
        }
        let value = "x".repeat(1_000);
        for n in 0..WRITES {
            let written = write(&mut cluster, leader, "a/2", &format!("{n} {value}"));
            // The log may grow as large as the state, so that has to stay small too.
            if let Some(revision) = written.filter(|_| n % 20 == 19) {
                tell(&mut cluster, leader, Asked::Compact(revision));
            }
        }
        cluster.run_for(1_000);
        for at in [leader, (leader + 2) % 3] {
            let folder = std::path::Path::new("/data/store/log");
            let segments = cluster.hosts[at].disk.list(folder).unwrap().len();
            // Some thirty writes at most between two compactions, sixteen in a segment.
            assert!(segments <= 8, "member {at} has {segments} segments of the log, dead: {dead}");
        }
        if dead {
            // One that was cut off waits for a snapshot that was lost on its way, a minute here.
            sound(cluster);
        }
    }
}

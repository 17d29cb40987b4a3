//! Faults on real members under load: kills, pauses and partitions. Concurrent clients record
//! what they see; no acknowledged write may be lost, no read stale, no event lost, doubled or
//! out of order.
//!
//! `SKIFF_STORE_FAULTS=20 cargo test -p skiff-e2e --test store_faults -- --nocapture` makes
//! that many rounds of kills and pauses (4 by default), half as many of partitions, and prints
//! what was measured.

use std::time::{Duration, Instant};

use skiff_e2e::eventually;
use skiff_e2e::store::lan::Lan;
use skiff_e2e::store::load::Load;
use skiff_e2e::store::{Member, Members, PATIENCE};

fn rounds() -> usize {
    std::env::var("SKIFF_STORE_FAULTS").map_or(4, |n| n.parse().expect("a number of rounds"))
}

/// Until somebody else than the members given leads.
fn wait_other_leader(members: &Members, not: &[usize]) -> usize {
    eventually("another leader", PATIENCE, || match members.try_leader() {
        Ok(leader) if !not.contains(&leader) => Ok(leader),
        other => Err(format!("{other:?}")),
    })
}

fn serializable(member: &Member, key: &str) -> Result<String, String> {
    member.try_ctl(&["get", key, "--consistency=s", "--print-value-only"])
}

#[test]
fn kill_9_of_the_leader_of_three_under_load() {
    let mut members = Members::start(3);
    let load = Load::start(&members.list);
    load.wait_writes(100);
    let mut windows = Vec::new();
    for _ in 0..rounds() {
        let leader = members.leader();
        let killed = Instant::now();
        members.list[leader].kill();
        load.wait_writes(100);
        windows.push((killed, Instant::now()));
        members.list[leader].start();
        members.list[leader].wait_healthy();
        load.wait_writes(50);
    }
    let report = load.finish();
    let mut gaps: Vec<_> =
        windows.iter().map(|(from, to)| report.longest_gap(*from, *to)).collect();
    gaps.sort();
    println!(
        "{} writes, {} reads, {} of unknown outcome; without a write after kill -9 of the leader: \
         median {:?}, longest {:?} of {}",
        report.writes,
        report.reads,
        report.unknown,
        gaps[gaps.len() / 2],
        gaps[gaps.len() - 1],
        gaps.len()
    );
    // Two elections, at the worst; on a machine that does other things too.
    assert!(gaps[gaps.len() / 2] < Duration::from_secs(5), "{gaps:?}");
}

/// etcd's #20418: a leader that was paused must not answer reads from before the pause.
#[test]
fn no_stale_read_after_a_process_pause() {
    let members = Members::start(3);
    let load = Load::start(&members.list);
    for _ in 0..rounds() {
        load.wait_writes(50);
        let paused = members.leader();
        members.list[paused].pause();
        // The others elect one, and go on writing; the paused one knows nothing of it.
        load.wait_writes(100);
        members.list[paused].resume();
        members.list[paused].wait_healthy();
    }
    load.wait_writes(50);
    let report = load.finish();
    println!("{} writes, {} reads, {} unknown", report.writes, report.reads, report.unknown);
}

/// etcd's #15271: what a client has seen stays seen, whatever side it is on.
#[test]
fn no_going_back_in_time_after_a_partition() {
    let lan = Lan::new(3);
    let members = lan.members();
    let load = Load::start(&members.list);
    for _ in 0..rounds().div_ceil(2) {
        load.wait_writes(50);
        let leader = members.leader();
        members.list[leader].ctl(&["put", "before", "1"]);
        lan.isolate(leader);
        let next = wait_other_leader(&members, &[leader]);
        members.list[next].ctl(&["put", "after", "1"]);
        // The old one steps down: it neither writes nor reads for certain, but shows what it has.
        let refused = members.list[leader].ctl_fails(&["--command-timeout=9s", "put", "k", "lost"]);
        assert!(
            refused.contains("no leader")
                || refused.contains("timed out")
                || refused.contains("deadline"),
            "{refused}"
        );
        members.list[leader].ctl_fails(&["--command-timeout=9s", "get", "before"]);
        assert_eq!(
            members.list[leader].status().expect("a status").0,
            0,
            "it believes that it leads"
        );
        assert_eq!(
            serializable(&members.list[leader], "before").expect("a stale read").trim(),
            "1"
        );
        lan.heal();
        members.list[leader].wait_healthy();
        assert_eq!(members.list[leader].ctl(&["get", "after", "--print-value-only"]).trim(), "1");
        assert_eq!(members.list[leader].ctl(&["get", "k"]), "");
    }
    let report = load.finish();
    println!("{} writes, {} reads, {} unknown", report.writes, report.reads, report.unknown);
}

#[test]
fn one_way_partitions_of_the_leader() {
    let lan = Lan::new(3);
    let members = lan.members();
    let load = Load::start(&members.list);
    for round in 0..rounds().div_ceil(2) {
        load.wait_writes(50);
        let leader = members.leader();
        for other in (0..3).filter(|other| *other != leader) {
            if round % 2 == 0 {
                // It hears nobody, though all hear it.
                lan.cut(other, leader);
            } else {
                lan.cut(leader, other);
            }
        }
        wait_other_leader(&members, &[leader]);
        load.wait_writes(50);
        lan.heal();
        members.list[leader].wait_healthy();
    }
    let report = load.finish();
    println!("{} writes, {} reads, {} unknown", report.writes, report.reads, report.unknown);
}

/// A follower that is cut off does not disturb the others when it comes back.
#[test]
fn a_follower_that_was_cut_off_forces_no_election() {
    let lan = Lan::new(3);
    let members = lan.members();
    let leader = members.leader();
    let follower = (leader + 1) % 3;
    let term =
        |member: &Member| member.json(&["endpoint", "status"])[0]["Status"]["raftTerm"].clone();
    let before = term(&members.list[leader]);
    lan.isolate(follower);
    std::thread::sleep(Duration::from_secs(4));
    lan.heal();
    members.list[follower].wait_healthy();
    assert_eq!(term(&members.list[leader]), before);
    assert_eq!(members.leader(), leader);
}

/// etcd's #14685, #17780: who dies in the middle of a compaction or a defragmentation comes
/// back with the same as the others, and takes the next one.
#[test]
fn kill_9_within_compactions_and_defragmentations() {
    let mut members = Members::start(3);
    let load = Load::start(&members.list);
    for round in 0..rounds() {
        load.wait_writes(100);
        let victim = round % 3;
        let put = members.list[(victim + 1) % 3].json(&["put", "round", &round.to_string()]);
        let revision = put["header"]["revision"].as_i64().expect("a revision");
        std::thread::scope(|scope| {
            let member = &members.list[victim];
            scope.spawn(move || {
                let _ = member.try_ctl(&["compaction", &(revision - 20).to_string()]);
                let _ = member.try_ctl(&["defrag"]);
            });
            // Each round a little later, so that all parts of it are met.
            std::thread::sleep(Duration::from_millis(15 + 10 * round as u64));
            member.end_now();
        });
        members.list[victim].kill();
        load.wait_writes(20);
        members.list[victim].start();
        members.list[victim].wait_healthy();
        let read = members.list[victim].ctl(&["get", "round", "--print-value-only"]);
        assert_eq!(read.trim(), round.to_string());
    }
    let report = load.finish();
    eventually("all members have the same", PATIENCE, || {
        let hashes = members.list[0].ctl(&["endpoint", "hashkv", "--cluster"]);
        let hash = |line: &str| line.split(", ").nth(1).unwrap_or_default().to_owned();
        let hashes: Vec<_> = hashes.lines().map(hash).collect();
        let same = hashes.len() == 3 && hashes.iter().all(|hash| *hash == hashes[0]);
        if same { Ok(()) } else { Err(format!("{hashes:?}")) }
    });
    let now = members.list[0].json(&["get", "round"])["header"]["revision"].to_string();
    members.list[0].ctl(&["compaction", "--physical", &now]);
    println!("{} writes, {} reads, {} unknown", report.writes, report.reads, report.unknown);
}

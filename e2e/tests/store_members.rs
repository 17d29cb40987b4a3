//! A store of three members as etcd's own client sees it: every command of Debian's etcdctl
//! but those of Auth, through every member; and members that come, go and are replaced.

use std::time::Duration;

use skiff_e2e::eventually;
use skiff_e2e::store::load::Load;
use skiff_e2e::store::{Member, Members, PATIENCE};

#[test]
fn etcdctl_through_every_member_of_three() {
    let members = Members::start(3);
    for (at, member) in members.list.iter().enumerate() {
        keys(member, at);
        leases(member);
        maintenance(member);
    }
    let first = &members.list[0];
    let all = first.ctl(&["endpoint", "status", "--cluster", "-w", "json"]);
    let all: serde_json::Value = serde_json::from_str(&all).expect("JSON");
    assert_eq!(all.as_array().expect("a list").len(), 3, "{all}");
    first.ctl(&["endpoint", "health", "--cluster"]);
    let hashes = first.ctl(&["endpoint", "hashkv", "--cluster", "-w", "json"]);
    let hashes: serde_json::Value = serde_json::from_str(&hashes).expect("JSON");
    let hash = |at: usize| hashes[at]["HashKV"]["hash"].as_u64().expect("a hash");
    assert!(hash(0) == hash(1) && hash(1) == hash(2), "{hashes}");
    let list = first.json(&["member", "list"]);
    for member in &members.list {
        let found =
            list["members"].as_array().expect("a list").iter().find(|m| m["name"] == member.name);
        let found = found.unwrap_or_else(|| panic!("{} in {list}", member.name));
        assert_eq!(found["clientURLs"][0], member.client_url);
        assert_eq!(found["peerURLs"][0], member.peer_url);
    }
}

fn keys(member: &Member, at: usize) {
    let key = format!("k{at}");
    assert_eq!(member.ctl(&["put", &key, "1"]).trim(), "OK");
    assert_eq!(member.ctl(&["get", &key, "--print-value-only"]).trim(), "1");
    assert_eq!(member.ctl(&["get", &key, "--consistency=s", "--print-value-only"]).trim(), "1");
    let revision = member.json(&["get", &key])["header"]["revision"].as_i64().expect("a revision");
    member.ctl(&["put", &key, "2", "--prev-kv"]);
    let watched = member
        .etcdctl_for(Duration::from_secs(2), &["watch", &key, "--rev", &revision.to_string()]);
    assert!(watched.contains("PUT"), "{watched}");
    assert_eq!(member.ctl(&["del", &key]).trim(), "1");
    member.ctl(&["compaction", &(revision + 1).to_string()]);
    let gone = member.ctl_fails(&["get", &key, "--rev", &revision.to_string()]);
    assert!(gone.contains("required revision has been compacted"), "{gone}");
    let locked = member.ctl(&["lock", "gate", "--", "echo", "inside"]);
    assert!(locked.contains("inside"), "{locked}");
}

fn leases(member: &Member) {
    let granted = member.json(&["lease", "grant", "60"]);
    let id = format!("{:x}", granted["ID"].as_i64().expect("an id"));
    member.ctl(&["put", "leased", "1", "--lease", &id]);
    member.ctl(&["lease", "keep-alive", "--once", &id]);
    let left = member.json(&["lease", "timetolive", &id, "--keys"]);
    assert!(left["ttl"].as_i64().expect("a TTL") > 50, "{left}");
    assert!(member.ctl(&["lease", "list"]).contains(&id));
    member.ctl(&["lease", "revoke", &id]);
    assert_eq!(member.ctl(&["get", "leased"]), "");
}

fn maintenance(member: &Member) {
    member.ctl(&["alarm", "list"]);
    member.ctl(&["alarm", "disarm"]);
    member.ctl(&["defrag"]);
    let file = member.data_dir().with_extension("snapshot");
    member.ctl(&["snapshot", "save", file.to_str().expect("UTF-8")]);
    assert!(file.metadata().expect("a snapshot").len() > 0);
}

#[test]
fn members_join_as_learners_are_promoted_removed_and_replaced() {
    let mut members = Members::start(3);
    let load = Load::start(&members.list[..2]);
    load.wait_writes(50);

    // A learner joins, serves no votes, and is promoted when it has caught up.
    let mut fourth = members.joining("m4");
    let url = fourth.peer_url.clone();
    let added = members.list[0].json(&["member", "add", "m4", "--learner", "--peer-urls", &url]);
    let id = format!("{:x}", added["member"]["ID"].as_u64().expect("an id"));
    let early = members.list[0].ctl_fails(&["member", "promote", &id]);
    assert!(
        early.contains("can only promote a learner member which is in sync with leader"),
        "{early}"
    );
    let second = members.list[0].ctl_fails(&[
        "member",
        "add",
        "m5",
        "--learner",
        "--peer-urls",
        "http://127.0.0.1:1",
    ]);
    assert!(second.contains("too many learner members in cluster"), "{second}");
    fourth.start();
    eventually("the learner is promoted", PATIENCE, || {
        members.list[1].try_ctl(&["member", "promote", &id])
    });
    fourth.wait_healthy();
    assert_eq!(fourth.ctl(&["put", "from", "m4"]).trim(), "OK");
    members.list.push(fourth);

    // A dead member is removed, and another takes its place.
    let dead = members.list[2].status().expect("its id").1;
    members.list[2].kill();
    let dead = format!("{dead:x}");
    eventually("the dead member is removed", PATIENCE, || {
        members.list[0].try_ctl(&["member", "remove", &dead])
    });
    let mut fifth = members.joining("m5");
    let url = fifth.peer_url.clone();
    eventually("the new member is added", PATIENCE, || {
        members.list[0].try_ctl(&["member", "add", "m5", "--peer-urls", &url])
    });
    fifth.start();
    fifth.wait_healthy();
    eventually("it votes", PATIENCE, || {
        let status = fifth.ctl(&["endpoint", "status", "-w", "json"]);
        if status.contains("\"isLearner\":true") { Err(status) } else { Ok(()) }
    });

    // The removed one comes back, is told, and says so at every start.
    members.list[2].start();
    assert!(!members.list[2].wait_end().success());
    let log = members.list[2].log();
    assert!(log.contains("has been removed from the cluster"), "{log}");
    members.list[2].start();
    assert!(!members.list[2].wait_end().success());

    let report = load.finish();
    println!("{} writes, {} reads while members changed", report.writes, report.reads);
}

#[test]
fn a_member_that_lacks_the_log_gets_a_snapshot_while_writes_go_on() {
    let members = Members::start(1);
    let first = &members.list[0];
    let value = "x".repeat(100_000);
    for n in 0..20 {
        first.ctl(&["put", &format!("big{n}"), &value]);
    }
    // Alone, a member keeps nothing of the log for others: from here on it is in the snapshot.
    first.ctl(&["defrag"]);
    let load = Load::start(std::slice::from_ref(first));
    load.wait_writes(50);
    let mut second = members.joining("m2");
    let url = second.peer_url.clone();
    let added = first.json(&["member", "add", "m2", "--learner", "--peer-urls", &url]);
    let id = format!("{:x}", added["member"]["ID"].as_u64().expect("an id"));
    second.start();
    eventually("the learner is promoted", PATIENCE, || first.try_ctl(&["member", "promote", &id]));
    second.wait_healthy();
    let report = load.finish();
    let log = second.log();
    assert!(log.contains("state rebuilt from a snapshot"), "{log}");
    let keys = second.ctl(&["get", "big", "--prefix", "--keys-only"]);
    assert_eq!(keys.lines().filter(|line| !line.is_empty()).count(), 20);
    println!("{} writes", report.writes);
}

#[test]
fn a_removal_that_would_cost_the_majority_is_refused() {
    let mut members = Members::start(3);
    let leader = members.leader();
    let (dead, alive) = ((leader + 1) % 3, (leader + 2) % 3);
    let victim = format!("{:x}", members.list[alive].status().expect("its id").1);
    members.list[dead].kill();
    // An election timeout after its last answer it counts as away.
    std::thread::sleep(Duration::from_secs(2));
    let add = ["member", "add", "m9", "--peer-urls", "http://127.0.0.1:1"];
    let refused = members.list[leader].ctl_fails(&add);
    assert!(refused.contains("unhealthy cluster"), "{refused}");
    let refused = members.list[leader].ctl_fails(&["member", "remove", &victim]);
    assert!(refused.contains("unhealthy cluster"), "{refused}");
    let nobody = members.list[leader].ctl_fails(&["member", "remove", "deadbeef"]);
    assert!(nobody.contains("member not found"), "{nobody}");
}

#[test]
fn leadership_moves_under_load() {
    let members = Members::start(3);
    let load = Load::start(&members.list);
    for _ in 0..3 {
        load.wait_writes(50);
        let leader = members.leader();
        let to = (leader + 1) % 3;
        let id = format!("{:x}", members.list[to].status().expect("its id").1);
        let wrong = members.list[to].ctl_fails(&[
            "--endpoints",
            &members.list[to].client_url,
            "move-leader",
            &id,
        ]);
        assert!(
            wrong.contains("no leader endpoint given") || wrong.contains("not leader"),
            "{wrong}"
        );
        let out = members.list[0].ctl(&["--endpoints", &members.endpoints(), "move-leader", &id]);
        assert!(out.contains("Leadership transferred"), "{out}");
        assert_eq!(members.leader(), to);
    }
    load.wait_writes(50);
    let report = load.finish();
    println!("{} writes, {} reads, {} unknown", report.writes, report.reads, report.unknown);
}

#[test]
fn five_members_go_on_without_two() {
    let mut members = Members::start(5);
    let leader = members.leader();
    members.list[leader].kill();
    members.list[(leader + 1) % 5].kill();
    let alive = (leader + 2) % 5;
    eventually("a write", PATIENCE, || members.list[alive].try_ctl(&["put", "k", "1"]));
    members.list[leader].start();
    members.list[leader].wait_healthy();
    assert_eq!(members.list[leader].ctl(&["get", "k", "--print-value-only"]).trim(), "1");
}

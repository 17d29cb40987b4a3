//! Three members in one process, talking over loopback: nothing in the store assumes one.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use skiff_store::kv::*;
use skiff_store::{InitialMember, InitialState};
use support::members::*;
use support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_survive_the_loss_of_their_leader() {
    let dir = tempfile::tempdir().unwrap();
    let mut members = three(dir.path()).await;
    let first = leader(&members).await;
    put(&members[first].store, "k", "1").await;
    for member in &members {
        wait_for(&member.store, "k", "1").await;
    }
    let follower = (first + 1) % 3;
    // A follower serves too: it has applied what it acknowledges.
    put(&members[follower].store, "f", "1").await;
    let mut here = one("f");
    here.serializable = true;
    assert_eq!(members[follower].store.range(here).await.unwrap().kvs[0].value, "1");
    assert_eq!(value(&members[(first + 2) % 3].store, "f").await.as_deref(), Some("1"));

    members.remove(first).stop().await;
    let second = leader(&members).await;
    let store = &members[second].store;
    assert_eq!(value(store, "k").await.as_deref(), Some("1"));
    put(store, "k", "2").await;
    wait_for(&members[1 - second].store, "k", "2").await;

    // One of three alone is no majority: no write, and no read that might be stale.
    members.remove(second).stop().await;
    let alone = &members[0].store;
    let refused =
        tokio::time::timeout(Duration::from_secs(20), alone.range(one("k"))).await.unwrap();
    assert_eq!(refused, Err(KvError::NoLeader));
    let mut stale = one("k");
    stale.serializable = true;
    assert_eq!(alone.range(stale).await.unwrap().kvs[0].value, "2");
    members.remove(0).stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_gets_a_snapshot_and_becomes_a_voter() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, url) = listen().await;
    let first = Member::start(member_config(dir.path(), "a", &url), listener).await;
    for n in 0..100 {
        put(&first.store, &format!("k{n}"), &"x".repeat(3000)).await;
    }
    // The log before is gone, so the new member needs the snapshot.
    first.store.defragment().await.unwrap();
    put(&first.store, "after", "1").await;

    let (listener, url) = listen().await;
    let mut joining = member_config(dir.path(), "b", &url);
    joining.initial_state = InitialState::Existing;
    joining.initial_cluster = vec![
        InitialMember {
            name: "a".into(),
            peer_urls: first.store.members()[0].node.peer_urls.clone(),
        },
        InitialMember { name: "b".into(), peer_urls: vec![url.clone()] },
    ];
    let id = first.store.member_add(vec![url], true).await.unwrap();
    let second = Member::start(joining, listener).await;
    wait_for(&second.store, "after", "1").await;
    assert!(second.store.status().is_learner);
    first.store.member_promote(id).await.unwrap();
    put(&first.store, "both", "1").await;
    wait_for(&second.store, "both", "1").await;
    assert_eq!(first.store.hash_kv(0).await.unwrap(), second.store.hash_kv(0).await.unwrap());

    first.store.move_leader(id).await.unwrap();
    let members = [first, second];
    for _ in 0..200 {
        if members[1].store.txn(txn(vec![put_op("moved", "1")])).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    wait_for(&members[0].store, "moved", "1").await;
    for member in members {
        member.stop().await;
    }
}

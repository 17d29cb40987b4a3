//! Alarms: raised on one member they hold on all and survive restarts; a full disk raises
//! and lowers its own.
#![allow(clippy::unwrap_used)]

mod support;

use skiff_store::kv::*;
use skiff_store::{AlarmChange, RaisedAlarm, Store};
use support::members::*;
use support::*;

fn about(member: u64, alarm: Alarm) -> RaisedAlarm {
    RaisedAlarm { member, alarm, by_itself: false }
}

async fn raise(store: &Store, of: RaisedAlarm) {
    assert_eq!(store.alarm(AlarmChange { raise: true, of }).await, Ok(Some(of)));
}

async fn lower(store: &Store, of: RaisedAlarm) {
    assert_eq!(store.alarm(AlarmChange { raise: false, of }).await, Ok(Some(of)));
}

async fn try_put(store: &Store, key: &str) -> Result<Revision, KvError> {
    store.txn(txn(vec![put_op(key, "v")])).await.map(|response| response.revision)
}

async fn wait_alarms(members: &[Member], expected: &[RaisedAlarm]) {
    for member in members {
        let same = async || member.store.alarms() == expected;
        eventually(&format!("member {} knows {expected:?}", member.config.name), same).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_holds_on_all_members_and_survives_their_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut members = three(dir.path()).await;
    leader(&members).await;
    put(&members[0].store, "k", "1").await;
    // About a member that need not exist, as in etcd.
    let (full, corrupt) = (about(7, Alarm::NoSpace), about(7, Alarm::Corrupt));
    raise(&members[0].store, full).await;
    wait_alarms(&members, &[full]).await;
    for member in &members {
        let store = &member.store;
        assert_eq!(try_put(store, "k").await, Err(KvError::Alarmed(Alarm::NoSpace)));
        let granted = store.lease_grant(0, 60).await;
        assert_eq!(granted, Err(KvError::Alarmed(Alarm::NoSpace)));
        assert_eq!(value(store, "k").await.as_deref(), Some("1"));
    }
    delete(&members[1].store, "k").await;

    // From the log, then from a snapshot and the engine.
    for snapshot in [false, true] {
        let mut configs = Vec::new();
        for member in members.drain(..) {
            if snapshot {
                member.store.defragment().await.unwrap();
            }
            configs.push(member.config.clone());
            member.stop().await;
        }
        for config in configs {
            members.push(Member::start_again(config).await);
        }
        leader(&members).await;
        wait_alarms(&members, &[full]).await;
        let refused = try_put(&members[2].store, "k").await;
        assert_eq!(refused, Err(KvError::Alarmed(Alarm::NoSpace)));
    }

    raise(&members[1].store, corrupt).await;
    wait_alarms(&members, &[full, corrupt]).await;
    for member in &members {
        let store = &member.store;
        let refused = KvError::Alarmed(Alarm::Corrupt);
        assert_eq!(try_put(store, "k").await, Err(refused.clone()));
        let deletes = txn(vec![delete_op(KeyRange::One("k".into()))]);
        assert_eq!(store.txn(deletes).await, Err(refused.clone()));
        assert_eq!(store.compact(2, false).await, Err(refused));
        assert_eq!(value(store, "k").await, None);
    }
    lower(&members[2].store, full).await;
    lower(&members[2].store, corrupt).await;
    wait_alarms(&members, &[]).await;
    put(&members[0].store, "k", "2").await;
    for member in members {
        member.stop().await;
    }
}

/// A lease that runs out while nothing may change is revoked as soon as it may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_run_out_once_the_cluster_is_not_corrupt_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (lease, _) = store.lease_grant(5, 2).await.unwrap();
    let mut put = put_op("held", "1");
    if let Op::Put(put) = &mut put {
        put.lease = lease;
    }
    store.txn(txn(vec![put])).await.unwrap();
    let corrupt = about(1, Alarm::Corrupt);
    raise(&store, corrupt).await;
    assert_eq!(store.lease_revoke(lease).await, Err(KvError::Alarmed(Alarm::Corrupt)));
    let due = async || store.lease_time_to_live(lease, false).await.unwrap().ttl_seconds == 0;
    eventually("the lease is due", due).await;
    assert_eq!(value(&store, "held").await.as_deref(), Some("1"));
    lower(&store, corrupt).await;
    eventually("the lease takes its key", async || value(&store, "held").await.is_none()).await;
    store.shutdown().await;
}

/// With members on disks of their own: below the minimum, above its half, and enough for what
/// the test still writes.
const LEFT_BYTES: u64 = 18 << 20;
const MIN_FREE_BYTES: u64 = 24 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disks_are_told_of_and_refuse_only_what_cannot_be_kept() {
    let dir = tempfile::tempdir().unwrap();
    let disks: Vec<_> = ["a", "b", "c"].map(|name| Tmpfs::mount(dir.path().join(name), 96)).into();
    let members = three_with(dir.path(), |config| config.min_free_bytes = MIN_FREE_BYTES).await;
    leader(&members).await;
    for n in 0..4 {
        put(&members[0].store, &format!("k{n}"), "1").await;
    }
    let leads = |member: &Member| {
        let status = member.store.status();
        status.leader == status.member_id
    };
    let first = members.iter().position(leads).unwrap();
    let (second, third) = ((first + 1) % 3, (first + 2) % 3);
    let own = |at: usize| RaisedAlarm {
        member: members[at].store.identity().member_id,
        alarm: Alarm::NoSpace,
        by_itself: true,
    };
    let sorted = |mut alarms: Vec<RaisedAlarm>| {
        alarms.sort_by_key(|raised| raised.member);
        alarms
    };

    // One follower: all are told, and the others go on. It looks after so many bytes.
    disks[second].fill(LEFT_BYTES);
    let big = "x".repeat(1 << 20);
    put(&members[first].store, "big", &big).await;
    put(&members[first].store, "big", &big).await;
    wait_alarms(&members, &[own(second)]).await;
    put(&members[second].store, "k0", "2").await;

    // Two of three: nothing could be written down any more, and that is said at once.
    disks[third].fill(LEFT_BYTES);
    put(&members[first].store, "big", &big).await;
    put(&members[first].store, "big", &big).await;
    wait_alarms(&members, &sorted(vec![own(second), own(third)])).await;
    for member in &members {
        let refused = try_put(&member.store, "k1").await;
        assert_eq!(refused, Err(KvError::Alarmed(Alarm::NoSpace)));
        assert_eq!(value(&member.store, "k0").await.as_deref(), Some("2"));
    }
    delete(&members[third].store, "k2").await;
    members[third].store.compact(members[third].store.revision(), true).await.unwrap();

    // The leader: what frees space goes through, also in one batch with what does not.
    disks[second].empty();
    disks[third].empty();
    wait_alarms(&members, &[]).await;
    disks[first].fill(LEFT_BYTES);
    let store = &members[first].store;
    let path = members[first].config.data_dir.display().to_string();
    let (refused, deleted) = tokio::join!(try_put(store, "k1"), async {
        store.txn(txn(vec![delete_op(KeyRange::One("k1".into()))])).await
    });
    assert_eq!(refused, Err(KvError::NoSpace { path: path.clone() }));
    assert!(deleted.is_ok(), "{deleted:?}");
    assert_eq!(try_put(&members[second].store, "k1").await, Err(KvError::NoSpace { path }));
    wait_alarms(&members, &[own(first)]).await;

    // Space comes back, and nobody has to do anything.
    disks[first].empty();
    put(store, "k1", "3").await;
    wait_alarms(&members, &[]).await;
    for member in members {
        member.stop().await;
    }
}

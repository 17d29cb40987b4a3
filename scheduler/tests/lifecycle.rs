//! The scheduler's state over time: assume, bind, fail, expire, wake, preempt. No I/O; time
//! is given.

mod fixture;

use fixture::*;
use serde_json::json;
use skiff_scheduler::pod::PodInfo;
use skiff_scheduler::random::Random;

fn priority(value: i32, request: &str) -> serde_json::Value {
    both(cpu(request), json!({"spec": {"priority": value}}))
}

#[test]
fn an_assumed_pod_takes_room_before_the_watch_shows_it() {
    let mut s = scheduler([node("n", json!({}))]);
    assert_eq!(place(&mut s, pod("a", cpu("3"))), "n");
    let full = "0/1 nodes are available: 1 Insufficient cpu. preemption: \
                0/1 nodes are available: 1 No preemption victims found for incoming pod.";
    assert_eq!(place(&mut s, pod("b", cpu("3"))), full);
}

#[test]
fn a_failed_binding_gives_the_room_back_and_tries_again() {
    let mut s = scheduler([node("n", json!({}))]);
    assert_eq!(place(&mut s, pod("a", cpu("3"))), "n");
    s.bind_failed(&"a".into(), at(0));
    assert_eq!(s.nodes().pod_count(), 0);
    assert_eq!(next(&mut s, at(0)), "nothing");
    assert_eq!(s.next_moment(), Some(at(1)));
    assert_eq!(next(&mut s, at(1)), "n");
}

#[test]
fn a_failure_after_the_watch_showed_the_binding_changes_nothing() {
    let mut s = scheduler([node("n", json!({}))]);
    let a = pod("a", cpu("3"));
    assert_eq!(place(&mut s, a.clone()), "n");
    s.set_pod(assigned(&a, "n"), at(1));
    s.bind_failed(&"a".into(), at(1));
    assert_eq!(s.nodes().pod_count(), 1);
    assert_eq!(next(&mut s, at(100)), "nothing");
}

#[test]
fn a_pod_deleted_while_it_is_bound_is_forgotten() {
    let mut s = scheduler([node("n", json!({}))]);
    assert_eq!(place(&mut s, pod("a", cpu("3"))), "n");
    s.remove_pod(&"a".into(), at(0));
    s.bind_failed(&"a".into(), at(0));
    assert_eq!((s.nodes().pod_count(), next(&mut s, at(100))), (0, "nothing".into()));
}

#[test]
fn a_binding_that_never_shows_expires() {
    let mut s = scheduler([node("n", json!({}))]);
    assert_eq!(place(&mut s, pod("a", cpu("3"))), "n");
    s.bound(&"a".into(), at(0));
    assert_eq!(s.next_moment(), Some(at(30)));
    assert_eq!(next(&mut s, at(29)), "nothing");
    assert_eq!(next(&mut s, at(30)), "n");
}

#[test]
fn room_wakes_who_waits_for_it() {
    let mut s = scheduler([node("n", json!({}))]);
    let a = pod("a", cpu("4"));
    place(&mut s, a.clone());
    s.set_pod(assigned(&a, "n"), at(0));
    place(&mut s, pod("b", cpu("4")));
    // A heartbeat, a node that is too small, a cordoned node: no use.
    s.set_node(node("n", json!({})), at(5));
    let small = json!({"status": {"allocatable": {"cpu": "1"}}});
    s.set_node(node("small", small), at(5));
    assert_eq!(next(&mut s, at(5)), "nothing");
    s.remove_pod(&"a".into(), at(5));
    assert_eq!(next(&mut s, at(5)), "n");
}

#[test]
fn a_new_node_or_a_removed_taint_wakes() {
    let tainted = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let mut s = scheduler([node("n", tainted)]);
    place(&mut s, pod("a", json!({})));
    s.set_node(node("n", json!({})), at(2));
    assert_eq!(next(&mut s, at(2)), "n");
    let mut s = scheduler([]);
    assert_eq!(place(&mut s, pod("a", json!({}))), "no nodes available to schedule pods");
    s.set_node(node("n", json!({})), at(2));
    assert_eq!(next(&mut s, at(2)), "n");
}

#[test]
fn other_schedulers_pods_count_but_are_not_placed() {
    let mut s = scheduler([node("n", json!({}))]);
    let other = pod("a", both(cpu("4"), json!({"spec": {"schedulerName": "mine"}})));
    assert_eq!(place(&mut s, other.clone()), "nothing");
    s.set_pod(assigned(&other, "n"), at(0));
    assert!(place(&mut s, pod("b", cpu("1"))).contains("Insufficient cpu"));
}

#[test]
fn a_pod_seen_before_its_node_counts_once_the_node_comes() {
    let mut s = scheduler([]);
    s.set_pod(assigned(&pod("a", cpu("4")), "n"), at(0));
    s.set_node(node("n", json!({})), at(0));
    assert!(place(&mut s, pod("b", cpu("1"))).contains("Insufficient cpu"));
}

#[test]
fn a_gated_pod_waits_without_an_attempt() {
    let mut s = scheduler([node("n", json!({}))]);
    let gated = json!({"spec": {"schedulingGates": [{"name": "quota"}]}});
    assert_eq!(place(&mut s, pod("a", gated)), "nothing");
    assert_eq!(place(&mut s, pod("a", json!({}))), "n");
}

#[test]
fn preemption_takes_the_least_important_and_no_more_than_needed() {
    let mut s = scheduler([node("a", json!({})), node("b", json!({}))]);
    for (on, name, value) in [("a", "a1", 10), ("a", "a2", 5), ("b", "b1", 20), ("b", "b2", 5)] {
        s.set_pod(assigned(&pod(name, priority(value, "2")), on), at(0));
    }
    // On both nodes the pod of priority 5 is enough; on a tie the first node is taken.
    let said = place(&mut s, pod("vip", priority(100, "2")));
    assert!(said == "preempt a2 on a" || said == "preempt b2 on b", "{said}");
    let said = place(&mut s, pod("huge", priority(100, "4")));
    assert_eq!(said, if said.ends_with('a') { "preempt a1 a2 on a" } else { "preempt b1 b2 on b" });
}

#[test]
fn the_room_made_belongs_to_the_pod_it_was_made_for() {
    let mut s = scheduler([node("n", json!({}))]);
    s.set_pod(assigned(&pod("low", priority(0, "4")), "n"), at(0));
    assert_eq!(place(&mut s, pod("vip", priority(100, "4"))), "preempt low on n");
    s.remove_pod(&"low".into(), at(2));
    // The thief comes in the same moment but is less important.
    s.set_pod(pod("thief", priority(50, "4")), at(2));
    assert_eq!(next(&mut s, at(2)), "n");
    assert_eq!(s.nodes().home(&"vip".into()).map(|(n, _)| &*n.info.name), Some("n"));
}

#[test]
fn preemption_says_why_it_does_not_help() {
    let mut s = scheduler([node("n", json!({}))]);
    s.set_pod(assigned(&pod("low", priority(0, "4")), "n"), at(0));
    let patient = both(priority(100, "4"), json!({"spec": {"preemptionPolicy": "Never"}}));
    assert_eq!(
        place(&mut s, pod("patient", patient)),
        "0/1 nodes are available: 1 Insufficient cpu. \
         preemption: not eligible due to preemptionPolicy=Never."
    );
    assert_eq!(
        place(&mut s, pod("huge", priority(100, "5"))),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: \
         0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    );
}

/// Random pods, nodes, failures and deletions: no node ever gives away more than it has, and
/// the sums agree with the pods.
#[test]
fn never_over_allocates() {
    for seed in 0..50 {
        let mut random = Random::new(seed);
        let mut s = scheduler((0..5).map(|n| node(&format!("n{n}"), json!({}))));
        let mut live: Vec<std::sync::Arc<PodInfo>> = Vec::new();
        for step in 0..200u64 {
            let now = at(step);
            match random.below(10) {
                0..=5 => {
                    let request = format!("{}m", 100 + random.below(2000));
                    let value = random.below(3) as i32;
                    let new = pod(&format!("p{step}"), priority(value, &request));
                    s.set_pod(new.clone(), now);
                    live.push(new);
                }
                6 | 7 if !live.is_empty() => {
                    let gone = live.swap_remove(random.below(live.len()));
                    s.remove_pod(&gone.uid, now);
                }
                8 if !live.is_empty() => s.bind_failed(&live[random.below(live.len())].uid, now),
                _ => {
                    for pod in &live {
                        let home = s.nodes().home(&pod.uid).map(|(n, _)| n.info.name.clone());
                        if let Some(home) = home {
                            s.set_pod(assigned(pod, &home), now);
                        }
                    }
                }
            }
            while s.decide(now).is_some() {}
            for node in s.nodes().iter() {
                let sum: i64 = node.pods.values().map(|p| p.requests.milli_cpu).sum();
                let used = node.requested.milli_cpu;
                assert_eq!(used, sum, "seed {seed} step {step} node {}", node.info.name);
                assert!(used <= 4000, "seed {seed} step {step}: {used}m on {}", node.info.name);
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_choices() {
    let run = || {
        let mut s = scheduler((0..20).map(|n| node(&format!("n{n}"), json!({}))));
        (0..50).map(|n| place(&mut s, pod(&format!("p{n}"), json!({})))).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

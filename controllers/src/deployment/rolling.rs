//! The arithmetic of a rollout: how far the new set may grow, how far old ones may shrink,
//! and how a change of size is shared among several. Pure.

use super::plan::Rollout;
use super::set::{self, DESIRED_REPLICAS, MAX_REPLICAS, Set};
use super::sizes::{Sizes, is_recreate};

/// The size of the new set that the surge allows, given its present one.
pub fn new_size(rollout: &Rollout<'_>, current: i32) -> i32 {
    let sizes = &rollout.sizes;
    if is_recreate(&rollout.deployment.value.spec) {
        return sizes.replicas;
    }
    let total = set::replicas(&rollout.old) + current;
    let room = (sizes.max_total() - total).max(0);
    current + room.min(sizes.replicas - current).max(0)
}

/// Grows or shrinks the new set; true if it changed.
pub fn resize_new(rollout: &mut Rollout<'_>) -> bool {
    let Some(current) = rollout.new.as_ref().map(|set| set.replicas) else { return false };
    let wanted = rollout.sizes.replicas;
    let size = if current >= wanted { wanted } else { new_size(rollout, current) };
    if size == current {
        return false;
    }
    if let Some(new) = &mut rollout.new {
        new.scale(size, &rollout.sizes);
    }
    true
}

/// Shrinks old sets as far as availability allows: first pods that do not serve anyway,
/// then the oldest. True if any changed.
pub fn shrink_old(rollout: &mut Rollout<'_>) -> bool {
    let sizes = rollout.sizes;
    let old = set::replicas(&rollout.old);
    if old == 0 {
        return false;
    }
    let Some(new) = &rollout.new else { return false };
    let new_unavailable = new.replicas - new.status.available_replicas;
    // New pods that are not available yet count against what may go.
    let may_go = old + new.replicas - sizes.min_available() - new_unavailable;
    if may_go <= 0 {
        return false;
    }
    let before = old;
    let available: i32 =
        rollout.old.iter().chain(&rollout.new).map(|set| set.status.available_replicas).sum();
    shrink_unhealthy(&mut rollout.old, may_go, &sizes);
    shrink_oldest(&mut rollout.old, available - sizes.min_available(), &sizes);
    set::replicas(&rollout.old) != before
}

fn shrink_unhealthy(old: &mut [Set], may_go: i32, sizes: &Sizes) {
    let mut left = may_go;
    for set in old.iter_mut() {
        let unhealthy = (set.replicas - set.status.available_replicas).max(0);
        let down = unhealthy.min(left);
        if down > 0 {
            set.scale(set.replicas - down, sizes);
            left -= down;
        }
    }
}

fn shrink_oldest(old: &mut [Set], may_go: i32, sizes: &Sizes) {
    let mut left = may_go;
    for set in old.iter_mut() {
        let down = set.replicas.min(left);
        if down > 0 {
            set.scale(set.replicas - down, sizes);
            left -= down;
        }
    }
}

/// Follows a change of `replicas`, or keeps a paused Deployment at its size.
pub fn scale(rollout: &mut Rollout<'_>) {
    let sizes = rollout.sizes;
    if let Some(only) = active_or_latest(rollout) {
        if only.replicas != sizes.replicas || desired(only) != Some(sizes.replicas) {
            only.scale(sizes.replicas, &sizes);
        }
        return;
    }
    if rollout.new.as_ref().is_some_and(|new| is_saturated(new, &sizes)) {
        for old in rollout.old.iter_mut().filter(|set| set.replicas > 0) {
            old.scale(0, &sizes);
        }
        return;
    }
    if !is_recreate(&rollout.deployment.value.spec) {
        scale_in_proportion(rollout);
    }
}

fn desired(set: &Set) -> Option<i32> {
    set.number(DESIRED_REPLICAS).and_then(|n| i32::try_from(n).ok())
}

/// The only active set; with none active the new one, or else the latest.
fn active_or_latest<'r>(rollout: &'r mut Rollout<'_>) -> Option<&'r mut Set> {
    let active = rollout.old.iter().chain(&rollout.new).filter(|set| set.replicas > 0).count();
    match active {
        0 => rollout.new.as_mut().or(rollout.old.last_mut()),
        1 => rollout.old.iter_mut().chain(&mut rollout.new).find(|set| set.replicas > 0),
        _ => None,
    }
}

fn is_saturated(new: &Set, sizes: &Sizes) -> bool {
    new.replicas == sizes.replicas
        && desired(new) == Some(sizes.replicas)
        && new.status.available_replicas == sizes.replicas
}

/// Shares pods to add or to remove among the active sets by their sizes; what rounding
/// leaves goes to the largest.
fn scale_in_proportion(rollout: &mut Rollout<'_>) {
    let sizes = rollout.sizes;
    let status_replicas = rollout.deployment.value.status.replicas;
    let mut active: Vec<&mut Set> =
        rollout.old.iter_mut().chain(&mut rollout.new).filter(|set| set.replicas > 0).collect();
    let total: i32 = active.iter().map(|set| set.replicas).sum();
    let allowed = if sizes.replicas > 0 { sizes.max_total() } else { 0 };
    let to_add = allowed - total;
    let order = {
        let views: Vec<&Set> = active.iter().map(|set| &**set).collect();
        set::order_by_size(&views, to_add > 0)
    };
    let mut added = 0;
    let mut wanted = vec![0; active.len()];
    for &at in &order {
        let set = &active[at];
        let share = proportion(set, &sizes, status_replicas, to_add, added);
        wanted[at] = set.replicas + share;
        added += share;
    }
    if let (Some(&largest), true) = (order.first(), to_add != 0) {
        wanted[largest] = (wanted[largest] + to_add - added).max(0);
    }
    for (set, size) in active.iter_mut().zip(wanted) {
        set.scale(size, &sizes);
    }
}

fn proportion(set: &Set, sizes: &Sizes, status_replicas: i32, to_add: i32, added: i32) -> i32 {
    if set.replicas == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let fraction = fraction(set, sizes, status_replicas);
    let left = to_add - added;
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}

/// How the set would change if all sets kept their shares of the total.
fn fraction(set: &Set, sizes: &Sizes, status_replicas: i32) -> i32 {
    if sizes.replicas == 0 {
        return -set.replicas;
    }
    let before = set.number(MAX_REPLICAS).filter(|max| *max > 0);
    let before = before.unwrap_or(i64::from(status_replicas));
    if before <= 0 {
        return 0;
    }
    let size = f64::from(set.replicas) * f64::from(sizes.max_total()) / before as f64;
    // Rounds halves away from zero, as upstream does.
    size.round() as i32 - set.replicas
}

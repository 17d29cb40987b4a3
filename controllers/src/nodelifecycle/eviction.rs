//! When a pod has to leave a tainted node. Pure.

use std::time::{Duration, SystemTime};

use skiff_proto::model::{Taint, Toleration};

use super::taints::NO_EXECUTE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    Never,
    Now,
    After(Duration),
}

/// A taint with the time it has been there; for those without `timeAdded` the time it was
/// first seen.
pub struct Since<'a> {
    pub taint: &'a Taint,
    pub since: SystemTime,
}

pub fn eviction(taints: &[Since<'_>], tolerations: &[Toleration], now: SystemTime) -> Eviction {
    let mut first: Option<Duration> = None;
    for Since { taint, since } in taints.iter().filter(|t| t.taint.effect == NO_EXECUTE) {
        let Some(toleration) = tolerations.iter().find(|t| tolerates(t, taint)) else {
            return Eviction::Now;
        };
        let Some(seconds) = toleration.toleration_seconds else { continue };
        let stays = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let left = stays.saturating_sub(now.duration_since(*since).unwrap_or_default());
        first = Some(first.map_or(left, |known| known.min(left)));
    }
    match first {
        None => Eviction::Never,
        Some(Duration::ZERO) => Eviction::Now,
        Some(left) => Eviction::After(left),
    }
}

/// Upstream's `Toleration.ToleratesTaint`.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    if !toleration.effect.is_empty() && toleration.effect != taint.effect {
        return false;
    }
    if !toleration.key.is_empty() && toleration.key != taint.key {
        return false;
    }
    match toleration.operator.as_str() {
        "Exists" => true,
        "" | "Equal" => toleration.value == taint.value,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(taints: Value, tolerations: Value, expected: Eviction) {
        let taints: Vec<Taint> = serde_json::from_value(taints).expect("taints");
        let tolerations: Vec<Toleration> =
            serde_json::from_value(tolerations).expect("tolerations");
        let since = SystemTime::UNIX_EPOCH;
        let seen: Vec<Since<'_>> = taints.iter().map(|taint| Since { taint, since }).collect();
        let now = since + Duration::from_secs(100);
        assert_eq!(eviction(&seen, &tolerations, now), expected);
    }

    #[test]
    fn tolerations_decide() {
        let dead = json!([{"key": "dead", "effect": "NoExecute"}]);
        let left = |s| Eviction::After(Duration::from_secs(s));
        check(json!([]), json!([]), Eviction::Never);
        check(json!([{"key": "dead", "effect": "NoSchedule"}]), json!([]), Eviction::Never);
        check(dead.clone(), json!([]), Eviction::Now);
        check(dead.clone(), json!([{"operator": "Exists"}]), Eviction::Never);
        check(
            dead.clone(),
            json!([{"key": "dead", "operator": "Exists", "tolerationSeconds": 300}]),
            left(200),
        );
        check(
            dead.clone(),
            json!([{"key": "dead", "operator": "Exists", "tolerationSeconds": 100}]),
            Eviction::Now,
        );
        check(
            dead.clone(),
            json!([{"key": "dead", "operator": "Exists", "tolerationSeconds": -1}]),
            Eviction::Now,
        );
        check(dead.clone(), json!([{"key": "dead", "value": "x"}]), Eviction::Now);
        check(
            dead,
            json!([{"key": "dead", "effect": "NoSchedule", "operator": "Exists"}]),
            Eviction::Now,
        );
    }

    #[test]
    fn the_shortest_of_several_counts_and_all_must_be_tolerated() {
        let two = json!([{"key": "a", "effect": "NoExecute"}, {"key": "b", "value": "1", "effect": "NoExecute"}]);
        let a = json!({"key": "a", "operator": "Exists", "tolerationSeconds": 500});
        let b = json!({"key": "b", "value": "1", "tolerationSeconds": 160});
        check(two.clone(), json!([a, b]), Eviction::After(Duration::from_secs(60)));
        check(two, json!([a]), Eviction::Now);
    }
}

//! How many pods there may be at most and must be at least. Pure.

use skiff_proto::IntOrString;
use skiff_proto::model::DeploymentSpec;

/// The numbers a rollout keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    pub replicas: i32,
    pub max_surge: i32,
    pub max_unavailable: i32,
}

pub fn is_recreate(spec: &DeploymentSpec) -> bool {
    spec.strategy.type_ == "Recreate"
}

impl Sizes {
    pub fn of(spec: &DeploymentSpec) -> Self {
        let replicas = spec.replicas.unwrap_or(1);
        if is_recreate(spec) {
            return Self { replicas, max_surge: 0, max_unavailable: 0 };
        }
        let quarter = IntOrString::String("25%".into());
        let rolling = spec.strategy.rolling_update.as_ref();
        let surge = rolling.and_then(|r| r.max_surge.as_ref()).unwrap_or(&quarter);
        let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&quarter);
        let max_surge = surge.scaled(replicas, true).unwrap_or(0);
        let mut max_unavailable = unavailable.scaled(replicas, false).unwrap_or(0);
        if max_surge == 0 && max_unavailable == 0 {
            // Validation keeps users from setting both to zero; percentages of few replicas
            // can still come to that, and then nothing could move.
            max_unavailable = 1;
        }
        Self { replicas, max_surge, max_unavailable: max_unavailable.min(replicas) }
    }

    pub fn max_total(&self) -> i32 {
        self.replicas + self.max_surge
    }

    pub fn min_available(&self) -> i32 {
        self.replicas - self.max_unavailable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn surge_rounds_up_and_unavailable_down() {
        for (replicas, surge, unavailable, expected) in [
            (10, json!("25%"), json!("25%"), (3, 2)),
            (1, json!("25%"), json!("25%"), (1, 0)),
            (3, json!(0), json!("10%"), (0, 1)),
            (2, json!(5), json!(9), (5, 2)),
            (0, json!("25%"), json!("25%"), (0, 0)),
            (4, json!("100%"), json!("0%"), (4, 0)),
        ] {
            let spec: DeploymentSpec = serde_json::from_value(json!({
                "replicas": replicas,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
            }))
            .expect("a spec");
            let sizes = Sizes::of(&spec);
            assert_eq!(
                (sizes.max_surge, sizes.max_unavailable),
                expected,
                "{replicas} {surge} {unavailable}"
            );
        }
    }

    #[test]
    fn recreate_has_no_leeway() {
        let spec: DeploymentSpec =
            serde_json::from_value(json!({"replicas": 8, "strategy": {"type": "Recreate"}}))
                .expect("a spec");
        assert_eq!(Sizes::of(&spec), Sizes { replicas: 8, max_surge: 0, max_unavailable: 0 });
    }
}

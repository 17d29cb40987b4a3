//! Deployment and ReplicaSet. Pod templates stay raw: they are passed on, not read.

use serde_json::Value;

use crate::int_or_string::IntOrString;
use crate::meta::{Condition, ObjectMeta};
use crate::selector::LabelSelector;

model! {
    Deployment { metadata: ObjectMeta, spec: DeploymentSpec, status: DeploymentStatus }
    DeploymentSpec {
        replicas: Option<i32>,
        selector: LabelSelector,
        template: Value,
        strategy: DeploymentStrategy,
        min_ready_seconds: i32,
        revision_history_limit: Option<i32>,
        paused: bool,
        progress_deadline_seconds: Option<i32>,
    }
    DeploymentStrategy { #[serde(rename = "type")] type_: String, rolling_update: Option<RollingUpdateDeployment> }
    RollingUpdateDeployment { max_unavailable: Option<IntOrString>, max_surge: Option<IntOrString> }
    DeploymentStatus {
        observed_generation: i64,
        replicas: i32,
        updated_replicas: i32,
        ready_replicas: i32,
        available_replicas: i32,
        unavailable_replicas: i32,
        conditions: Vec<Condition>,
        collision_count: Option<i32>,
    }
    ReplicaSet { metadata: ObjectMeta, spec: ReplicaSetSpec, status: ReplicaSetStatus }
    ReplicaSetSpec { replicas: Option<i32>, min_ready_seconds: i32, selector: LabelSelector, template: Value }
}

/// Upstream writes `replicas` even when it is zero.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaSetStatus {
    pub replicas: i32,
    #[serde(skip_serializing_if = "super::is_default")]
    pub fully_labeled_replicas: i32,
    #[serde(skip_serializing_if = "super::is_default")]
    pub ready_replicas: i32,
    #[serde(skip_serializing_if = "super::is_default")]
    pub available_replicas: i32,
    #[serde(skip_serializing_if = "super::is_default")]
    pub observed_generation: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

//! Deployments and ReplicaSets, and the Scale both can be seen as.

use super::meta::{LABEL_SELECTOR, OBJECT_META};
use super::pod::POD_TEMPLATE_SPEC;
use crate::registry::field_table::*;

pub static DEPLOYMENT: FieldTable = table(
    "Deployment",
    &[
        string("apiVersion"),
        string("kind"),
        object("metadata", &OBJECT_META),
        object("spec", &DEPLOYMENT_SPEC).or_empty(),
        object("status", &DEPLOYMENT_STATUS).or_empty(),
    ],
);

pub static DEPLOYMENT_SPEC: FieldTable = table(
    "DeploymentSpec",
    &[
        int32("replicas").pointer().or_int(1),
        object("selector", &LABEL_SELECTOR).required().immutable(),
        object("template", &POD_TEMPLATE_SPEC).required().or_empty(),
        object("strategy", &DEPLOYMENT_STRATEGY).or_empty().retain_keys(),
        int32("minReadySeconds"),
        int32("revisionHistoryLimit").pointer().or_int(10),
        boolean("paused"),
        int32("progressDeadlineSeconds").pointer().or_int(600),
    ],
);

pub static DEPLOYMENT_STRATEGY: FieldTable = table(
    "DeploymentStrategy",
    &[
        text("type", "DeploymentStrategyType").or("RollingUpdate"),
        object("rollingUpdate", &ROLLING_UPDATE_DEPLOYMENT),
    ],
);

pub static ROLLING_UPDATE_DEPLOYMENT: FieldTable = table(
    "RollingUpdateDeployment",
    &[int_or_string("maxUnavailable").or("25%"), int_or_string("maxSurge").or("25%")],
);

pub static DEPLOYMENT_STATUS: FieldTable = table(
    "DeploymentStatus",
    &[
        int64("observedGeneration"),
        int32("replicas"),
        int32("updatedReplicas"),
        int32("readyReplicas"),
        int32("availableReplicas"),
        int32("unavailableReplicas"),
        int32("terminatingReplicas").pointer(),
        objects("conditions", &DEPLOYMENT_CONDITION).keyed(&["type"]).merge("type"),
        int32("collisionCount").pointer(),
    ],
);

pub static DEPLOYMENT_CONDITION: FieldTable = table(
    "DeploymentCondition",
    &[
        text("type", "DeploymentConditionType").required(),
        text("status", "ConditionStatus").required(),
        time("lastUpdateTime"),
        time("lastTransitionTime"),
        string("reason"),
        string("message"),
    ],
);

pub static REPLICA_SET: FieldTable = table(
    "ReplicaSet",
    &[
        string("apiVersion"),
        string("kind"),
        object("metadata", &OBJECT_META),
        object("spec", &REPLICA_SET_SPEC).or_empty(),
        object("status", &REPLICA_SET_STATUS).or_empty(),
    ],
);

pub static REPLICA_SET_SPEC: FieldTable = table(
    "ReplicaSetSpec",
    &[
        int32("replicas").pointer().or_int(1),
        int32("minReadySeconds"),
        object("selector", &LABEL_SELECTOR).required().immutable(),
        object("template", &POD_TEMPLATE_SPEC).or_empty(),
    ],
);

pub static REPLICA_SET_STATUS: FieldTable = table(
    "ReplicaSetStatus",
    &[
        int32("replicas").required().or_int(0),
        int32("fullyLabeledReplicas"),
        int32("readyReplicas"),
        int32("availableReplicas"),
        int32("terminatingReplicas").pointer(),
        int64("observedGeneration"),
        objects("conditions", &REPLICA_SET_CONDITION).keyed(&["type"]).merge("type"),
    ],
);

pub static REPLICA_SET_CONDITION: FieldTable = table(
    "ReplicaSetCondition",
    &[
        text("type", "ReplicaSetConditionType").required(),
        text("status", "ConditionStatus").required(),
        time("lastTransitionTime"),
        string("reason"),
        string("message"),
    ],
);

/// `autoscaling/v1`: the body of the `scale` subresource.
pub static SCALE: FieldTable = table(
    "Scale",
    &[
        string("apiVersion"),
        string("kind"),
        object("metadata", &OBJECT_META),
        object("spec", &SCALE_SPEC).or_empty(),
        object("status", &SCALE_STATUS).or_empty(),
    ],
);

pub static SCALE_SPEC: FieldTable = table("ScaleSpec", &[int32("replicas")]);

pub static SCALE_STATUS: FieldTable =
    table("ScaleStatus", &[int32("replicas").required().or_int(0), string("selector")]);

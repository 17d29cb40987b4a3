//! Where a pod may and would rather run: affinity, tolerations, spreading.

use super::meta::LABEL_SELECTOR;
use crate::registry::field_table::*;

pub static AFFINITY: FieldTable = table(
    "Affinity",
    &[
        object("nodeAffinity", &NODE_AFFINITY),
        object("podAffinity", &POD_AFFINITY),
        object("podAntiAffinity", &POD_ANTI_AFFINITY),
    ],
);

pub static NODE_AFFINITY: FieldTable = table(
    "NodeAffinity",
    &[
        object("requiredDuringSchedulingIgnoredDuringExecution", &NODE_SELECTOR),
        objects("preferredDuringSchedulingIgnoredDuringExecution", &PREFERRED_SCHEDULING_TERM),
    ],
);

pub static NODE_SELECTOR: FieldTable =
    table("NodeSelector", &[objects("nodeSelectorTerms", &NODE_SELECTOR_TERM).required()]);

pub static NODE_SELECTOR_TERM: FieldTable = table(
    "NodeSelectorTerm",
    &[
        objects("matchExpressions", &NODE_SELECTOR_REQUIREMENT),
        objects("matchFields", &NODE_SELECTOR_REQUIREMENT),
    ],
);

pub static NODE_SELECTOR_REQUIREMENT: FieldTable = table(
    "NodeSelectorRequirement",
    &[
        string("key").required(),
        text("operator", "NodeSelectorOperator").required(),
        strings("values"),
    ],
);

pub static PREFERRED_SCHEDULING_TERM: FieldTable = table(
    "PreferredSchedulingTerm",
    &[int32("weight").required(), object("preference", &NODE_SELECTOR_TERM).required()],
);

pub static POD_AFFINITY: FieldTable = table(
    "PodAffinity",
    &[
        objects("requiredDuringSchedulingIgnoredDuringExecution", &POD_AFFINITY_TERM),
        objects("preferredDuringSchedulingIgnoredDuringExecution", &WEIGHTED_POD_AFFINITY_TERM),
    ],
);

pub static POD_ANTI_AFFINITY: FieldTable = table("PodAntiAffinity", POD_AFFINITY.fields);

pub static WEIGHTED_POD_AFFINITY_TERM: FieldTable = table(
    "WeightedPodAffinityTerm",
    &[int32("weight").required(), object("podAffinityTerm", &POD_AFFINITY_TERM).required()],
);

pub static POD_AFFINITY_TERM: FieldTable = table(
    "PodAffinityTerm",
    &[
        object("labelSelector", &LABEL_SELECTOR),
        strings("namespaces"),
        string("topologyKey").required(),
        object("namespaceSelector", &LABEL_SELECTOR),
        strings("matchLabelKeys"),
        strings("mismatchLabelKeys"),
    ],
);

pub static TOLERATION: FieldTable = table(
    "Toleration",
    &[
        string("key"),
        text("operator", "TolerationOperator"),
        string("value"),
        text("effect", "TaintEffect"),
        int64("tolerationSeconds").pointer(),
    ],
);

pub static TOPOLOGY_SPREAD_CONSTRAINT: FieldTable = table(
    "TopologySpreadConstraint",
    &[
        int32("maxSkew").required(),
        string("topologyKey").required(),
        text("whenUnsatisfiable", "UnsatisfiableConstraintAction").required(),
        object("labelSelector", &LABEL_SELECTOR),
        int32("minDomains").pointer(),
        text("nodeAffinityPolicy", "NodeInclusionPolicy").pointer(),
        text("nodeTaintsPolicy", "NodeInclusionPolicy").pointer(),
        strings("matchLabelKeys"),
    ],
);

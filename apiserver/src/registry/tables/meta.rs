//! Metadata, references, label selectors and conditions, which every kind shares.

use crate::registry::field_table::*;

pub static OBJECT_META: FieldTable = table(
    "ObjectMeta",
    &[
        string("name"),
        string("generateName"),
        string("namespace"),
        string("selfLink"),
        text("uid", "UID"),
        string("resourceVersion"),
        int64("generation"),
        time("creationTimestamp"),
        time("deletionTimestamp"),
        int64("deletionGracePeriodSeconds").pointer(),
        string_map("labels"),
        string_map("annotations"),
        objects("ownerReferences", &OWNER_REFERENCE).keyed(&["uid"]).merge("uid"),
        strings("finalizers").set().merge(""),
        objects("managedFields", &MANAGED_FIELDS_ENTRY),
    ],
);

pub static OWNER_REFERENCE: FieldTable = table(
    "OwnerReference",
    &[
        string("apiVersion").required(),
        string("kind").required(),
        string("name").required(),
        text("uid", "UID").required(),
        boolean("controller").pointer(),
        boolean("blockOwnerDeletion").pointer(),
    ],
);

pub static MANAGED_FIELDS_ENTRY: FieldTable = table(
    "ManagedFieldsEntry",
    &[
        string("manager"),
        text("operation", "ManagedFieldsOperationType"),
        string("apiVersion"),
        time("time"),
        string("fieldsType"),
        any("fieldsV1"),
        string("subresource"),
    ],
);

pub static LABEL_SELECTOR: FieldTable = table(
    "LabelSelector",
    &[string_map("matchLabels"), objects("matchExpressions", &LABEL_SELECTOR_REQUIREMENT)],
);

pub static LABEL_SELECTOR_REQUIREMENT: FieldTable = table(
    "LabelSelectorRequirement",
    &[
        string("key").required(),
        text("operator", "LabelSelectorOperator").required(),
        strings("values"),
    ],
);

/// `metav1.Condition`; the older kinds have conditions of their own.
pub static CONDITION: FieldTable = table(
    "Condition",
    &[
        string("type").required(),
        text("status", "ConditionStatus").required(),
        int64("observedGeneration"),
        time("lastTransitionTime").required(),
        string("reason").required(),
        string("message").required(),
    ],
);

pub static OBJECT_REFERENCE: FieldTable = table(
    "ObjectReference",
    &[
        string("kind"),
        string("namespace"),
        string("name"),
        text("uid", "UID"),
        string("apiVersion"),
        string("resourceVersion"),
        string("fieldPath"),
    ],
);

pub static LOCAL_OBJECT_REFERENCE: FieldTable = table("LocalObjectReference", &[string("name")]);

pub static TYPED_LOCAL_OBJECT_REFERENCE: FieldTable = table(
    "TypedLocalObjectReference",
    &[string("apiGroup").pointer(), string("kind").required(), string("name").required()],
);

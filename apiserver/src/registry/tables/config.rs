//! ConfigMaps, Secrets, ServiceAccounts and Leases.

use super::meta::{LOCAL_OBJECT_REFERENCE, OBJECT_META, OBJECT_REFERENCE};
use crate::registry::field_table::*;

pub static CONFIG_MAP: FieldTable = table(
    "ConfigMap",
    &[
        string("apiVersion"),
        string("kind"),
        object("metadata", &OBJECT_META),
        boolean("immutable").pointer(),
        string_map("data"),
        bytes_map("binaryData"),
    ],
);

pub static SECRET: FieldTable = table(
    "Secret",
    &[
        string("apiVersion"),
        string("kind"),
        object("metadata", &OBJECT_META),
        boolean("immutable").pointer(),
        bytes_map("data"),
        string_map("stringData"),
        text("type", "SecretType").or("Opaque").immutable(),
    ],
);

pub static SERVICE_ACCOUNT: FieldTable = table(
    "ServiceAccount",
    &[
        string("apiVersion"),
        string("kind"),
        object("metadata", &OBJECT_META),
        objects("secrets", &OBJECT_REFERENCE).keyed(&["name"]).merge("name"),
        objects("imagePullSecrets", &LOCAL_OBJECT_REFERENCE),
        boolean("automountServiceAccountToken").pointer(),
    ],
);

pub static LEASE: FieldTable = table(
    "Lease",
    &[
        string("apiVersion"),
        string("kind"),
        object("metadata", &OBJECT_META),
        object("spec", &LEASE_SPEC).or_empty(),
    ],
);

pub static LEASE_SPEC: FieldTable = table(
    "LeaseSpec",
    &[
        string("holderIdentity").pointer(),
        int32("leaseDurationSeconds").pointer(),
        micro_time("acquireTime"),
        micro_time("renewTime"),
        int32("leaseTransitions").pointer(),
        text("strategy", "CoordinatedLeaseStrategy").pointer(),
        string("preferredHolder").pointer(),
    ],
);

//! ConfigMap, Secret, ServiceAccount, Namespace.

use std::collections::BTreeMap;

use crate::meta::{Condition, ObjectMeta};

model! {
    ConfigMap { metadata: ObjectMeta, data: BTreeMap<String, String>, binary_data: BTreeMap<String, String>, immutable: bool }
    /// `data` is base64, as on the wire.
    Secret { metadata: ObjectMeta, #[serde(rename = "type")] type_: String, data: BTreeMap<String, String>, immutable: bool }
    LocalObjectReference { name: String }
    ServiceAccount { metadata: ObjectMeta, image_pull_secrets: Vec<LocalObjectReference> }
    Namespace { metadata: ObjectMeta, spec: NamespaceSpec, status: NamespaceStatus }
    NamespaceSpec { finalizers: Vec<String> }
    NamespaceStatus { phase: String, conditions: Vec<Condition> }
}

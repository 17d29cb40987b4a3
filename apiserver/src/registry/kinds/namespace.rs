//! Namespaces: where names are unique.

use serde_json::{Value, json};

use crate::registry::Kind;
use crate::registry::strategy::{Rules, put};
use crate::registry::tables::node::NAMESPACE;
use crate::registry::validation::meta::NameRule;
use crate::registry::validation::node;

pub static NAMESPACE_KIND: Kind = Kind {
    resource: skiff_proto::resource::NAMESPACES,
    kind: "Namespace",
    singular: "namespace",
    short_names: &["ns"],
    categories: &[],
    namespaced: false,
    subresources: &["status", "finalize"],
    fields: &NAMESPACE,
    defaults,
    strategy: &RULES,
    selectable: &["status.phase"],
};

static RULES: Rules = Rules {
    name: NameRule::Label,
    has_status: true,
    prepare_create,
    prepare_update,
    validate: node::namespace,
    ..Rules::CLUSTER
};

/// Every namespace can be selected by its name.
fn defaults(namespace: &mut Value) {
    let name = namespace["metadata"].get("name").cloned();
    let Some(name) = name.filter(|name| name.as_str().is_some_and(|n| !n.is_empty())) else {
        return;
    };
    if let Some(metadata) = namespace["metadata"].as_object_mut() {
        let labels = metadata.entry("labels").or_insert_with(|| json!({}));
        labels["kubernetes.io/metadata.name"] = name;
    }
}

/// The `kubernetes` finalizer holds a namespace until everything in it is gone.
fn prepare_create(namespace: &mut Value) {
    // A name made from a prefix was not there yet when defaults were filled in.
    defaults(namespace);
    put(namespace, "status", Some(json!({"phase": "Active"})));
    if !namespace["spec"].is_object() {
        namespace["spec"] = json!({});
    }
    let finalizers = namespace["spec"]["finalizers"].take();
    let mut finalizers = finalizers.as_array().cloned().unwrap_or_default();
    if !finalizers.contains(&json!("kubernetes")) {
        finalizers.push(json!("kubernetes"));
    }
    namespace["spec"]["finalizers"] = json!(finalizers);
}

/// Finalizers of the spec are taken off by the `finalize` subresource only.
fn prepare_update(new: &mut Value, old: &Value) {
    put(new, "spec", old.get("spec").cloned());
}

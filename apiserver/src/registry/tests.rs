//! All kinds together: golden defaults of minimal manifests, and a table of broken ones with
//! the words that upstream has for them.

mod defaults;
mod validation;

use serde_json::Value;
use skiff_client::FieldValidation;

use super::{Kind, kinds};

fn kind(name: &str) -> &'static Kind {
    kinds().iter().copied().find(|k| k.kind == name).expect("a kind that is served")
}

/// Decoded and with its defaults, as it would be stored but for what the core adds.
fn prepared(kind: &Kind, manifest: &Value) -> Value {
    let text = manifest.to_string();
    let (mut object, _) =
        kind.decode(text.as_bytes(), FieldValidation::Strict).expect("a manifest that decodes");
    kind.apply_defaults(&mut object);
    object
}

#[test]
fn names_of_kinds() {
    assert_eq!(kinds().len(), 15);
    for kind in kinds() {
        assert_eq!(kind.singular, kind.kind.to_lowercase());
        assert_eq!(kind.fields.name, kind.kind);
        assert!(kind.fields.fields.len() < 64, "decoding counts fields in 64 bits");
        let found = super::find(&kind.resource.group, "", &kind.resource.plural);
        assert!(found.is_some_and(|f| f.kind == kind.kind));
    }
    let mut short: Vec<&str> = kinds().iter().flat_map(|k| k.short_names).copied().collect();
    short.sort_unstable();
    assert_eq!(short, ["cm", "deploy", "ep", "ev", "ing", "no", "ns", "po", "rs", "sa", "svc"]);
}

#[test]
fn fields_to_select_by() {
    let object = serde_json::json!({
        "metadata": {"name": "a"},
        "spec": {"nodeName": "n1"},
        "status": {"replicas": 3},
        "source": {"component": "kubelet"},
    });
    for (name, path, expected) in [
        ("Pod", "metadata.name", Some("a")),
        ("Pod", "spec.nodeName", Some("n1")),
        ("Pod", "spec.hostNetwork", Some("false")),
        ("Pod", "status.phase", Some("")),
        ("Pod", "spec.containers", None),
        ("ReplicaSet", "status.replicas", Some("3")),
        ("Node", "spec.unschedulable", Some("false")),
        ("Event", "source", Some("kubelet")),
        ("ConfigMap", "data", None),
    ] {
        assert_eq!(kind(name).field_text(&object, path).as_deref(), expected, "{name} {path}");
    }
}

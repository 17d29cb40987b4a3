//! Upstream's documented behaviour, case by case: what there is, the patch, what comes out.

use serde_json::{Value, json};

use super::apply;
use crate::registry::FieldTable;
use crate::registry::tables::config::{CONFIG_MAP, SERVICE_ACCOUNT};
use crate::registry::tables::node::NODE;
use crate::registry::tables::pod::POD;
use crate::registry::tables::service::SERVICE;
use crate::registry::tables::workload::DEPLOYMENT;

fn merged(table: &'static FieldTable, now: &Value, patch: &Value) -> Result<Value, String> {
    let mut object = now.clone();
    apply(table, &mut object, patch).map(|()| object).map_err(|error| error.to_string())
}

fn check(table: &'static FieldTable, cases: Vec<(&str, Value, Value, Value)>) {
    for (what, now, patch, expected) in cases {
        assert_eq!(merged(table, &now, &patch), Ok(expected), "{what}");
    }
}

fn fails(table: &'static FieldTable, now: Value, patch: Value, expected: &str) {
    let error = merged(table, &now, &patch).expect_err("refused");
    assert!(error.contains(expected), "{error}");
}

/// A pod with this spec.
fn spec(spec: Value) -> Value {
    json!({"spec": spec})
}

fn containers(list: Value) -> Value {
    spec(json!({"containers": list}))
}

#[test]
fn maps_and_scalars() {
    check(
        &CONFIG_MAP,
        vec![
            (
                "adds a key",
                json!({"data": {"a": "1"}}),
                json!({"data": {"b": "2"}}),
                json!({"data": {"a": "1", "b": "2"}}),
            ),
            (
                "replaces a value",
                json!({"data": {"a": "1"}}),
                json!({"data": {"a": "2"}}),
                json!({"data": {"a": "2"}}),
            ),
            (
                "null deletes a key",
                json!({"data": {"a": "1", "b": "2"}}),
                json!({"data": {"a": null}}),
                json!({"data": {"b": "2"}}),
            ),
            ("null deletes a map", json!({"data": {"a": "1"}}), json!({"data": null}), json!({})),
            (
                "null of what is not there",
                json!({"data": {"a": "1"}}),
                json!({"data": {"x": null}}),
                json!({"data": {"a": "1"}}),
            ),
            (
                "a new map keeps no nulls",
                json!({}),
                json!({"data": {"a": "1", "b": null}}),
                json!({"data": {"a": "1"}}),
            ),
            (
                "$patch replace on a map",
                json!({"data": {"a": "1"}}),
                json!({"data": {"$patch": "replace", "b": "2"}}),
                json!({"data": {"b": "2"}}),
            ),
            (
                "$patch delete on a map",
                json!({"data": {"a": "1"}}),
                json!({"data": {"$patch": "delete"}}),
                json!({"data": {}}),
            ),
            (
                "$patch delete of a new map",
                json!({}),
                json!({"data": {"$patch": "delete"}}),
                json!({}),
            ),
            (
                "$patch replace of a new map",
                json!({}),
                json!({"data": {"$patch": "replace", "a": "1"}}),
                json!({"data": {"a": "1"}}),
            ),
            ("an empty patch", json!({"data": {"a": "1"}}), json!({}), json!({"data": {"a": "1"}})),
            (
                "a field no table knows",
                json!({"x": {"a": 1}}),
                json!({"x": {"b": 2}}),
                json!({"x": {"a": 1, "b": 2}}),
            ),
            (
                "a value of another type",
                json!({"data": "text"}),
                json!({"data": {"a": "1"}}),
                json!({"data": {"a": "1"}}),
            ),
        ],
    );
}

#[test]
fn lists_by_key() {
    let two = json!([{"name": "a", "image": "a:1", "stdin": true}, {"name": "b", "image": "b:1"}]);
    check(
        &POD,
        vec![
            (
                "changes an element",
                containers(two.clone()),
                containers(json!([{"name": "a", "image": "a:2"}])),
                containers(json!([{"name": "a", "image": "a:2", "stdin": true},
                               {"name": "b", "image": "b:1"}])),
            ),
            (
                "adds an element at the end",
                containers(two.clone()),
                containers(json!([{"name": "c", "image": "c:1"}])),
                containers(json!([{"name": "a", "image": "a:1", "stdin": true},
                               {"name": "b", "image": "b:1"}, {"name": "c", "image": "c:1"}])),
            ),
            (
                "$patch delete of an element",
                containers(two.clone()),
                containers(json!([{"name": "a", "$patch": "delete"}])),
                containers(json!([{"name": "b", "image": "b:1"}])),
            ),
            (
                "$patch delete of an unknown element",
                containers(json!([{"name": "a"}])),
                containers(json!([{"name": "x", "$patch": "delete"}])),
                containers(json!([{"name": "a"}])),
            ),
            (
                "$patch replace of the list",
                containers(two.clone()),
                containers(json!([{"name": "c"}, {"$patch": "replace"}])),
                containers(json!([{"name": "c"}])),
            ),
            (
                "$patch replace with nothing",
                containers(two.clone()),
                containers(json!([{"$patch": "replace"}])),
                containers(json!([])),
            ),
            (
                "delete and change at once",
                containers(two.clone()),
                containers(
                    json!([{"name": "a", "$patch": "delete"}, {"name": "b", "image": "b:2"}]),
                ),
                containers(json!([{"name": "b", "image": "b:2"}])),
            ),
            (
                "null in an element",
                containers(two.clone()),
                containers(json!([{"name": "a", "stdin": null}])),
                containers(json!([{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}])),
            ),
            (
                "null in a new element",
                containers(json!([])),
                containers(json!([{"name": "a", "image": "a:1", "tty": null}])),
                containers(json!([{"name": "a", "image": "a:1"}])),
            ),
            (
                "a whole new list without its directives",
                json!({}),
                containers(json!([{"name": "a"}, {"name": "b", "$patch": "delete"}])),
                containers(json!([{"name": "a"}])),
            ),
            (
                "null deletes the list",
                containers(two),
                spec(json!({"containers": null})),
                spec(json!({})),
            ),
            (
                "lists in lists",
                containers(json!([{"name": "a", "env": [{"name": "X", "value": "1"}]}])),
                containers(json!([{"name": "a", "env": [{"name": "Y", "value": "2"}]}])),
                containers(json!([{"name": "a", "env": [{"name": "X", "value": "1"},
                                                     {"name": "Y", "value": "2"}]}])),
            ),
            (
                "ports by containerPort",
                containers(json!([{"name": "a", "ports": [{"containerPort": 80}]}])),
                containers(json!([{"name": "a", "ports": [{"containerPort": 80, "name": "http"},
                                                       {"containerPort": 81}]}])),
                containers(json!([{"name": "a", "ports": [{"containerPort": 80, "name": "http"},
                                                       {"containerPort": 81}]}])),
            ),
            (
                "mounts by mountPath",
                containers(
                    json!([{"name": "a", "volumeMounts": [{"mountPath": "/a", "name": "x"}]}]),
                ),
                containers(
                    json!([{"name": "a", "volumeMounts": [{"mountPath": "/a", "readOnly": true}]}]),
                ),
                containers(json!([{"name": "a", "volumeMounts":
                 [{"mountPath": "/a", "name": "x", "readOnly": true}]}])),
            ),
            (
                "env without its key's order",
                containers(json!([{"name": "a", "env":
                [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}])),
                containers(json!([{"name": "a", "env": [{"name": "Y", "$patch": "delete"}]}])),
                containers(json!([{"name": "a", "env": [{"name": "X", "value": "1"}]}])),
            ),
        ],
    );
}

#[test]
fn atomic_lists() {
    check(
        &POD,
        vec![
            (
                "commands are replaced",
                containers(json!([{"name": "a", "command": ["x", "y"]}])),
                containers(json!([{"name": "a", "command": ["z"]}])),
                containers(json!([{"name": "a", "command": ["z"]}])),
            ),
            (
                "tolerations are replaced",
                spec(json!({"tolerations": [{"key": "a"}, {"key": "b"}]})),
                spec(json!({"tolerations": [{"key": "c"}]})),
                spec(json!({"tolerations": [{"key": "c"}]})),
            ),
            (
                "an empty list replaces",
                spec(json!({"tolerations": [{"key": "a"}]})),
                spec(json!({"tolerations": []})),
                spec(json!({"tolerations": []})),
            ),
            (
                "node selectors merge as maps",
                spec(json!({"nodeSelector": {"a": "1"}})),
                spec(json!({"nodeSelector": {"b": "2"}})),
                spec(json!({"nodeSelector": {"a": "1", "b": "2"}})),
            ),
        ],
    );
}

#[test]
fn lists_of_scalars() {
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    check(
        &NODE,
        vec![
            (
                "merge as a set",
                finalizers(json!(["a", "b"])),
                finalizers(json!(["b", "c"])),
                finalizers(json!(["a", "b", "c"])),
            ),
            (
                "$deleteFromPrimitiveList",
                finalizers(json!(["a", "b", "a"])),
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
                finalizers(json!(["b"])),
            ),
            (
                "delete and add",
                finalizers(json!(["a", "b"])),
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}}),
                finalizers(json!(["b", "c"])),
            ),
            (
                "delete from a list that is not there",
                json!({"metadata": {}}),
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
                json!({"metadata": {}}),
            ),
            (
                "order of scalars",
                finalizers(json!(["a", "b", "c"])),
                json!({"metadata": {"$setElementOrder/finalizers": ["c", "a"], "finalizers": []}}),
                finalizers(json!(["b", "c", "a"])),
            ),
            (
                "pod ranges merge",
                json!({"spec": {"podCIDRs": ["10.42.0.0/24"]}}),
                json!({"spec": {"podCIDRs": ["fd00::/64"]}}),
                json!({"spec": {"podCIDRs": ["10.42.0.0/24", "fd00::/64"]}}),
            ),
            (
                "taints are atomic",
                json!({"spec": {"taints": [{"key": "a"}]}}),
                json!({"spec": {"taints": [{"key": "b"}]}}),
                json!({"spec": {"taints": [{"key": "b"}]}}),
            ),
            (
                "conditions by type",
                json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
                json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
                json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
            ),
        ],
    );
}

#[test]
fn element_order() {
    let names = |list: &[&str]| -> Value { list.iter().map(|n| json!({"name": n})).collect() };
    let ordered = |order: &[&str], patch: Value| {
        spec(json!({"$setElementOrder/containers": names(order), "containers": patch}))
    };
    check(
        &POD,
        vec![
            (
                "puts in order",
                containers(names(&["a", "b", "c"])),
                ordered(&["c", "b", "a"], json!([])),
                containers(names(&["c", "b", "a"])),
            ),
            (
                "order alone",
                containers(names(&["a", "b"])),
                spec(json!({"$setElementOrder/containers": names(&["b", "a"])})),
                containers(names(&["b", "a"])),
            ),
            (
                "a new element in its place",
                containers(names(&["a", "b"])),
                ordered(&["a", "x", "b"], json!([{"name": "x"}])),
                containers(names(&["a", "x", "b"])),
            ),
            (
                "the server's own keep their place",
                containers(names(&["sidecar", "a", "b"])),
                ordered(&["b", "a"], json!([])),
                containers(names(&["sidecar", "b", "a"])),
            ),
            (
                "the server's own at the end",
                containers(names(&["a", "b", "sidecar"])),
                ordered(&["a", "b"], json!([])),
                containers(names(&["a", "b", "sidecar"])),
            ),
            (
                "with a deletion",
                containers(names(&["a", "b", "c"])),
                ordered(&["c", "a"], json!([{"name": "b", "$patch": "delete"}])),
                containers(names(&["c", "a"])),
            ),
            (
                "a list that was not there",
                json!({}),
                ordered(&["a"], json!([{"name": "a"}])),
                containers(names(&["a"])),
            ),
            (
                "neither list",
                spec(json!({})),
                spec(json!({"$setElementOrder/containers": names(&["a"])})),
                spec(json!({})),
            ),
        ],
    );
    fails(
        &POD,
        containers(names(&["a", "b"])),
        ordered(&["a"], json!([{"name": "b", "image": "x"}])),
        "invalid patch format of $setElementOrder",
    );
    fails(
        &POD,
        containers(names(&["a", "b"])),
        ordered(&["a", "b"], json!([{"name": "b"}, {"name": "a"}])),
        "invalid patch format of $setElementOrder",
    );
}

#[test]
fn retained_keys() {
    let strategy = |strategy: Value| json!({"spec": {"strategy": strategy}});
    check(
        &DEPLOYMENT,
        vec![
            (
                "a union changes sides",
                strategy(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}})),
                strategy(json!({"$retainKeys": ["type"], "type": "Recreate"})),
                strategy(json!({"type": "Recreate"})),
            ),
            (
                "kept keys stay as they are",
                strategy(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}})),
                strategy(
                    json!({"$retainKeys": ["type", "rollingUpdate"], "rollingUpdate": {"maxUnavailable": 2}}),
                ),
                strategy(
                    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 2}}),
                ),
            ),
            (
                "on what is not there",
                json!({}),
                strategy(json!({"$retainKeys": ["type"], "type": "Recreate"})),
                strategy(json!({"type": "Recreate"})),
            ),
        ],
    );
    let volumes = |list: Value| spec(json!({"volumes": list}));
    check(
        &POD,
        vec![(
            "a volume changes its source",
            volumes(json!([{"name": "a", "emptyDir": {}}])),
            volumes(
                json!([{"$retainKeys": ["name", "hostPath"], "name": "a", "hostPath": {"path": "/x"}}]),
            ),
            volumes(json!([{"name": "a", "hostPath": {"path": "/x"}}])),
        )],
    );
    fails(
        &DEPLOYMENT,
        strategy(json!({"type": "RollingUpdate"})),
        strategy(json!({"$retainKeys": ["type"], "rollingUpdate": {}})),
        "invalid patch format of $retainKeys",
    );
}

#[test]
fn other_kinds() {
    check(
        &SERVICE,
        vec![(
            "ports by port",
            json!({"spec": {"ports": [{"port": 80, "name": "a"}]}}),
            json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}, {"port": 81}]}}),
            json!({"spec": {"ports": [{"port": 80, "name": "a", "targetPort": 8080}, {"port": 81}]}}),
        )],
    );
    check(
        &SERVICE_ACCOUNT,
        vec![
            (
                "secrets by name",
                json!({"secrets": [{"name": "a"}]}),
                json!({"secrets": [{"name": "b"}]}),
                json!({"secrets": [{"name": "a"}, {"name": "b"}]}),
            ),
            (
                "pull secrets are atomic",
                json!({"imagePullSecrets": [{"name": "a"}]}),
                json!({"imagePullSecrets": [{"name": "b"}]}),
                json!({"imagePullSecrets": [{"name": "b"}]}),
            ),
        ],
    );
}

#[test]
fn patches_that_cannot_be_read() {
    let mut now = containers(json!([{"name": "a"}]));
    now["metadata"] = json!({});
    for (patch, expected) in [
        (json!([1]), "invalid JSON document"),
        (json!({"spec": {"$patch": "toast"}}), "unknown patch type [toast]"),
        (containers(json!([{"name": "a", "$patch": "toast"}])), "unknown patch type [toast]"),
        (
            containers(json!([{"name": "a", "$patch": "merge"}])),
            "merging lists cannot yet be specified",
        ),
        (containers(json!([{"image": "x"}])), "does not contain declared merge key: name"),
        (containers(json!([{"$patch": "delete"}])), "does not contain declared merge key: name"),
        (spec(json!({"$retainKeys": "x"})), "invalid patch format of $retainKeys"),
        (
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}}),
            "invalid patch format of $deleteFromPrimitiveList",
        ),
    ] {
        fails(&POD, now.clone(), patch, expected);
    }
}

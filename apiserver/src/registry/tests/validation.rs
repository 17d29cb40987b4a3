//! Broken manifests and the words for what is wrong with them.

use serde_json::{Value, json};

use super::{kind, prepared};
use crate::registry::{keep_immutable_meta, kinds};

/// The manifest of a valid object of each kind.
fn valid(name: &str) -> Value {
    let template = json!({"metadata": {"labels": {"app": "web"}},
                          "spec": {"containers": [{"name": "web", "image": "nginx"}]}});
    let workload = json!({"selector": {"matchLabels": {"app": "web"}}, "template": template});
    let mut object = match name {
        "Pod" => json!({"spec": {"containers": [{"name": "web", "image": "nginx"}]}}),
        "Deployment" | "ReplicaSet" => json!({"spec": workload}),
        "Service" => json!({"spec": {"ports": [{"port": 80}]}}),
        "Ingress" => json!({"spec": {"rules": [{"host": "a.b", "http": {"paths": [
            {"path": "/", "pathType": "Prefix",
             "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}}),
        "IngressClass" => json!({"spec": {"controller": "skiff.io/ingress"}}),
        "EndpointSlice" => json!({"addressType": "IPv4", "ports": [{"port": 80}],
                                  "endpoints": [{"addresses": ["10.0.0.1"]}]}),
        "Event" => json!({"involvedObject": {"namespace": "default"}}),
        _ => json!({}),
    };
    object["metadata"] = json!({"name": "web"});
    if kind(name).namespaced {
        object["metadata"]["namespace"] = json!("default");
    }
    object
}

/// The valid object with the value at `pointer` replaced (null: removed).
fn broken(name: &str, pointer: &str, value: Value) -> Value {
    let mut object = valid(name);
    let mut place = &mut object;
    for key in pointer.split('/').skip(1) {
        place = match key.parse::<usize>() {
            Ok(at) => &mut place[at],
            Err(_) => &mut place[key],
        };
    }
    *place = value;
    object
}

fn errors_of(name: &str, manifest: &Value) -> Vec<String> {
    let kind = kind(name);
    let object = prepared(kind, manifest);
    let errors = kind.strategy.validate_create(&object);
    errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
}

#[test]
fn valid_manifests_have_no_faults() {
    for kind in kinds() {
        assert_eq!(errors_of(kind.kind, &valid(kind.kind)), Vec::<String>::new(), "{}", kind.kind);
    }
}

#[test]
fn pods_in_upstreams_words() {
    let c = "/spec/containers/0";
    for (pointer, value, expected) in [
        ("/spec/containers", json!([]), "spec.containers: Required value"),
        (&format!("{c}/name"), json!(""), "spec.containers[0].name: Required value"),
        (
            &format!("{c}/name"),
            json!("Web"),
            "spec.containers[0].name: Invalid value: \"Web\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ),
        (&format!("{c}/image"), json!(null), "spec.containers[0].image: Required value"),
        (
            &format!("{c}/imagePullPolicy"),
            json!("Maybe"),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (
            &format!("{c}/ports"),
            json!([{"containerPort": 70000}]),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            &format!("{c}/volumeMounts"),
            json!([{"name": "x", "mountPath": "/x"}]),
            "spec.containers[0].volumeMounts[0].name: Not found: \"x\"",
        ),
        (
            &format!("{c}/env"),
            json!([{"name": "A=B"}]),
            "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='",
        ),
        (
            &format!("{c}/resources"),
            json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            &format!("{c}/livenessProbe"),
            json!({}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            &format!("{c}/restartPolicy"),
            json!("Always"),
            "spec.containers[0].restartPolicy: Forbidden: may not be set for non-init containers",
        ),
        (
            "/spec/restartPolicy",
            json!("Sometimes"),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (
            "/spec/activeDeadlineSeconds",
            json!(0),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ),
        (
            "/spec/volumes",
            json!([{"name": "a"}, {"name": "a"}]),
            "spec.volumes[1].name: Duplicate value: \"a\"",
        ),
        (
            "/spec/volumes",
            json!([{"name": "a", "emptyDir": {}, "hostPath": {"path": "/x"}}]),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            "/spec/volumes",
            json!([{"name": "a", "secret": {"secretName": "s", "defaultMode": 512}}]),
            "spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
        ),
        (
            "/spec/tolerations",
            json!([{"value": "x"}]),
            "spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        ),
        (
            "/metadata/labels",
            json!({"a b": "c"}),
            "metadata.labels: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ),
        (
            "/metadata/name",
            json!(null),
            "metadata.name: Required value: name or generateName is required",
        ),
    ] {
        assert_eq!(errors_of("Pod", &broken("Pod", pointer, value)), vec![expected], "{pointer}");
    }
    let twice = broken("Pod", "/spec/initContainers", json!([{"name": "web", "image": "x"}]));
    assert_eq!(errors_of("Pod", &twice), vec!["spec.containers[0].name: Duplicate value: \"web\""]);
}

#[test]
fn other_kinds_in_upstreams_words() {
    for (name, pointer, value, expected) in [
        (
            "Deployment",
            "/spec/replicas",
            json!(-1),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "Deployment",
            "/spec/template/metadata/labels",
            json!({"app": "db"}),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"db\"}: `selector` does not match template `labels`",
        ),
        ("Deployment", "/spec/selector", json!(null), "spec.selector: Required value"),
        (
            "Deployment",
            "/spec/template/spec/restartPolicy",
            json!("Never"),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
        (
            "Deployment",
            "/spec/strategy",
            json!({"type": "Recreate", "rollingUpdate": {}}),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            "Deployment",
            "/spec/strategy",
            json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
        ("Service", "/spec/ports", json!([]), "spec.ports: Required value"),
        (
            "Service",
            "/spec/ports",
            json!([{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]),
            "spec.ports[1].name: Duplicate value: \"a\"",
        ),
        (
            "Service",
            "/spec/ports",
            json!([{"port": 0, "targetPort": 80}]),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            "Service",
            "/spec/ports",
            json!([{"port": 80, "nodePort": 30080}]),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            "Service",
            "/spec/sessionAffinity",
            json!("Sticky"),
            "spec.sessionAffinity: Unsupported value: \"Sticky\": supported values: \"ClientIP\", \"None\"",
        ),
        (
            "Ingress",
            "/spec",
            json!({}),
            "spec: Invalid value: {}: either `defaultBackend` or `rules` must be specified",
        ),
        (
            "Ingress",
            "/spec/rules/0/http/paths/0/path",
            json!("a"),
            "spec.rules[0].http.paths[0].path: Invalid value: \"a\": must be an absolute path",
        ),
        (
            "Ingress",
            "/spec/rules/0/http/paths/0/pathType",
            json!(null),
            "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
        ),
        (
            "Ingress",
            "/spec/rules/0/http/paths/0/backend/service/port",
            json!({}),
            "spec.rules[0].http.paths[0].backend.service: Required value: port name or number is required",
        ),
        (
            "Ingress",
            "/spec/rules/0/host",
            json!("10.0.0.1"),
            "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
        ),
        (
            "EndpointSlice",
            "/addressType",
            json!("X"),
            "addressType: Unsupported value: \"X\": supported values: \"FQDN\", \"IPv4\", \"IPv6\"",
        ),
        (
            "EndpointSlice",
            "/endpoints/0/addresses",
            json!([]),
            "endpoints[0].addresses: Required value: must contain at least 1 address",
        ),
        (
            "ConfigMap",
            "/data",
            json!({"a/b": "x"}),
            "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ),
        (
            "Secret",
            "/type",
            json!("kubernetes.io/dockerconfigjson"),
            "data[.dockerconfigjson]: Required value",
        ),
        (
            "Lease",
            "/spec",
            json!({"leaseDurationSeconds": 0}),
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        ),
        (
            "Event",
            "/involvedObject",
            json!({"namespace": "other"}),
            "involvedObject.namespace: Invalid value: \"other\": does not match event.namespace",
        ),
        (
            "Node",
            "/spec",
            json!({"taints": [{"key": "a", "effect": "X"}]}),
            "spec.taints[0].effect: Unsupported value: \"X\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
        ),
        (
            "Node",
            "/metadata/namespace",
            json!("x"),
            "metadata.namespace: Forbidden: not allowed on this type",
        ),
        (
            "IngressClass",
            "/spec/controller",
            json!("x"),
            "spec.controller: Invalid value: \"x\": must be a domain-prefixed path (such as \"acme.io/foo\")",
        ),
    ] {
        assert_eq!(errors_of(name, &broken(name, pointer, value)), vec![expected], "{name}");
    }
}

fn change_errors(name: &str, pointer: &str, value: Value) -> Vec<String> {
    let kind = kind(name);
    let old = prepared(kind, &valid(name));
    let mut new = prepared(kind, &broken(name, pointer, value));
    keep_immutable_meta(&mut new, &old);
    let errors = kind.strategy.validate_update(&new, &old);
    errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
}

#[test]
fn what_may_not_change() {
    assert_eq!(
        change_errors(
            "Deployment",
            "/spec/selector",
            json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]})
        ),
        vec![
            "spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"app\",\"operator\":\"Exists\"}]}: field is immutable"
        ]
    );
    let pod = change_errors("Pod", "/spec/hostname", json!("other"));
    assert!(pod[0].starts_with(
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"
    ));
    assert!(pod[0].ends_with("changed: spec.hostname"), "{pod:?}");
    let none = Vec::<String>::new();
    assert_eq!(change_errors("Pod", "/spec/containers/0/imagePullPolicy", json!("Always")), none);
    assert_eq!(change_errors("Pod", "/spec/tolerations", json!([{"operator": "Exists"}])), none);
    assert_eq!(change_errors("Pod", "/spec/activeDeadlineSeconds", json!(5)), none);
    assert_eq!(
        change_errors("Pod", "/metadata/uid", json!("other")),
        vec!["metadata.uid: Invalid value: \"other\": field is immutable"]
    );
    assert_eq!(
        change_errors("Secret", "/type", json!("other/type")),
        vec!["type: Invalid value: \"other/type\": field is immutable"]
    );
}

#[test]
fn one_error_stands_alone_and_several_in_brackets() {
    let kind = kind("Deployment");
    let object = prepared(kind, &broken("Deployment", "/spec/replicas", json!(-1)));
    let errors = kind.strategy.validate_create(&object);
    let status = kind.invalid("web", &errors);
    assert_eq!(
        status.message,
        "Deployment.apps \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    );
    let details = status.details.expect("details");
    assert_eq!((details.kind.as_str(), details.group.as_str()), ("Deployment", "apps"));
    assert_eq!(details.causes[0].field, "spec.replicas");
    assert_eq!(details.causes[0].reason, "FieldValueInvalid");
    let twice = [errors[0].clone(), kind.strategy.validate_create(&json!({}))[0].clone()];
    let status = kind.invalid("web", &twice);
    assert!(status.message.contains("is invalid: [spec.replicas: "), "{}", status.message);
    assert!(status.message.ends_with(']'));
}

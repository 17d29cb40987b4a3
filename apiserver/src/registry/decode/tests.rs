//! Golden errors: the words that clients of Kubernetes know.

use serde_json::{Value, json};
use skiff_client::FieldValidation;

use crate::registry::{Kind, find};

fn kind(group: &str, plural: &str) -> &'static Kind {
    find(group, "v1", plural).expect("a kind that is served")
}

fn deployments() -> &'static Kind {
    kind("apps", "deployments")
}

fn read(kind: &Kind, text: &str) -> Result<Value, String> {
    let read = kind.decode(text.as_bytes(), FieldValidation::Strict);
    read.map(|(object, _)| object).map_err(|status| {
        assert_eq!((status.code, status.reason.as_str()), (400, "BadRequest"));
        status.message
    })
}

fn fails(kind: &Kind, text: &str, expected: &str) {
    assert_eq!(read(kind, text), Err(expected.to_owned()), "{text}");
}

const DEPLOYMENT: &str = "Deployment in version \"v1\" cannot be handled as a Deployment: ";

#[test]
fn unknown_and_repeated_fields() {
    for (text, expected) in [
        (r#"{"spec":{"foo":1}}"#, r#"unknown field "spec.foo""#),
        (r#"{"foo":{"bar":[{}]}}"#, r#"unknown field "foo""#),
        (r#"{"spec":{"replicas":1,"replicas":2}}"#, r#"duplicate field "spec.replicas""#),
        (
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"a"},{"imag":"x"}]}}}}"#,
            r#"unknown field "spec.template.spec.containers[1].imag""#,
        ),
        (r#"{"metadata":{"labels":{"a":"1","a":"2"}}}"#, r#"duplicate field "metadata.labels.a""#),
        (
            r#"{"spec":{"a":1,"replicas":1,"replicas":1,"b":2}}"#,
            r#"unknown field "spec.a", duplicate field "spec.replicas", unknown field "spec.b""#,
        ),
        (r#"{"spec":{"Replicas":1}}"#, r#"unknown field "spec.Replicas""#),
    ] {
        fails(deployments(), text, &format!("{DEPLOYMENT}strict decoding error: {expected}"));
    }
}

#[test]
fn wrong_types() {
    for (text, expected) in [
        (
            r#"{"spec":{"replicas":"3"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":{"replicas":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":{"replicas":3000000000}}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            r#"{"metadata":{"labels":["a"]}}"#,
            "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":{"name":"a"}}}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":[{"env":[{"name":"A","value":1}]}]}}}}"#,
            "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":[{"command":["a",true]}]}}}}"#,
            "json: cannot unmarshal bool into Go struct field Container.spec.template.spec.containers.command of type string",
        ),
        (
            r#"{"spec":{"template":{"spec":{"restartPolicy":1}}}}"#,
            "json: cannot unmarshal number into Go struct field PodSpec.spec.template.spec.restartPolicy of type v1.RestartPolicy",
        ),
        (
            r#"{"spec":{"template":{"spec":{"volumes":["a"]}}}}"#,
            "json: cannot unmarshal string into Go struct field PodSpec.spec.template.spec.volumes of type v1.Volume",
        ),
        (
            r#"{"spec":{"strategy":{"rollingUpdate":{"maxSurge":true}}}}"#,
            "json: cannot unmarshal bool into Go value of type int32",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":"lots"}}}]}}}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        // The wrong type counts before the unknown field.
        (
            r#"{"spec":{"foo":1,"paused":"yes"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.paused of type bool",
        ),
    ] {
        fails(deployments(), text, &format!("{DEPLOYMENT}{expected}"));
    }
}

#[test]
fn broken_documents() {
    for (text, expected) in [
        ("", "couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)"),
        (
            r#"{"kind": "Deployment", "spec": }"#,
            "couldn't get version/kind; json parse error: invalid character '}' looking for beginning of value ({\"kind\": \"Deployment\", \"spec\": ...)",
        ),
        (
            "[1]",
            "couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type v1.Deployment (5b315d)",
        ),
    ] {
        let lead = "the object provided is unrecognized (must be of type Deployment): ";
        fails(deployments(), text, &format!("{lead}{expected}"));
    }
}

#[test]
fn other_kinds_and_versions() {
    for (text, expected) in [
        (
            r#"{"apiVersion":"v1","kind":"Service"}"#,
            "Service in version \"v1\" cannot be handled as a Deployment: converting (v1.Service) to (apps.Deployment): unknown conversion",
        ),
        (
            r#"{"apiVersion":"apps/v1beta2","kind":"Deployment"}"#,
            "Deployment in version \"v1beta2\" cannot be handled as a Deployment: no kind \"Deployment\" is registered for version \"apps/v1beta2\"",
        ),
        (
            r#"{"apiVersion":"apps/v1","kind":"Toast"}"#,
            "Toast in version \"v1\" cannot be handled as a Deployment: no kind \"Toast\" is registered for version \"apps/v1\"",
        ),
    ] {
        fails(deployments(), text, expected);
    }
    assert_eq!(
        read(deployments(), "{}"),
        Ok(json!({"apiVersion": "apps/v1", "kind": "Deployment"}))
    );
}

#[test]
fn limits() {
    let deep = format!("{{\"spec\":{}1{}}}", "[".repeat(1000), "]".repeat(1000));
    assert!(read(deployments(), &deep).is_err_and(|e| e.contains("exceeded max depth")));
    let long = vec![b' '; super::MAX_BYTES + 1];
    let error = deployments().decode(&long, FieldValidation::Strict).expect_err("too long");
    assert_eq!(error.code, 413);
}

#[test]
fn nulls_and_zero_values_mean_absent() {
    let pod = r#"{"metadata":{"name":"a","creationTimestamp":null,"labels":{},"annotations":{"x":null}},
        "spec":{"hostNetwork":false,"hostname":"","containers":[],"volumes":null,
                "terminationGracePeriodSeconds":0,"securityContext":{},"tolerations":[]},
        "status":{}}"#;
    assert_eq!(
        read(kind("", "pods"), pod),
        Ok(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "annotations": {"x": ""}},
            "spec": {"containers": [], "terminationGracePeriodSeconds": 0, "securityContext": {}},
            "status": {},
        }))
    );
}

#[test]
fn values_are_rewritten_as_upstream_stores_them() {
    let pod = r#"{"metadata":{"name":"a"},"spec":{"containers":[{"name":"a",
        "resources":{"limits":{"cpu":0.5,"memory":"1024Mi"},"requests":{"cpu":"100m"}}}]}}"#;
    let pod = read(kind("", "pods"), pod).expect("reads");
    assert_eq!(
        pod["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "100m"}})
    );
    let lease = r#"{"spec":{"renewTime":"2024-05-01T12:00:00.5+02:00"}}"#;
    let lease = read(kind("coordination.k8s.io", "leases"), lease).expect("reads");
    assert_eq!(lease["spec"]["renewTime"], "2024-05-01T10:00:00.500000Z");
}

#[test]
fn lenient_modes() {
    let text = br#"{"metadata":{"name":"a"},"foo":1,"data":{"a":"1","a":"2"}}"#;
    let maps = kind("", "configmaps");
    let expected = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"},
                          "data": {"a": "2"}});
    let (object, warnings) = maps.decode(text, FieldValidation::Warn).expect("reads");
    assert_eq!(object, expected);
    assert_eq!(warnings, vec!["unknown field \"foo\"", "duplicate field \"data.a\""]);
    let (object, warnings) = maps.decode(text, FieldValidation::Ignore).expect("reads");
    assert_eq!((object, warnings), (expected, Vec::new()));
}

#[test]
fn binary_data_is_checked() {
    fails(
        kind("", "secrets"),
        r#"{"data":{"a":"no base64!"}}"#,
        "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 2",
    );
}

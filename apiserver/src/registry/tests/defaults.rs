//! Golden defaults: the smallest manifest of each kind, and what upstream makes of it.

use serde_json::{Value, json};

use super::{kind, prepared};

fn check(name: &str, manifest: Value, expected: Value) {
    let mut object = prepared(kind(name), &manifest);
    let fields = object.as_object_mut().expect("an object");
    fields.remove("apiVersion");
    fields.remove("kind");
    assert_eq!(object, expected, "{name}\n{object:#}");
}

fn container() -> Value {
    json!({
        "name": "web", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
    })
}

fn pod_spec(container: Value) -> Value {
    json!({
        "containers": [container], "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
        "terminationGracePeriodSeconds": 30, "securityContext": {},
        "schedulerName": "default-scheduler",
    })
}

#[test]
fn pod() {
    let mut expected = pod_spec(container());
    expected["enableServiceLinks"] = json!(true);
    check(
        "Pod",
        json!({"spec": {"containers": [{"name": "web", "image": "nginx"}]}}),
        json!({"spec": expected}),
    );
}

#[test]
fn pod_with_everything_that_defaults() {
    let manifest = json!({"spec": {
        "hostNetwork": true,
        "serviceAccount": "builder",
        "volumes": [{"name": "a"}, {"name": "b", "secret": {"secretName": "s"}},
                    {"name": "c", "hostPath": {"path": "/x"}}],
        "containers": [{
            "name": "web", "image": "nginx:1.27",
            "ports": [{"containerPort": 80}],
            "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
            "livenessProbe": {"httpGet": {"port": 80}},
        }],
    }});
    let spec = prepared(kind("Pod"), &manifest)["spec"].take();
    assert_eq!(
        spec["volumes"],
        json!([{"name": "a", "emptyDir": {}},
               {"name": "b", "secret": {"secretName": "s", "defaultMode": 420}},
               {"name": "c", "hostPath": {"path": "/x", "type": ""}}])
    );
    assert_eq!(spec["serviceAccountName"], "builder");
    let container = &spec["containers"][0];
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(
        container["ports"],
        json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}])
    );
    assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
    assert_eq!(
        container["resources"],
        json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}})
    );
    assert_eq!(
        container["livenessProbe"],
        json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
               "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3})
    );
}

#[test]
fn workloads() {
    let selector = json!({"matchLabels": {"app": "web"}});
    let template = json!({"metadata": {"labels": {"app": "web"}},
                          "spec": {"containers": [{"name": "web", "image": "nginx"}]}});
    let full = json!({"metadata": {"labels": {"app": "web"}}, "spec": pod_spec(container())});
    check(
        "Deployment",
        json!({"spec": {"selector": selector, "template": template}}),
        json!({
            "spec": {
                "replicas": 1, "selector": selector, "template": full,
                "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
                "strategy": {"type": "RollingUpdate",
                             "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            },
            "status": {},
        }),
    );
    check(
        "ReplicaSet",
        json!({"spec": {"selector": selector, "template": template}}),
        json!({"spec": {"replicas": 1, "selector": selector, "template": full},
               "status": {"replicas": 0}}),
    );
}

#[test]
fn services() {
    check(
        "Service",
        json!({"spec": {"ports": [{"port": 80}]}}),
        json!({
            "spec": {"type": "ClusterIP", "sessionAffinity": "None",
                     "internalTrafficPolicy": "Cluster",
                     "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]},
            "status": {"loadBalancer": {}},
        }),
    );
    let manifest = json!({"spec": {"type": "NodePort", "sessionAffinity": "ClientIP",
                                   "ports": [{"port": 80, "targetPort": "http"}]}});
    let spec = prepared(kind("Service"), &manifest)["spec"].take();
    assert_eq!(spec["externalTrafficPolicy"], "Cluster");
    assert_eq!(spec["sessionAffinityConfig"], json!({"clientIP": {"timeoutSeconds": 10800}}));
    assert_eq!(spec["ports"][0]["targetPort"], "http");
}

#[test]
fn the_others() {
    let meta = json!({"name": "a"});
    check(
        "Namespace",
        json!({"metadata": meta}),
        json!({"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}},
               "spec": {}, "status": {"phase": "Active"}}),
    );
    check("Node", json!({"metadata": meta}), json!({"metadata": meta, "spec": {}}));
    check("ConfigMap", json!({"metadata": meta}), json!({"metadata": meta}));
    check(
        "Secret",
        json!({"data": {"a": "MQ=="}, "stringData": {"b": "two"}}),
        json!({"type": "Opaque", "data": {"a": "MQ==", "b": "dHdv"}}),
    );
    check("ServiceAccount", json!({"metadata": meta}), json!({"metadata": meta}));
    check("Lease", json!({"metadata": meta}), json!({"metadata": meta, "spec": {}}));
    check(
        "Event",
        json!({"involvedObject": {"kind": "Pod"}, "source": {}}),
        json!({"involvedObject": {"kind": "Pod"}, "source": {}, "reportingComponent": "",
               "reportingInstance": ""}),
    );
    check(
        "Endpoints",
        json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]}),
        json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}],
                            "ports": [{"port": 80, "protocol": "TCP"}]}]}),
    );
    check(
        "EndpointSlice",
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}],
               "ports": [{"port": 80}]}),
        json!({"addressType": "IPv4",
               "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {}}],
               "ports": [{"name": "", "port": 80, "protocol": "TCP"}]}),
    );
    check(
        "Ingress",
        json!({"spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}}),
        json!({"spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}},
               "status": {"loadBalancer": {}}}),
    );
    check(
        "IngressClass",
        json!({"spec": {"controller": "skiff.io/ingress", "parameters": {"kind": "A", "name": "b"}}}),
        json!({"spec": {"controller": "skiff.io/ingress",
                        "parameters": {"kind": "A", "name": "b", "scope": "Cluster"}}}),
    );
}

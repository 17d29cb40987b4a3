//! Ingress, IngressClass and EndpointSlice.

use super::meta::{OBJECT_META, OBJECT_REFERENCE, TYPED_LOCAL_OBJECT_REFERENCE};
use crate::registry::field_table::*;

pub static INGRESS: FieldTable = table(
    "Ingress",
    &[
        string("apiVersion"),
        string("kind"),
        object("metadata", &OBJECT_META),
        object("spec", &INGRESS_SPEC).or_empty(),
        object("status", &INGRESS_STATUS).or_empty(),
    ],
);

pub static INGRESS_SPEC: FieldTable = table(
    "IngressSpec",
    &[
        string("ingressClassName").pointer(),
        object("defaultBackend", &INGRESS_BACKEND),
        objects("tls", &INGRESS_TLS),
        objects("rules", &INGRESS_RULE),
    ],
);

pub static INGRESS_BACKEND: FieldTable = table(
    "IngressBackend",
    &[
        object("service", &INGRESS_SERVICE_BACKEND),
        object("resource", &TYPED_LOCAL_OBJECT_REFERENCE),
    ],
);

pub static INGRESS_SERVICE_BACKEND: FieldTable = table(
    "IngressServiceBackend",
    &[string("name").required(), object("port", &SERVICE_BACKEND_PORT)],
);

pub static SERVICE_BACKEND_PORT: FieldTable =
    table("ServiceBackendPort", &[string("name"), int32("number")]);

pub static INGRESS_TLS: FieldTable = table("IngressTLS", &[strings("hosts"), string("secretName")]);

pub static INGRESS_RULE: FieldTable =
    table("IngressRule", &[string("host"), object("http", &HTTP_INGRESS_RULE_VALUE)]);

pub static HTTP_INGRESS_RULE_VALUE: FieldTable =
    table("HTTPIngressRuleValue", &[objects("paths", &HTTP_INGRESS_PATH).required()]);

pub static HTTP_INGRESS_PATH: FieldTable = table(
    "HTTPIngressPath",
    &[
        string("path"),
        text("pathType", "PathType").pointer(),
        object("backend", &INGRESS_BACKEND).required(),
    ],
);

pub static INGRESS_STATUS: FieldTable =
    table("IngressStatus", &[object("loadBalancer", &INGRESS_LOAD_BALANCER_STATUS).or_empty()]);

pub static INGRESS_LOAD_BALANCER_STATUS: FieldTable =
    table("IngressLoadBalancerStatus", &[objects("ingress", &INGRESS_LOAD_BALANCER_INGRESS)]);

pub static INGRESS_LOAD_BALANCER_INGRESS: FieldTable = table(
    "IngressLoadBalancerIngress",
    &[string("ip"), string("hostname"), objects("ports", &INGRESS_PORT_STATUS)],
);

pub static INGRESS_PORT_STATUS: FieldTable = table(
    "IngressPortStatus",
    &[int32("port").required(), text("protocol", "Protocol").required(), string("error").pointer()],
);

pub static INGRESS_CLASS: FieldTable = table(
    "IngressClass",
    &[
        string("apiVersion"),
        string("kind"),
        object("metadata", &OBJECT_META),
        object("spec", &INGRESS_CLASS_SPEC).or_empty(),
    ],
);

pub static INGRESS_CLASS_SPEC: FieldTable = table(
    "IngressClassSpec",
    &[string("controller"), object("parameters", &INGRESS_CLASS_PARAMETERS)],
);

pub static INGRESS_CLASS_PARAMETERS: FieldTable = table(
    "IngressClassParametersReference",
    &[
        string("apiGroup").pointer(),
        string("kind").required(),
        string("name").required(),
        string("scope").pointer().or("Cluster"),
        string("namespace").pointer(),
    ],
);

pub static ENDPOINT_SLICE: FieldTable = table(
    "EndpointSlice",
    &[
        string("apiVersion"),
        string("kind"),
        object("metadata", &OBJECT_META),
        text("addressType", "AddressType").required().immutable(),
        objects("endpoints", &ENDPOINT).required(),
        objects("ports", &ENDPOINT_SLICE_PORT).required(),
    ],
);

pub static ENDPOINT: FieldTable = table(
    "Endpoint",
    &[
        strings("addresses").set().required(),
        object("conditions", &ENDPOINT_CONDITIONS).or_empty(),
        string("hostname").pointer(),
        object("targetRef", &OBJECT_REFERENCE),
        string_map("deprecatedTopology"),
        string("nodeName").pointer(),
        string("zone").pointer(),
        object("hints", &ENDPOINT_HINTS),
    ],
);

pub static ENDPOINT_CONDITIONS: FieldTable = table(
    "EndpointConditions",
    &[boolean("ready").pointer(), boolean("serving").pointer(), boolean("terminating").pointer()],
);

pub static ENDPOINT_HINTS: FieldTable =
    table("EndpointHints", &[objects("forZones", &FOR_ZONE), objects("forNodes", &FOR_NODE)]);

pub static FOR_ZONE: FieldTable = table("ForZone", &[string("name").required()]);

pub static FOR_NODE: FieldTable = table("ForNode", &[string("name").required()]);

pub static ENDPOINT_SLICE_PORT: FieldTable = table(
    "EndpointPort",
    &[
        string("name").pointer().or(""),
        text("protocol", "Protocol").pointer().or("TCP"),
        int32("port").pointer(),
        string("appProtocol").pointer(),
    ],
);

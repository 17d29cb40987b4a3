//! Services, and the Endpoints of old.

use super::meta::{CONDITION, OBJECT_META, OBJECT_REFERENCE};
use crate::registry::field_table::*;

pub static SERVICE: FieldTable = table(
    "Service",
    &[
        string("apiVersion"),
        string("kind"),
        object("metadata", &OBJECT_META),
        object("spec", &SERVICE_SPEC).or_empty(),
        object("status", &SERVICE_STATUS).or_empty(),
    ],
);

pub static SERVICE_SPEC: FieldTable = table(
    "ServiceSpec",
    &[
        objects("ports", &SERVICE_PORT).keyed(&["port", "protocol"]).merge("port"),
        string_map("selector"),
        string("clusterIP"),
        strings("clusterIPs"),
        text("type", "ServiceType").or("ClusterIP"),
        strings("externalIPs"),
        text("sessionAffinity", "ServiceAffinity").or("None"),
        string("loadBalancerIP"),
        strings("loadBalancerSourceRanges"),
        string("externalName"),
        text("externalTrafficPolicy", "ServiceExternalTrafficPolicy"),
        int32("healthCheckNodePort"),
        boolean("publishNotReadyAddresses"),
        object("sessionAffinityConfig", &SESSION_AFFINITY_CONFIG),
        texts("ipFamilies", "IPFamily"),
        text("ipFamilyPolicy", "IPFamilyPolicy").pointer(),
        boolean("allocateLoadBalancerNodePorts").pointer(),
        string("loadBalancerClass").pointer(),
        text("internalTrafficPolicy", "ServiceInternalTrafficPolicy").pointer(),
        string("trafficDistribution").pointer(),
    ],
);

pub static SERVICE_PORT: FieldTable = table(
    "ServicePort",
    &[
        string("name"),
        text("protocol", "Protocol").or("TCP"),
        string("appProtocol").pointer(),
        int32("port").required(),
        int_or_string("targetPort"),
        int32("nodePort"),
    ],
);

pub static SESSION_AFFINITY_CONFIG: FieldTable =
    table("SessionAffinityConfig", &[object("clientIP", &CLIENT_IP_CONFIG)]);

pub static CLIENT_IP_CONFIG: FieldTable =
    table("ClientIPConfig", &[int32("timeoutSeconds").pointer()]);

pub static SERVICE_STATUS: FieldTable = table(
    "ServiceStatus",
    &[
        object("loadBalancer", &LOAD_BALANCER_STATUS).or_empty(),
        objects("conditions", &CONDITION).keyed(&["type"]).merge("type"),
    ],
);

pub static LOAD_BALANCER_STATUS: FieldTable =
    table("LoadBalancerStatus", &[objects("ingress", &LOAD_BALANCER_INGRESS)]);

pub static LOAD_BALANCER_INGRESS: FieldTable = table(
    "LoadBalancerIngress",
    &[
        string("ip"),
        string("hostname"),
        text("ipMode", "LoadBalancerIPMode").pointer(),
        objects("ports", &PORT_STATUS),
    ],
);

pub static PORT_STATUS: FieldTable = table(
    "PortStatus",
    &[int32("port").required(), text("protocol", "Protocol").required(), string("error").pointer()],
);

pub static ENDPOINTS: FieldTable = table(
    "Endpoints",
    &[
        string("apiVersion"),
        string("kind"),
        object("metadata", &OBJECT_META),
        objects("subsets", &ENDPOINT_SUBSET),
    ],
);

pub static ENDPOINT_SUBSET: FieldTable = table(
    "EndpointSubset",
    &[
        objects("addresses", &ENDPOINT_ADDRESS),
        objects("notReadyAddresses", &ENDPOINT_ADDRESS),
        objects("ports", &ENDPOINT_PORT),
    ],
);

pub static ENDPOINT_ADDRESS: FieldTable = table(
    "EndpointAddress",
    &[
        string("ip").required(),
        string("hostname"),
        string("nodeName").pointer(),
        object("targetRef", &OBJECT_REFERENCE),
    ],
);

pub static ENDPOINT_PORT: FieldTable = table(
    "EndpointPort",
    &[
        string("name"),
        int32("port").required(),
        text("protocol", "Protocol").or("TCP"),
        string("appProtocol").pointer(),
    ],
);

//! Pods and the pod templates of other kinds.

use super::affinity::{AFFINITY, TOLERATION, TOPOLOGY_SPREAD_CONSTRAINT};
use super::container::{CONTAINER, EPHEMERAL_CONTAINER, RESOURCE_REQUIREMENTS};
use super::meta::{LOCAL_OBJECT_REFERENCE, OBJECT_META, OBJECT_REFERENCE};
use super::pod_status::POD_STATUS;
use super::security::POD_SECURITY_CONTEXT;
use super::volumes::VOLUME;
use crate::registry::field_table::*;

pub static POD: FieldTable = table(
    "Pod",
    &[
        string("apiVersion"),
        string("kind"),
        object("metadata", &OBJECT_META),
        object("spec", &POD_SPEC).or_empty(),
        object("status", &POD_STATUS),
    ],
);

pub static POD_TEMPLATE_SPEC: FieldTable = table(
    "PodTemplateSpec",
    &[object("metadata", &OBJECT_META), object("spec", &POD_SPEC).or_empty()],
);

pub static POD_SPEC: FieldTable = table(
    "PodSpec",
    &[
        objects("volumes", &VOLUME).keyed(&["name"]).merge("name").retain_keys(),
        objects("initContainers", &CONTAINER).keyed(&["name"]).merge("name"),
        objects("containers", &CONTAINER).keyed(&["name"]).merge("name").required(),
        objects("ephemeralContainers", &EPHEMERAL_CONTAINER).keyed(&["name"]).merge("name"),
        text("restartPolicy", "RestartPolicy").or("Always"),
        int64("terminationGracePeriodSeconds").pointer().or_int(30),
        int64("activeDeadlineSeconds").pointer(),
        text("dnsPolicy", "DNSPolicy").or("ClusterFirst"),
        string_map("nodeSelector"),
        string("serviceAccountName"),
        string("serviceAccount"),
        boolean("automountServiceAccountToken").pointer(),
        string("nodeName"),
        boolean("hostNetwork"),
        boolean("hostPID"),
        boolean("hostIPC"),
        boolean("shareProcessNamespace").pointer(),
        object("securityContext", &POD_SECURITY_CONTEXT).or_empty(),
        objects("imagePullSecrets", &LOCAL_OBJECT_REFERENCE).keyed(&["name"]).merge("name"),
        string("hostname"),
        string("subdomain"),
        object("affinity", &AFFINITY),
        string("schedulerName").or("default-scheduler"),
        objects("tolerations", &TOLERATION),
        objects("hostAliases", &HOST_ALIAS).keyed(&["ip"]).merge("ip"),
        string("priorityClassName"),
        int32("priority").pointer(),
        object("dnsConfig", &POD_DNS_CONFIG),
        objects("readinessGates", &POD_READINESS_GATE),
        string("runtimeClassName").pointer(),
        boolean("enableServiceLinks").pointer(),
        text("preemptionPolicy", "PreemptionPolicy").pointer(),
        quantities("overhead"),
        objects("topologySpreadConstraints", &TOPOLOGY_SPREAD_CONSTRAINT)
            .keyed(&["topologyKey", "whenUnsatisfiable"])
            .merge("topologyKey"),
        boolean("setHostnameAsFQDN").pointer(),
        object("os", &POD_OS),
        boolean("hostUsers").pointer(),
        objects("schedulingGates", &POD_SCHEDULING_GATE).keyed(&["name"]).merge("name"),
        objects("resourceClaims", &POD_RESOURCE_CLAIM).keyed(&["name"]).merge("name").retain_keys(),
        object("resources", &RESOURCE_REQUIREMENTS),
    ],
);

pub static HOST_ALIAS: FieldTable =
    table("HostAlias", &[string("ip").required(), strings("hostnames")]);

pub static POD_DNS_CONFIG: FieldTable = table(
    "PodDNSConfig",
    &[strings("nameservers"), strings("searches"), objects("options", &POD_DNS_CONFIG_OPTION)],
);

pub static POD_DNS_CONFIG_OPTION: FieldTable =
    table("PodDNSConfigOption", &[string("name"), string("value").pointer()]);

pub static POD_READINESS_GATE: FieldTable =
    table("PodReadinessGate", &[text("conditionType", "PodConditionType").required()]);

pub static POD_OS: FieldTable = table("PodOS", &[text("name", "OSName").required()]);

pub static POD_SCHEDULING_GATE: FieldTable =
    table("PodSchedulingGate", &[string("name").required()]);

pub static POD_RESOURCE_CLAIM: FieldTable = table(
    "PodResourceClaim",
    &[
        string("name").required(),
        string("resourceClaimName").pointer(),
        string("resourceClaimTemplateName").pointer(),
    ],
);

/// The body of `pods/NAME/binding`.
pub static BINDING: FieldTable = table(
    "Binding",
    &[
        string("apiVersion"),
        string("kind"),
        object("metadata", &OBJECT_META),
        object("target", &OBJECT_REFERENCE).required(),
    ],
);

//! Nodes and Namespaces: the cluster-scoped kinds of the core group.

use super::meta::OBJECT_META;
use crate::registry::field_table::*;

pub static NODE: FieldTable = table(
    "Node",
    &[
        string("apiVersion"),
        string("kind"),
        object("metadata", &OBJECT_META),
        object("spec", &NODE_SPEC).or_empty(),
        object("status", &NODE_STATUS),
    ],
);

pub static NODE_SPEC: FieldTable = table(
    "NodeSpec",
    &[
        string("podCIDR"),
        strings("podCIDRs").set().merge(""),
        string("providerID"),
        boolean("unschedulable"),
        objects("taints", &TAINT),
        object("configSource", &NODE_CONFIG_SOURCE),
        string("externalID"),
    ],
);

pub static TAINT: FieldTable = table(
    "Taint",
    &[
        string("key").required(),
        string("value"),
        text("effect", "TaintEffect").required(),
        time("timeAdded"),
    ],
);

pub static NODE_CONFIG_SOURCE: FieldTable =
    table("NodeConfigSource", &[object("configMap", &CONFIG_MAP_NODE_CONFIG_SOURCE)]);

pub static CONFIG_MAP_NODE_CONFIG_SOURCE: FieldTable = table(
    "ConfigMapNodeConfigSource",
    &[
        string("namespace").required(),
        string("name").required(),
        text("uid", "UID"),
        string("resourceVersion"),
        string("kubeletConfigKey").required(),
    ],
);

pub static NODE_STATUS: FieldTable = table(
    "NodeStatus",
    &[
        quantities("capacity"),
        quantities("allocatable"),
        text("phase", "NodePhase"),
        objects("conditions", &NODE_CONDITION).keyed(&["type"]).merge("type"),
        objects("addresses", &NODE_ADDRESS).keyed(&["type"]).merge("type"),
        object("daemonEndpoints", &NODE_DAEMON_ENDPOINTS),
        object("nodeInfo", &NODE_SYSTEM_INFO),
        objects("images", &CONTAINER_IMAGE),
        texts("volumesInUse", "UniqueVolumeName"),
        objects("volumesAttached", &ATTACHED_VOLUME),
        object("config", &NODE_CONFIG_STATUS),
        objects("runtimeHandlers", &NODE_RUNTIME_HANDLER),
        object("features", &NODE_FEATURES),
    ],
);

pub static NODE_CONDITION: FieldTable = table(
    "NodeCondition",
    &[
        text("type", "NodeConditionType").required(),
        text("status", "ConditionStatus").required(),
        time("lastHeartbeatTime"),
        time("lastTransitionTime"),
        string("reason"),
        string("message"),
    ],
);

pub static NODE_ADDRESS: FieldTable = table(
    "NodeAddress",
    &[text("type", "NodeAddressType").required(), string("address").required()],
);

pub static NODE_DAEMON_ENDPOINTS: FieldTable =
    table("NodeDaemonEndpoints", &[object("kubeletEndpoint", &DAEMON_ENDPOINT)]);

/// Upstream writes this one field with a capital.
pub static DAEMON_ENDPOINT: FieldTable = table("DaemonEndpoint", &[int32("Port").required()]);

pub static NODE_SYSTEM_INFO: FieldTable = table(
    "NodeSystemInfo",
    &[
        string("machineID").required(),
        string("systemUUID").required(),
        string("bootID").required(),
        string("kernelVersion").required(),
        string("osImage").required(),
        string("containerRuntimeVersion").required(),
        string("kubeletVersion").required(),
        string("kubeProxyVersion").required(),
        string("operatingSystem").required(),
        string("architecture").required(),
        object("swap", &NODE_SWAP_STATUS),
    ],
);

pub static NODE_SWAP_STATUS: FieldTable = table("NodeSwapStatus", &[int64("capacity").pointer()]);

pub static CONTAINER_IMAGE: FieldTable =
    table("ContainerImage", &[strings("names").required(), int64("sizeBytes")]);

pub static ATTACHED_VOLUME: FieldTable = table(
    "AttachedVolume",
    &[text("name", "UniqueVolumeName").required(), string("devicePath").required()],
);

pub static NODE_CONFIG_STATUS: FieldTable = table(
    "NodeConfigStatus",
    &[
        object("assigned", &NODE_CONFIG_SOURCE),
        object("active", &NODE_CONFIG_SOURCE),
        object("lastKnownGood", &NODE_CONFIG_SOURCE),
        string("error"),
    ],
);

pub static NODE_RUNTIME_HANDLER: FieldTable = table(
    "NodeRuntimeHandler",
    &[string("name").required(), object("features", &NODE_RUNTIME_HANDLER_FEATURES)],
);

pub static NODE_RUNTIME_HANDLER_FEATURES: FieldTable = table(
    "NodeRuntimeHandlerFeatures",
    &[boolean("recursiveReadOnlyMounts").pointer(), boolean("userNamespaces").pointer()],
);

pub static NODE_FEATURES: FieldTable =
    table("NodeFeatures", &[boolean("supplementalGroupsPolicy").pointer()]);

pub static NAMESPACE: FieldTable = table(
    "Namespace",
    &[
        string("apiVersion"),
        string("kind"),
        object("metadata", &OBJECT_META),
        object("spec", &NAMESPACE_SPEC).or_empty(),
        object("status", &NAMESPACE_STATUS).or_empty(),
    ],
);

pub static NAMESPACE_SPEC: FieldTable =
    table("NamespaceSpec", &[texts("finalizers", "FinalizerName")]);

pub static NAMESPACE_STATUS: FieldTable = table(
    "NamespaceStatus",
    &[
        text("phase", "NamespacePhase").or("Active"),
        objects("conditions", &NAMESPACE_CONDITION).keyed(&["type"]).merge("type"),
    ],
);

pub static NAMESPACE_CONDITION: FieldTable = table(
    "NamespaceCondition",
    &[
        text("type", "NamespaceConditionType").required(),
        text("status", "ConditionStatus").required(),
        time("lastTransitionTime"),
        string("reason"),
        string("message"),
    ],
);

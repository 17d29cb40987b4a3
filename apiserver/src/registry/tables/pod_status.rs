//! What the kubelet and the scheduler report of a pod.

use super::container::RESOURCE_REQUIREMENTS;
use crate::registry::field_table::*;

pub static POD_STATUS: FieldTable = table(
    "PodStatus",
    &[
        int64("observedGeneration"),
        text("phase", "PodPhase"),
        objects("conditions", &POD_CONDITION).keyed(&["type"]).merge("type"),
        string("message"),
        string("reason"),
        string("nominatedNodeName"),
        string("hostIP"),
        objects("hostIPs", &HOST_IP).merge("ip"),
        string("podIP"),
        objects("podIPs", &POD_IP).keyed(&["ip"]).merge("ip"),
        time("startTime"),
        objects("initContainerStatuses", &CONTAINER_STATUS),
        objects("containerStatuses", &CONTAINER_STATUS),
        text("qosClass", "PodQOSClass"),
        objects("ephemeralContainerStatuses", &CONTAINER_STATUS),
        text("resize", "PodResizeStatus"),
        objects("resourceClaimStatuses", &POD_RESOURCE_CLAIM_STATUS)
            .keyed(&["name"])
            .merge("name")
            .retain_keys(),
    ],
);

pub static POD_CONDITION: FieldTable = table(
    "PodCondition",
    &[
        text("type", "PodConditionType").required(),
        int64("observedGeneration"),
        text("status", "ConditionStatus").required(),
        time("lastProbeTime"),
        time("lastTransitionTime"),
        string("reason"),
        string("message"),
    ],
);

pub static HOST_IP: FieldTable = table("HostIP", &[string("ip").required()]);

pub static POD_IP: FieldTable = table("PodIP", &[string("ip").required()]);

pub static CONTAINER_STATUS: FieldTable = table(
    "ContainerStatus",
    &[
        string("name").required(),
        object("state", &CONTAINER_STATE),
        object("lastState", &CONTAINER_STATE),
        boolean("ready").required(),
        int32("restartCount").required(),
        string("image").required(),
        string("imageID").required(),
        string("containerID"),
        boolean("started").pointer(),
        quantities("allocatedResources"),
        object("resources", &RESOURCE_REQUIREMENTS),
        objects("volumeMounts", &VOLUME_MOUNT_STATUS).keyed(&["mountPath"]).merge("mountPath"),
        object("user", &CONTAINER_USER),
        objects("allocatedResourcesStatus", &RESOURCE_STATUS).keyed(&["name"]).merge("name"),
        text("stopSignal", "Signal").pointer(),
    ],
);

pub static CONTAINER_STATE: FieldTable = table(
    "ContainerState",
    &[
        object("waiting", &CONTAINER_STATE_WAITING),
        object("running", &CONTAINER_STATE_RUNNING),
        object("terminated", &CONTAINER_STATE_TERMINATED),
    ],
);

pub static CONTAINER_STATE_WAITING: FieldTable =
    table("ContainerStateWaiting", &[string("reason"), string("message")]);

pub static CONTAINER_STATE_RUNNING: FieldTable =
    table("ContainerStateRunning", &[time("startedAt")]);

pub static CONTAINER_STATE_TERMINATED: FieldTable = table(
    "ContainerStateTerminated",
    &[
        int32("exitCode").required(),
        int32("signal"),
        string("reason"),
        string("message"),
        time("startedAt"),
        time("finishedAt"),
        string("containerID"),
    ],
);

pub static VOLUME_MOUNT_STATUS: FieldTable = table(
    "VolumeMountStatus",
    &[
        string("name").required(),
        string("mountPath").required(),
        boolean("readOnly"),
        text("recursiveReadOnly", "RecursiveReadOnlyMode").pointer(),
    ],
);

pub static CONTAINER_USER: FieldTable =
    table("ContainerUser", &[object("linux", &LINUX_CONTAINER_USER)]);

pub static LINUX_CONTAINER_USER: FieldTable = table(
    "LinuxContainerUser",
    &[int64("uid").required(), int64("gid").required(), int64s("supplementalGroups")],
);

pub static RESOURCE_STATUS: FieldTable = table(
    "ResourceStatus",
    &[
        text("name", "ResourceName").required(),
        objects("resources", &RESOURCE_HEALTH).keyed(&["resourceID"]),
    ],
);

pub static RESOURCE_HEALTH: FieldTable = table(
    "ResourceHealth",
    &[text("resourceID", "ResourceID").required(), text("health", "ResourceHealthStatus")],
);

pub static POD_RESOURCE_CLAIM_STATUS: FieldTable = table(
    "PodResourceClaimStatus",
    &[string("name").required(), string("resourceClaimName").pointer()],
);

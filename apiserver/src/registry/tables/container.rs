//! Containers: plain, init and ephemeral.

use super::probe::{LIFECYCLE, PROBE};
use super::security::SECURITY_CONTEXT;
use crate::registry::field_table::*;

pub static CONTAINER: FieldTable = table("Container", CONTAINER_FIELDS);

/// What plain, init and ephemeral containers have in common.
const CONTAINER_FIELDS: &[Field] = &[
    string("name").required(),
    string("image"),
    strings("command"),
    strings("args"),
    string("workingDir"),
    objects("ports", &CONTAINER_PORT).keyed(&["containerPort", "protocol"]).merge("containerPort"),
    objects("envFrom", &ENV_FROM_SOURCE),
    objects("env", &ENV_VAR).keyed(&["name"]).merge("name"),
    object("resources", &RESOURCE_REQUIREMENTS).or_empty(),
    objects("resizePolicy", &CONTAINER_RESIZE_POLICY),
    text("restartPolicy", "ContainerRestartPolicy").pointer(),
    objects("volumeMounts", &VOLUME_MOUNT).keyed(&["mountPath"]).merge("mountPath"),
    objects("volumeDevices", &VOLUME_DEVICE).keyed(&["devicePath"]).merge("devicePath"),
    object("livenessProbe", &PROBE),
    object("readinessProbe", &PROBE),
    object("startupProbe", &PROBE),
    object("lifecycle", &LIFECYCLE),
    string("terminationMessagePath").or("/dev/termination-log"),
    text("terminationMessagePolicy", "TerminationMessagePolicy").or("File"),
    text("imagePullPolicy", "PullPolicy"),
    object("securityContext", &SECURITY_CONTEXT),
    boolean("stdin"),
    boolean("stdinOnce"),
    boolean("tty"),
];

/// The common fields, embedded, and the container it looks into.
static EPHEMERAL_CONTAINER_FIELDS: [Field; CONTAINER_FIELDS.len() + 1] = {
    let mut fields = [string("targetContainerName"); CONTAINER_FIELDS.len() + 1];
    let mut at = 0;
    while at < CONTAINER_FIELDS.len() {
        fields[at] = CONTAINER_FIELDS[at];
        at += 1;
    }
    fields
};

pub static EPHEMERAL_CONTAINER: FieldTable =
    table("EphemeralContainer", &EPHEMERAL_CONTAINER_FIELDS);

pub static CONTAINER_PORT: FieldTable = table(
    "ContainerPort",
    &[
        string("name"),
        int32("hostPort"),
        int32("containerPort").required(),
        text("protocol", "Protocol").or("TCP"),
        string("hostIP"),
    ],
);

pub static ENV_VAR: FieldTable = table(
    "EnvVar",
    &[string("name").required(), string("value"), object("valueFrom", &ENV_VAR_SOURCE)],
);

pub static ENV_VAR_SOURCE: FieldTable = table(
    "EnvVarSource",
    &[
        object("fieldRef", &OBJECT_FIELD_SELECTOR),
        object("resourceFieldRef", &RESOURCE_FIELD_SELECTOR),
        object("configMapKeyRef", &CONFIG_MAP_KEY_SELECTOR),
        object("secretKeyRef", &SECRET_KEY_SELECTOR),
    ],
);

pub static OBJECT_FIELD_SELECTOR: FieldTable =
    table("ObjectFieldSelector", &[string("apiVersion").or("v1"), string("fieldPath").required()]);

pub static RESOURCE_FIELD_SELECTOR: FieldTable = table(
    "ResourceFieldSelector",
    &[string("containerName"), string("resource").required(), quantity("divisor").or("0")],
);

pub static CONFIG_MAP_KEY_SELECTOR: FieldTable = table(
    "ConfigMapKeySelector",
    &[string("name"), string("key").required(), boolean("optional").pointer()],
);

pub static SECRET_KEY_SELECTOR: FieldTable =
    table("SecretKeySelector", CONFIG_MAP_KEY_SELECTOR.fields);

pub static ENV_FROM_SOURCE: FieldTable = table(
    "EnvFromSource",
    &[
        string("prefix"),
        object("configMapRef", &CONFIG_MAP_ENV_SOURCE),
        object("secretRef", &SECRET_ENV_SOURCE),
    ],
);

pub static CONFIG_MAP_ENV_SOURCE: FieldTable =
    table("ConfigMapEnvSource", &[string("name"), boolean("optional").pointer()]);

pub static SECRET_ENV_SOURCE: FieldTable = table("SecretEnvSource", CONFIG_MAP_ENV_SOURCE.fields);

pub static RESOURCE_REQUIREMENTS: FieldTable = table(
    "ResourceRequirements",
    &[
        quantities("limits"),
        quantities("requests"),
        objects("claims", &RESOURCE_CLAIM).keyed(&["name"]),
    ],
);

pub static RESOURCE_CLAIM: FieldTable =
    table("ResourceClaim", &[string("name").required(), string("request")]);

pub static CONTAINER_RESIZE_POLICY: FieldTable = table(
    "ContainerResizePolicy",
    &[
        text("resourceName", "ResourceName").required(),
        text("restartPolicy", "ResourceResizeRestartPolicy").required(),
    ],
);

pub static VOLUME_MOUNT: FieldTable = table(
    "VolumeMount",
    &[
        string("name").required(),
        boolean("readOnly"),
        text("recursiveReadOnly", "RecursiveReadOnlyMode").pointer(),
        string("mountPath").required(),
        string("subPath"),
        text("mountPropagation", "MountPropagationMode").pointer(),
        string("subPathExpr"),
    ],
);

pub static VOLUME_DEVICE: FieldTable =
    table("VolumeDevice", &[string("name").required(), string("devicePath").required()]);

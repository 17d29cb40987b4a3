//! Volumes: the sources every cluster has. Those of particular storage systems are in
//! `cloud_volumes`.

use super::cloud_volumes::*;
use super::container::{OBJECT_FIELD_SELECTOR, RESOURCE_FIELD_SELECTOR};
use super::meta::{
    LABEL_SELECTOR, LOCAL_OBJECT_REFERENCE, OBJECT_META, TYPED_LOCAL_OBJECT_REFERENCE,
};
use crate::registry::field_table::*;

pub static VOLUME: FieldTable = table(
    "Volume",
    &[
        string("name").required(),
        object("hostPath", &HOST_PATH),
        object("emptyDir", &EMPTY_DIR),
        object("gcePersistentDisk", &GCE_PERSISTENT_DISK),
        object("awsElasticBlockStore", &AWS_ELASTIC_BLOCK_STORE),
        object("gitRepo", &GIT_REPO),
        object("secret", &SECRET_VOLUME),
        object("nfs", &NFS),
        object("iscsi", &ISCSI),
        object("glusterfs", &GLUSTERFS),
        object("persistentVolumeClaim", &PERSISTENT_VOLUME_CLAIM_SOURCE),
        object("rbd", &RBD),
        object("flexVolume", &FLEX_VOLUME),
        object("cinder", &CINDER),
        object("cephfs", &CEPH_FS),
        object("flocker", &FLOCKER),
        object("downwardAPI", &DOWNWARD_API_VOLUME),
        object("fc", &FC),
        object("azureFile", &AZURE_FILE),
        object("configMap", &CONFIG_MAP_VOLUME),
        object("vsphereVolume", &VSPHERE_VOLUME),
        object("quobyte", &QUOBYTE),
        object("azureDisk", &AZURE_DISK),
        object("photonPersistentDisk", &PHOTON_PERSISTENT_DISK),
        object("projected", &PROJECTED),
        object("portworxVolume", &PORTWORX),
        object("scaleIO", &SCALE_IO),
        object("storageos", &STORAGE_OS),
        object("csi", &CSI),
        object("ephemeral", &EPHEMERAL),
        object("image", &IMAGE_VOLUME),
    ],
);

pub static HOST_PATH: FieldTable = table(
    "HostPathVolumeSource",
    &[string("path").required(), text("type", "HostPathType").pointer().or("")],
);

pub static EMPTY_DIR: FieldTable =
    table("EmptyDirVolumeSource", &[text("medium", "StorageMedium"), quantity("sizeLimit")]);

pub static KEY_TO_PATH: FieldTable = table(
    "KeyToPath",
    &[string("key").required(), string("path").required(), int32("mode").pointer()],
);

pub static SECRET_VOLUME: FieldTable = table(
    "SecretVolumeSource",
    &[
        string("secretName"),
        objects("items", &KEY_TO_PATH),
        int32("defaultMode").pointer().or_int(0o644),
        boolean("optional").pointer(),
    ],
);

pub static CONFIG_MAP_VOLUME: FieldTable = table(
    "ConfigMapVolumeSource",
    &[
        string("name"),
        objects("items", &KEY_TO_PATH),
        int32("defaultMode").pointer().or_int(0o644),
        boolean("optional").pointer(),
    ],
);

pub static DOWNWARD_API_VOLUME: FieldTable = table(
    "DownwardAPIVolumeSource",
    &[objects("items", &DOWNWARD_API_FILE), int32("defaultMode").pointer().or_int(0o644)],
);

pub static DOWNWARD_API_FILE: FieldTable = table(
    "DownwardAPIVolumeFile",
    &[
        string("path").required(),
        object("fieldRef", &OBJECT_FIELD_SELECTOR),
        object("resourceFieldRef", &RESOURCE_FIELD_SELECTOR),
        int32("mode").pointer(),
    ],
);

pub static PROJECTED: FieldTable = table(
    "ProjectedVolumeSource",
    &[
        objects("sources", &VOLUME_PROJECTION).required(),
        int32("defaultMode").pointer().or_int(0o644),
    ],
);

pub static VOLUME_PROJECTION: FieldTable = table(
    "VolumeProjection",
    &[
        object("secret", &SECRET_PROJECTION),
        object("downwardAPI", &DOWNWARD_API_PROJECTION),
        object("configMap", &CONFIG_MAP_PROJECTION),
        object("serviceAccountToken", &SERVICE_ACCOUNT_TOKEN_PROJECTION),
        object("clusterTrustBundle", &CLUSTER_TRUST_BUNDLE_PROJECTION),
    ],
);

pub static SECRET_PROJECTION: FieldTable = table(
    "SecretProjection",
    &[string("name"), objects("items", &KEY_TO_PATH), boolean("optional").pointer()],
);

pub static CONFIG_MAP_PROJECTION: FieldTable =
    table("ConfigMapProjection", SECRET_PROJECTION.fields);

pub static DOWNWARD_API_PROJECTION: FieldTable =
    table("DownwardAPIProjection", &[objects("items", &DOWNWARD_API_FILE)]);

pub static SERVICE_ACCOUNT_TOKEN_PROJECTION: FieldTable = table(
    "ServiceAccountTokenProjection",
    &[
        string("audience"),
        int64("expirationSeconds").pointer().or_int(3600),
        string("path").required(),
    ],
);

pub static CLUSTER_TRUST_BUNDLE_PROJECTION: FieldTable = table(
    "ClusterTrustBundleProjection",
    &[
        string("name").pointer(),
        string("signerName").pointer(),
        object("labelSelector", &LABEL_SELECTOR),
        boolean("optional").pointer(),
        string("path").required(),
    ],
);

pub static PERSISTENT_VOLUME_CLAIM_SOURCE: FieldTable = table(
    "PersistentVolumeClaimVolumeSource",
    &[string("claimName").required(), boolean("readOnly")],
);

pub static CSI: FieldTable = table(
    "CSIVolumeSource",
    &[
        string("driver").required(),
        boolean("readOnly").pointer(),
        string("fsType").pointer(),
        string_map("volumeAttributes"),
        object("nodePublishSecretRef", &LOCAL_OBJECT_REFERENCE),
    ],
);

pub static EPHEMERAL: FieldTable = table(
    "EphemeralVolumeSource",
    &[object("volumeClaimTemplate", &PERSISTENT_VOLUME_CLAIM_TEMPLATE)],
);

pub static PERSISTENT_VOLUME_CLAIM_TEMPLATE: FieldTable = table(
    "PersistentVolumeClaimTemplate",
    &[object("metadata", &OBJECT_META), object("spec", &PERSISTENT_VOLUME_CLAIM_SPEC).required()],
);

pub static PERSISTENT_VOLUME_CLAIM_SPEC: FieldTable = table(
    "PersistentVolumeClaimSpec",
    &[
        texts("accessModes", "PersistentVolumeAccessMode"),
        object("selector", &LABEL_SELECTOR),
        object("resources", &VOLUME_RESOURCE_REQUIREMENTS).or_empty(),
        string("volumeName"),
        string("storageClassName").pointer(),
        text("volumeMode", "PersistentVolumeMode").pointer().or("Filesystem"),
        object("dataSource", &TYPED_LOCAL_OBJECT_REFERENCE),
        object("dataSourceRef", &TYPED_OBJECT_REFERENCE),
        string("volumeAttributesClassName").pointer(),
    ],
);

pub static VOLUME_RESOURCE_REQUIREMENTS: FieldTable =
    table("VolumeResourceRequirements", &[quantities("limits"), quantities("requests")]);

pub static TYPED_OBJECT_REFERENCE: FieldTable = table(
    "TypedObjectReference",
    &[
        string("apiGroup").pointer(),
        string("kind").required(),
        string("name").required(),
        string("namespace").pointer(),
    ],
);

pub static IMAGE_VOLUME: FieldTable =
    table("ImageVolumeSource", &[string("reference"), text("pullPolicy", "PullPolicy")]);

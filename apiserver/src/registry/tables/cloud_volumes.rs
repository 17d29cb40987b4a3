//! Volume sources of particular storage systems. Nothing here mounts them; they are known so
//! that real manifests apply unchanged.

use super::meta::LOCAL_OBJECT_REFERENCE;
use crate::registry::field_table::*;

pub static GCE_PERSISTENT_DISK: FieldTable = table(
    "GCEPersistentDiskVolumeSource",
    &[string("pdName").required(), string("fsType"), int32("partition"), boolean("readOnly")],
);

pub static AWS_ELASTIC_BLOCK_STORE: FieldTable = table(
    "AWSElasticBlockStoreVolumeSource",
    &[string("volumeID").required(), string("fsType"), int32("partition"), boolean("readOnly")],
);

pub static GIT_REPO: FieldTable = table(
    "GitRepoVolumeSource",
    &[string("repository").required(), string("revision"), string("directory")],
);

pub static NFS: FieldTable = table(
    "NFSVolumeSource",
    &[string("server").required(), string("path").required(), boolean("readOnly")],
);

pub static ISCSI: FieldTable = table(
    "ISCSIVolumeSource",
    &[
        string("targetPortal").required(),
        string("iqn").required(),
        int32("lun").required(),
        string("iscsiInterface").or("default"),
        string("fsType"),
        boolean("readOnly"),
        strings("portals"),
        boolean("chapAuthDiscovery"),
        boolean("chapAuthSession"),
        object("secretRef", &LOCAL_OBJECT_REFERENCE),
        string("initiatorName").pointer(),
    ],
);

pub static GLUSTERFS: FieldTable = table(
    "GlusterfsVolumeSource",
    &[string("endpoints").required(), string("path").required(), boolean("readOnly")],
);

pub static RBD: FieldTable = table(
    "RBDVolumeSource",
    &[
        strings("monitors").required(),
        string("image").required(),
        string("fsType"),
        string("pool").or("rbd"),
        string("user").or("admin"),
        string("keyring").or("/etc/ceph/keyring"),
        object("secretRef", &LOCAL_OBJECT_REFERENCE),
        boolean("readOnly"),
    ],
);

pub static FLEX_VOLUME: FieldTable = table(
    "FlexVolumeSource",
    &[
        string("driver").required(),
        string("fsType"),
        object("secretRef", &LOCAL_OBJECT_REFERENCE),
        boolean("readOnly"),
        string_map("options"),
    ],
);

pub static CINDER: FieldTable = table(
    "CinderVolumeSource",
    &[
        string("volumeID").required(),
        string("fsType"),
        boolean("readOnly"),
        object("secretRef", &LOCAL_OBJECT_REFERENCE),
    ],
);

pub static CEPH_FS: FieldTable = table(
    "CephFSVolumeSource",
    &[
        strings("monitors").required(),
        string("path"),
        string("user"),
        string("secretFile"),
        object("secretRef", &LOCAL_OBJECT_REFERENCE),
        boolean("readOnly"),
    ],
);

pub static FLOCKER: FieldTable =
    table("FlockerVolumeSource", &[string("datasetName"), string("datasetUUID")]);

pub static FC: FieldTable = table(
    "FCVolumeSource",
    &[
        strings("targetWWNs"),
        int32("lun").pointer(),
        string("fsType"),
        boolean("readOnly"),
        strings("wwids"),
    ],
);

pub static AZURE_FILE: FieldTable = table(
    "AzureFileVolumeSource",
    &[string("secretName").required(), string("shareName").required(), boolean("readOnly")],
);

pub static VSPHERE_VOLUME: FieldTable = table(
    "VsphereVirtualDiskVolumeSource",
    &[
        string("volumePath").required(),
        string("fsType"),
        string("storagePolicyName"),
        string("storagePolicyID"),
    ],
);

pub static QUOBYTE: FieldTable = table(
    "QuobyteVolumeSource",
    &[
        string("registry").required(),
        string("volume").required(),
        boolean("readOnly"),
        string("user"),
        string("group"),
        string("tenant"),
    ],
);

pub static AZURE_DISK: FieldTable = table(
    "AzureDiskVolumeSource",
    &[
        string("diskName").required(),
        string("diskURI").required(),
        text("cachingMode", "AzureDataDiskCachingMode").pointer().or("ReadWrite"),
        string("fsType").pointer().or("ext4"),
        boolean("readOnly").pointer().or_bool(false),
        text("kind", "AzureDataDiskKind").pointer().or("Shared"),
    ],
);

pub static PHOTON_PERSISTENT_DISK: FieldTable =
    table("PhotonPersistentDiskVolumeSource", &[string("pdID").required(), string("fsType")]);

pub static PORTWORX: FieldTable = table(
    "PortworxVolumeSource",
    &[string("volumeID").required(), string("fsType"), boolean("readOnly")],
);

pub static SCALE_IO: FieldTable = table(
    "ScaleIOVolumeSource",
    &[
        string("gateway").required(),
        string("system").required(),
        object("secretRef", &LOCAL_OBJECT_REFERENCE).required(),
        boolean("sslEnabled"),
        string("protectionDomain"),
        string("storagePool"),
        string("storageMode").or("ThinProvisioned"),
        string("volumeName"),
        string("fsType").or("xfs"),
        boolean("readOnly"),
    ],
);

pub static STORAGE_OS: FieldTable = table(
    "StorageOSVolumeSource",
    &[
        string("volumeName"),
        string("volumeNamespace"),
        string("fsType"),
        boolean("readOnly"),
        object("secretRef", &LOCAL_OBJECT_REFERENCE),
    ],
);

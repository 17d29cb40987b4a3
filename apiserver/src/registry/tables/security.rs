//! Security contexts of pods and containers.

use crate::registry::field_table::*;

pub static SECURITY_CONTEXT: FieldTable = table(
    "SecurityContext",
    &[
        object("capabilities", &CAPABILITIES),
        boolean("privileged").pointer(),
        object("seLinuxOptions", &SE_LINUX_OPTIONS),
        object("windowsOptions", &WINDOWS_OPTIONS),
        int64("runAsUser").pointer(),
        int64("runAsGroup").pointer(),
        boolean("runAsNonRoot").pointer(),
        boolean("readOnlyRootFilesystem").pointer(),
        boolean("allowPrivilegeEscalation").pointer(),
        text("procMount", "ProcMountType").pointer(),
        object("seccompProfile", &SECCOMP_PROFILE),
        object("appArmorProfile", &APP_ARMOR_PROFILE),
    ],
);

pub static POD_SECURITY_CONTEXT: FieldTable = table(
    "PodSecurityContext",
    &[
        object("seLinuxOptions", &SE_LINUX_OPTIONS),
        object("windowsOptions", &WINDOWS_OPTIONS),
        int64("runAsUser").pointer(),
        int64("runAsGroup").pointer(),
        boolean("runAsNonRoot").pointer(),
        int64s("supplementalGroups"),
        text("supplementalGroupsPolicy", "SupplementalGroupsPolicy").pointer(),
        int64("fsGroup").pointer(),
        objects("sysctls", &SYSCTL),
        text("fsGroupChangePolicy", "PodFSGroupChangePolicy").pointer(),
        object("seccompProfile", &SECCOMP_PROFILE),
        object("appArmorProfile", &APP_ARMOR_PROFILE),
        text("seLinuxChangePolicy", "PodSELinuxChangePolicy").pointer(),
    ],
);

pub static CAPABILITIES: FieldTable =
    table("Capabilities", &[texts("add", "Capability"), texts("drop", "Capability")]);

pub static SE_LINUX_OPTIONS: FieldTable =
    table("SELinuxOptions", &[string("user"), string("role"), string("type"), string("level")]);

pub static WINDOWS_OPTIONS: FieldTable = table(
    "WindowsSecurityContextOptions",
    &[
        string("gmsaCredentialSpecName").pointer(),
        string("gmsaCredentialSpec").pointer(),
        string("runAsUserName").pointer(),
        boolean("hostProcess").pointer(),
    ],
);

pub static SECCOMP_PROFILE: FieldTable = table(
    "SeccompProfile",
    &[text("type", "SeccompProfileType").required(), string("localhostProfile").pointer()],
);

pub static APP_ARMOR_PROFILE: FieldTable = table(
    "AppArmorProfile",
    &[text("type", "AppArmorProfileType").required(), string("localhostProfile").pointer()],
);

pub static SYSCTL: FieldTable =
    table("Sysctl", &[string("name").required(), string("value").required()]);

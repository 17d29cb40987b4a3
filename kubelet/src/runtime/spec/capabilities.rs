//! Capabilities: containerd's default set, what a manifest adds and drops, and the kernel's numbers.

use crate::ports::Security;

/// `oci.defaultUnixCaps` of containerd.
const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// By the kernel's number (`linux/capability.h`).
const BY_NUMBER: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The names of a capability mask, as in `/proc/self/status`.
pub fn names(mask: u64) -> Vec<String> {
    BY_NUMBER
        .iter()
        .enumerate()
        .filter(|(number, _)| mask & (1 << number) != 0)
        .map(|(_, name)| format!("CAP_{name}"))
        .collect()
}

/// `ALL` first, then single names, as the CRI does: `drop: [ALL], add: [KILL]` leaves KILL.
pub fn wanted(security: &Security, available: &[String]) -> Vec<String> {
    if security.privileged {
        return available.to_vec();
    }
    let has_all = |list: &[String]| list.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let mut set: Vec<String> = DEFAULT.iter().map(|name| (*name).to_owned()).collect();
    if has_all(&security.add_capabilities) {
        set = available.to_vec();
    }
    if has_all(&security.drop_capabilities) {
        set.clear();
    }
    for name in full_names(&security.add_capabilities) {
        if !set.contains(&name) {
            set.push(name);
        }
    }
    for name in full_names(&security.drop_capabilities) {
        set.retain(|one| *one != name);
    }
    set
}

fn full_names(list: &[String]) -> impl Iterator<Item = String> {
    list.iter()
        .map(|name| name.to_ascii_uppercase())
        .filter(|name| name != "ALL")
        .map(|name| if name.starts_with("CAP_") { name } else { format!("CAP_{name}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(add: &[&str], drop: &[&str], expect: &str) {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let security = Security {
            add_capabilities: list(add),
            drop_capabilities: list(drop),
            ..Security::default()
        };
        let available = vec!["CAP_KILL".to_owned(), "CAP_SYS_ADMIN".to_owned()];
        let got: Vec<String> = wanted(&security, &available)
            .into_iter()
            .map(|name| name.trim_start_matches("CAP_").to_owned())
            .collect();
        assert_eq!(got.join(" "), expect);
    }

    #[test]
    fn added_and_dropped() {
        let default = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE \
                       SYS_CHROOT KILL AUDIT_WRITE";
        check(&[], &[], default);
        check(&["NET_ADMIN"], &[], &format!("{default} NET_ADMIN"));
        check(
            &["CAP_NET_ADMIN", "KILL"],
            &["KILL"],
            &format!("{default} NET_ADMIN").replace(" KILL", ""),
        );
        check(&["NET_BIND_SERVICE"], &["ALL"], "NET_BIND_SERVICE");
        check(&["ALL"], &[], "KILL SYS_ADMIN");
        check(&["ALL"], &["SYS_ADMIN"], "KILL");
        check(&["net_admin"], &["all"], "NET_ADMIN");
    }

    #[test]
    fn a_mask_has_names() {
        assert_eq!(names(0b10_0001), ["CAP_CHOWN", "CAP_KILL"]);
        assert_eq!(names(1 << 40), ["CAP_CHECKPOINT_RESTORE"]);
    }
}

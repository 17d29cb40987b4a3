//! The OCI runtime specification of sandboxes and containers: pure, from the kubelet's words and the
//! host's facts to the JSON that runc reads. Defaults are containerd's own (`oci/spec.go`, the CRI plugin).

mod capabilities;
mod mounts;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::users::User;
use crate::ports::{ContainerConfig, Resources, SandboxConfig};

pub(super) use capabilities::{names as capability_names, wanted as wanted_capabilities};

/// Containers with the same value share one shim, for as long as one of them is there: the pause program's stays with
/// the pod. Without that program a shim ends with its last container, and one that starts in that moment would be
/// lost with it: so each has a shim of its own.
const SHIM_GROUP: &str = "io.containerd.runc.v2.group";
const OCI_VERSION: &str = "1.0.2-dev";
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Nobody: the pause program needs no rights.
const PAUSE_USER: u32 = 65_535;
const PAUSE_CPU_SHARES: u64 = 2;
const PAUSE_OOM_SCORE: i32 = -998;

/// What this machine and process allow.
#[derive(Debug, Clone, Default)]
pub(super) struct Host {
    /// `CAP_...` names in the bounding set.
    pub capabilities: Vec<String>,
    /// The lowest OOM score that may be set here; without CAP_SYS_RESOURCE it is our own.
    pub lowest_oom_score: i32,
    /// Device nodes for privileged containers.
    pub devices: Vec<Device>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    pub path: String,
    /// `c` or `b`.
    pub kind: char,
    pub major: u64,
    pub minor: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Where a sandbox's namespaces are found.
#[derive(Debug, Clone)]
pub(super) enum NamespaceSource {
    /// Those of the pause program.
    Process(u32),
    /// Mounted under their names in this folder.
    Pinned(PathBuf),
}

impl NamespaceSource {
    fn path(&self, name: &str) -> PathBuf {
        match self {
            NamespaceSource::Process(pid) => PathBuf::from(format!("/proc/{pid}/ns/{name}")),
            NamespaceSource::Pinned(dir) => dir.join(name),
        }
    }
}

/// What a container shares with its sandbox.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub sandbox_id: String,
    pub namespaces: NamespaceSource,
    pub network_namespace: Option<PathBuf>,
    pub hostname: String,
    pub host_pid: bool,
    pub host_ipc: bool,
    pub share_process_namespace: bool,
    /// The pod's `/dev/shm`.
    pub shm: PathBuf,
}

pub(super) fn sandbox(
    config: &SandboxConfig,
    id: &str,
    rootfs: &Path,
    cgroup: &str,
    host: &Host,
) -> Value {
    let mut namespaces = vec![json!({"type": "mount"})];
    if !config.host_pid {
        namespaces.push(json!({"type": "pid"}));
    }
    if !config.host_ipc {
        namespaces.push(json!({"type": "ipc"}));
    }
    if let Some(path) = &config.network_namespace {
        namespaces.push(json!({"type": "uts"}));
        namespaces.push(json!({"type": "network", "path": path}));
    }
    let resources = Resources {
        cpu_shares: Some(PAUSE_CPU_SHARES),
        oom_score_adj: PAUSE_OOM_SCORE,
        ..Resources::default()
    };
    let mut spec = json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "user": {"uid": PAUSE_USER, "gid": PAUSE_USER},
            "args": ["/pause"],
            "env": [DEFAULT_PATH],
            "cwd": "/",
            "noNewPrivileges": true,
            "oomScoreAdj": oom_score(&resources, host),
        },
        "root": {"path": rootfs, "readonly": true},
        "mounts": mounts::pause(),
        "annotations": {SHIM_GROUP: id},
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": namespaces,
            "resources": resources_of(&resources, false),
            "sysctl": config.sysctls,
            "maskedPaths": mounts::MASKED,
            "readonlyPaths": mounts::READ_ONLY,
        },
    });
    // Without an own UTS namespace the host's name would be changed.
    if config.network_namespace.is_some() {
        spec["hostname"] = json!(config.hostname);
    }
    spec
}

pub(super) fn container(
    config: &ContainerConfig,
    shared: &Shared,
    user: &User,
    cgroup: &str,
    host: &Host,
) -> Value {
    let security = &config.security;
    let mut linux = json!({
        "cgroupsPath": cgroup,
        "namespaces": namespaces(shared),
        "resources": resources_of(&config.resources, security.privileged),
    });
    if security.privileged {
        linux["devices"] = host.devices.iter().map(device).collect();
    } else {
        linux["maskedPaths"] = json!(mounts::MASKED);
        linux["readonlyPaths"] = json!(mounts::READ_ONLY);
    }
    if config.mounts.iter().any(|mount| mount.propagation == "rshared") {
        linux["rootfsPropagation"] = json!("rshared");
    } else if config.mounts.iter().any(|mount| mount.propagation == "rslave") {
        linux["rootfsPropagation"] = json!("rslave");
    }
    json!({
        "ociVersion": OCI_VERSION,
        "process": process(config, shared, user, host),
        "root": {"path": "rootfs", "readonly": security.read_only_root},
        "mounts": mounts::container(config, shared),
        "annotations": annotations(shared),
        "linux": linux,
    })
}

fn annotations(shared: &Shared) -> Value {
    match shared.namespaces {
        NamespaceSource::Process(_) => json!({SHIM_GROUP: shared.sandbox_id}),
        NamespaceSource::Pinned(_) => json!({}),
    }
}

fn process(config: &ContainerConfig, shared: &Shared, user: &User, host: &Host) -> Value {
    let capabilities = wanted_capabilities(&config.security, &host.capabilities);
    let cwd = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
    json!({
        "terminal": config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.additional},
        "args": config.args,
        "env": environment(config, shared),
        "cwd": cwd,
        "capabilities": {
            "bounding": capabilities,
            "effective": capabilities,
            "permitted": capabilities,
        },
        "noNewPrivileges": config.security.no_new_privileges,
        "oomScoreAdj": oom_score(&config.resources, host),
    })
}

/// The process of an `exec`: as the container's own, with another command.
pub(super) fn exec_process(container_spec: &Value, command: &[String], tty: bool) -> Value {
    let mut process = container_spec["process"].clone();
    process["args"] = json!(command);
    process["terminal"] = json!(tty);
    let has_term =
        |env: &[Value]| env.iter().filter_map(Value::as_str).any(|one| one.starts_with("TERM="));
    if tty
        && let Some(env) = process["env"].as_array_mut()
        && !has_term(env)
    {
        env.push(json!("TERM=xterm"));
    }
    process
}

fn environment(config: &ContainerConfig, shared: &Shared) -> Vec<String> {
    let has = |name: &str| config.env.iter().any(|one| one.split('=').next() == Some(name));
    let mut env = Vec::with_capacity(config.env.len() + 3);
    if !has("PATH") {
        env.push(DEFAULT_PATH.to_owned());
    }
    if config.tty && !has("TERM") {
        env.push("TERM=xterm".to_owned());
    }
    if !has("HOSTNAME") && !shared.hostname.is_empty() {
        env.push(format!("HOSTNAME={}", shared.hostname));
    }
    // The last of several with one name is the one that counts.
    for (at, one) in config.env.iter().enumerate() {
        let name = one.split('=').next();
        if !config.env[at + 1..].iter().any(|later| later.split('=').next() == name) {
            env.push(one.clone());
        }
    }
    env
}

fn namespaces(shared: &Shared) -> Value {
    let of_sandbox = |name: &str| shared.namespaces.path(name);
    let mut list = vec![json!({"type": "mount"})];
    if shared.share_process_namespace && !shared.host_pid {
        list.push(json!({"type": "pid", "path": of_sandbox("pid")}));
    } else if !shared.host_pid {
        list.push(json!({"type": "pid"}));
    }
    if !shared.host_ipc {
        list.push(json!({"type": "ipc", "path": of_sandbox("ipc")}));
    }
    if let Some(path) = &shared.network_namespace {
        list.push(json!({"type": "uts", "path": of_sandbox("uts")}));
        list.push(json!({"type": "network", "path": path}));
    }
    Value::Array(list)
}

/// runc maps the same words to cgroup v1 and v2.
fn resources_of(resources: &Resources, privileged: bool) -> Value {
    let mut map = Map::new();
    map.insert("devices".to_owned(), json!([{"allow": privileged, "access": "rwm"}]));
    let mut cpu = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            cpu.insert(name.to_owned(), value);
        }
    };
    set("shares", resources.cpu_shares.map(Value::from));
    set("quota", resources.cpu_quota_micros.map(Value::from));
    set("period", resources.cpu_period_micros.map(Value::from));
    if !cpu.is_empty() {
        map.insert("cpu".to_owned(), Value::Object(cpu));
    }
    if let Some(limit) = resources.memory_limit_bytes {
        map.insert("memory".to_owned(), json!({"limit": limit}));
    }
    if let Some(limit) = resources.pids_limit {
        map.insert("pids".to_owned(), json!({"limit": limit}));
    }
    Value::Object(map)
}

fn oom_score(resources: &Resources, host: &Host) -> i32 {
    resources.oom_score_adj.max(host.lowest_oom_score).min(1000)
}

fn device(device: &Device) -> Value {
    json!({
        "path": device.path, "type": device.kind, "major": device.major, "minor": device.minor,
        "fileMode": device.mode, "uid": device.uid, "gid": device.gid,
    })
}

#[cfg(test)]
#[path = "spec/tests.rs"]
mod tests;

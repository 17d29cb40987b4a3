//! Golden specifications: `SKIFF_UPDATE_GOLDEN=1 cargo test` writes them anew.

use std::path::Path;

use super::*;
use crate::ports::{Image, ImageConfig, Mount, PodRef, Security};

fn host() -> Host {
    Host {
        capabilities: vec!["CAP_CHOWN".into(), "CAP_KILL".into(), "CAP_SYS_ADMIN".into()],
        lowest_oom_score: 0,
        devices: vec![Device {
            path: "/dev/null".into(),
            kind: 'c',
            major: 1,
            minor: 3,
            mode: 0o666,
            uid: 0,
            gid: 0,
        }],
    }
}

fn shared() -> Shared {
    Shared {
        sandbox_id: "sandbox".into(),
        namespaces: NamespaceSource::Process(42),
        network_namespace: Some("/run/skiff/netns/x".into()),
        hostname: "web-1".into(),
        host_pid: false,
        host_ipc: false,
        share_process_namespace: false,
        shm: "/run/skiff/containers/sandbox/shm".into(),
    }
}

fn config() -> ContainerConfig {
    ContainerConfig {
        pod: PodRef { namespace: "default".into(), name: "web-1".into(), uid: "u".into() },
        name: "app".into(),
        attempt: 0,
        image: Image {
            reference: "docker.io/library/web:1".into(),
            id: "sha256:1".into(),
            repo_digest: "docker.io/library/web@sha256:1".into(),
            size_bytes: 1,
            config: ImageConfig::default(),
        },
        args: vec!["/bin/web".into(), "--port=80".into()],
        env: vec!["PATH=/bin".into(), "A=1".into(), "A=2".into()],
        working_dir: "/srv".into(),
        mounts: Vec::new(),
        resources: Resources::default(),
        security: Security::default(),
        tty: false,
        stdin: false,
        log_path: "/var/log/pods/x/0.log".into(),
        annotations: Default::default(),
    }
}

fn user() -> User {
    User { uid: 33, gid: 34, additional: vec![4] }
}

#[track_caller]
fn check(name: &str, got: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/runtime/spec/golden")
        .join(format!("{name}.json"));
    let text = format!("{got:#}\n");
    if std::env::var_os("SKIFF_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).expect("write the golden file");
    }
    let expect = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expect, "differs from {}", path.display());
}

#[test]
fn a_plain_container() {
    check("container", &container(&config(), &shared(), &user(), "/skiff/pod/c", &host()));
}

#[test]
fn a_container_with_everything() {
    let mut config = config();
    config.tty = true;
    config.working_dir = String::new();
    config.env = vec!["HOSTNAME=own".into()];
    config.mounts = vec![
        Mount {
            host_path: "/v/b".into(),
            container_path: "/data/b/".into(),
            read_only: true,
            propagation: "rslave".into(),
        },
        Mount {
            host_path: "/v/a".into(),
            container_path: "/data".into(),
            read_only: false,
            propagation: String::new(),
        },
        Mount {
            host_path: "/v/shm".into(),
            container_path: "/dev/shm".into(),
            read_only: false,
            propagation: String::new(),
        },
    ];
    config.resources = Resources {
        cpu_shares: Some(512),
        cpu_quota_micros: Some(50_000),
        cpu_period_micros: Some(100_000),
        memory_limit_bytes: Some(64 << 20),
        pids_limit: Some(100),
        oom_score_adj: -997,
    };
    config.security.no_new_privileges = true;
    config.security.read_only_root = true;
    config.security.drop_capabilities = vec!["ALL".into()];
    config.security.add_capabilities = vec!["NET_ADMIN".into()];
    check("container_full", &container(&config, &shared(), &user(), "/skiff/pod/c", &host()));
}

#[test]
fn a_privileged_container_of_the_host() {
    let mut config = config();
    config.security.privileged = true;
    let shared = Shared {
        network_namespace: None,
        host_pid: true,
        host_ipc: true,
        shm: "/dev/shm".into(),
        ..shared()
    };
    check(
        "container_privileged",
        &container(&config, &shared, &User::default(), "/skiff/pod/c", &host()),
    );
}

fn sandbox_config() -> SandboxConfig {
    SandboxConfig {
        pod: config().pod,
        attempt: 0,
        hostname: "web-1".into(),
        network_namespace: Some("/run/skiff/netns/x".into()),
        host_pid: false,
        host_ipc: false,
        share_process_namespace: true,
        cgroup_parent: "/skiff/pod".into(),
        sysctls: [("net.core.somaxconn".to_owned(), "1024".to_owned())].into(),
    }
}

#[test]
fn sandboxes() {
    let rootfs = Path::new("/var/lib/skiff/runtime/pause");
    check("sandbox", &sandbox(&sandbox_config(), "id", rootfs, "/skiff/pod/id", &host()));
    let on_host = SandboxConfig {
        network_namespace: None,
        host_pid: true,
        host_ipc: true,
        ..sandbox_config()
    };
    check("sandbox_host", &sandbox(&on_host, "id", rootfs, "/skiff/pod/id", &host()));
}

#[test]
fn an_exec_is_as_its_container() {
    let spec = container(&config(), &shared(), &user(), "/skiff/pod/c", &host());
    let process = exec_process(&spec, &["ls".to_owned()], true);
    assert_eq!(process["args"], json!(["ls"]));
    assert_eq!(process["terminal"], json!(true));
    assert_eq!(process["env"], json!(["HOSTNAME=web-1", "PATH=/bin", "A=2", "TERM=xterm"]));
    assert_eq!(process["user"], spec["process"]["user"]);
    assert_eq!(exec_process(&spec, &[], false)["env"], spec["process"]["env"]);
}

#[test]
fn a_lower_score_than_allowed_is_raised_to_the_lowest() {
    let score = |wanted, lowest| {
        let resources = Resources { oom_score_adj: wanted, ..Resources::default() };
        oom_score(&resources, &Host { lowest_oom_score: lowest, ..Host::default() })
    };
    assert_eq!(score(-997, 0), 0);
    assert_eq!(score(-997, -1000), -997);
    assert_eq!(score(1500, 0), 1000);
}

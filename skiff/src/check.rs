//! `skiff check`: what the host lacks, and how to mend it. Reads, changes nothing.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use clap::Args;
use skiff_cli::out::print;

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The server's data folder
    #[arg(long, default_value = "/var/lib/skiff")]
    data_dir: PathBuf,
    /// Do not look at ports (the server is running)
    #[arg(long)]
    skip_ports: bool,
}

enum Finding {
    Good(String),
    /// Works, but not as well.
    Warning(String, String),
    Missing(String, String),
}

const PORTS: [(u16, &str); 4] = [
    (6443, "API; --https-listen-port"),
    (2379, "store; --store-listen-port"),
    (10250, "node; --kubelet-port"),
    (80, "ingress; --ingress-http-port"),
];

/// Programs, and the Debian packages that bring them.
const PROGRAMS: [(&str, &str); 5] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("iptables-restore", "iptables"),
    ("ip", "iproute2"),
    ("conntrack", "conntrack"),
];

/// The exit code is the number of things missing, at most 1.
pub fn run(args: &CheckArgs) -> anyhow::Result<i32> {
    let mut findings = vec![root()];
    findings.extend(PROGRAMS.iter().map(|(program, package)| installed(program, package)));
    findings.extend([cgroups(), overlay(), bridge(), forwarding(), disk(&args.data_dir)]);
    if !args.skip_ports {
        findings.extend(PORTS.iter().map(|(port, what)| free(*port, what)));
    }
    let mut missing = 0;
    for finding in &findings {
        match finding {
            Finding::Good(what) => print(format_args!("ok       {what}\n")),
            Finding::Warning(what, mend) => {
                print(format_args!("warning  {what}\n         {mend}\n"))
            }
            Finding::Missing(what, mend) => {
                print(format_args!("missing  {what}\n         {mend}\n"));
                missing += 1;
            }
        }
    }
    match missing {
        0 => print(format_args!("this host can run skiff\n")),
        1 => print(format_args!("1 thing is missing\n")),
        n => print(format_args!("{n} things are missing\n")),
    }
    Ok(i32::from(missing > 0))
}

fn root() -> Finding {
    if nix::unistd::geteuid().is_root() {
        Finding::Good("runs as root".into())
    } else {
        Finding::Missing(
            "not root".into(),
            "skiff server makes namespaces, mounts and rules: run it with sudo".into(),
        )
    }
}

fn installed(program: &str, package: &str) -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    dirs.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    match dirs.iter().map(|dir| dir.join(program)).find(|file| file.is_file()) {
        Some(file) => Finding::Good(format!("{program} ({})", file.display())),
        None => Finding::Missing(program.into(), format!("apt-get install {package}")),
    }
}

fn cgroups() -> Finding {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return Finding::Good("cgroups, version 2".into());
    }
    if Path::new("/sys/fs/cgroup/memory").is_dir() && Path::new("/sys/fs/cgroup/cpu").is_dir() {
        return Finding::Good("cgroups, version 1".into());
    }
    Finding::Missing("cgroups".into(), "mount them: mount -t cgroup2 none /sys/fs/cgroup".into())
}

fn overlay() -> Finding {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if known.lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay") {
        Finding::Good("overlayfs".into())
    } else {
        Finding::Warning(
            "no overlayfs".into(),
            "images are copied instead of layered; modprobe overlay brings it".into(),
        )
    }
}

fn bridge() -> Finding {
    match Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists() {
        true => Finding::Good("br_netfilter".into()),
        false => Finding::Warning(
            "no br_netfilter".into(),
            "a pod cannot reach itself through its service on the same bridge; modprobe br_netfilter".into(),
        ),
    }
}

fn forwarding() -> Finding {
    let on = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
    match on.trim() {
        "1" => Finding::Good("IPv4 forwarding".into()),
        _ => Finding::Good("IPv4 forwarding (off now, skiff server turns it on)".into()),
    }
}

fn disk(data_dir: &Path) -> Finding {
    const WANTED_MIB: u64 = 1024;
    let existing = data_dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let Ok(stat) = nix::sys::statvfs::statvfs(existing) else {
        return Finding::Warning(
            format!("free space of {} is not known", existing.display()),
            "statvfs failed".into(),
        );
    };
    let free = stat.blocks_available() * stat.fragment_size() / (1 << 20);
    if free >= WANTED_MIB {
        Finding::Good(format!("{free} MiB free for {}", data_dir.display()))
    } else {
        Finding::Warning(
            format!("only {free} MiB free for {}", data_dir.display()),
            "free some, or choose another --data-dir".into(),
        )
    }
}

fn free(port: u16, what: &str) -> Finding {
    match TcpListener::bind(("0.0.0.0", port)) {
        Ok(_) => Finding::Good(format!("port {port} is free ({what})")),
        Err(error) => Finding::Missing(
            format!("port {port} ({what}): {error}"),
            format!("stop who uses it (ss -ltnp sport = :{port}), or choose another"),
        ),
    }
}

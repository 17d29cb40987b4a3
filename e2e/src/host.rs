//! A host made of a network namespace, joined to the machine by a veth pair.

use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

static NEXT: AtomicU8 = AtomicU8::new(1);

/// Removed with everything in it when dropped.
pub struct Host {
    pub name: String,
    pub address: String,
    outside: String,
}

impl Host {
    /// Addresses are of 198.18.0.0/15, which RFC 2544 sets aside for tests of network devices.
    pub fn new(purpose: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let tag = std::process::id() % 250;
        let name = format!("skiff-e2e-{purpose}-{tag}-{number}");
        let (outside, inside) = (format!("se{tag}-{number}"), format!("si{tag}-{number}"));
        let host = Self { name, address: format!("198.18.{tag}.{}", number * 4 + 2), outside };
        let gateway = format!("198.18.{tag}.{}", number * 4 + 1);
        let name = &host.name;
        ip(&format!("netns add {name}"));
        ip(&format!("link add {} type veth peer name {inside} netns {name}", host.outside));
        ip(&format!("addr add {gateway}/30 dev {}", host.outside));
        ip(&format!("link set {} up", host.outside));
        ip(&format!("-n {name} addr add {}/30 dev {inside}", host.address));
        ip(&format!("-n {name} link set {inside} up"));
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} route add default via {gateway}"));
        host
    }

    /// A command in the host's network. Only the network differs: mounts are the machine's,
    /// since control groups would vanish with another /sys.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("--").arg(program);
        command.stdin(Stdio::null());
        command
    }

    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        self.command(program)
            .args(args)
            .output()
            .unwrap_or_else(|e| panic!("{program} does not start: {e}"))
    }

    /// What would tell that something was left: links and rules, as text.
    pub fn network_state(&self) -> String {
        let text = |args: &[&str]| {
            String::from_utf8_lossy(&self.run(args[0], &args[1..]).stdout).into_owned()
        };
        let links = text(&["ip", "-o", "link"]);
        let names: Vec<_> = links.lines().filter_map(|l| l.split(": ").nth(1)).collect();
        let rules: Vec<String> = text(&["iptables-save"])
            .lines()
            .filter(|l| {
                !l.starts_with('#') && !l.starts_with(':') && !l.starts_with('*') && *l != "COMMIT"
            })
            .map(str::to_owned)
            .collect();
        let chains: Vec<String> = text(&["iptables-save"])
            .lines()
            .filter(|l| l.starts_with(':') && l.contains("SKIFF"))
            .map(str::to_owned)
            .collect();
        format!(
            "links: {}\nchains: {}\nrules: {}",
            names.join(" "),
            chains.join("\n"),
            rules.join("\n")
        )
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let quiet = |args: &str| {
            let _ = Command::new("ip").args(args.split(' ')).stderr(Stdio::null()).status();
        };
        quiet(&format!("link del {}", self.outside));
        quiet(&format!("netns del {}", self.name));
    }
}

fn ip(args: &str) {
    let done = Command::new("ip")
        .args(args.split(' '))
        .output()
        .expect("ip (package iproute2) does not start");
    assert!(done.status.success(), "ip {args}: {}", String::from_utf8_lossy(&done.stderr));
}

//! The pod network for real, with Debian's bridge and portmap. Everything happens in a network namespace and
//! mounts of this test's own: the host's links and rules are never touched.

mod support;

use std::path::Path;
use std::process::Command;

use skiff_kubelet::network::{Cni, Config};
use skiff_kubelet::ports::{Network, NetworkError, PodRef, PortMapping};

/// A folder, and a process-wide network namespace: plugins are children of this process's threads.
struct Lab {
    dir: tempfile::TempDir,
    cni: Cni,
}

/// Runs the test in a process of its own, moved into a new network namespace before any thread is made.
fn in_own_network(test: &str) {
    if std::env::var_os("SKIFF_TEST_INSIDE").is_some() {
        return;
    }
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private"])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env("SKIFF_TEST_INSIDE", "1")
        .output()
        .expect("unshare of util-linux");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn inside() -> bool {
    std::env::var_os("SKIFF_TEST_INSIDE").is_some()
}

impl Lab {
    fn new(conflist: Option<&str>) -> Lab {
        assert!(
            Path::new("/usr/lib/cni/bridge").exists(),
            "this test needs containernetworking-plugins"
        );
        let dir = tempfile::tempdir().expect("a folder");
        let config = Config {
            conf_dir: dir.path().join("net.d"),
            bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
            built_in: None,
            netns_dir: dir.path().join("netns"),
            cache_dir: dir.path().join("cache"),
        };
        std::fs::create_dir_all(&config.conf_dir).expect("a folder");
        let lab = Lab { cni: Cni::new(config), dir };
        if let Some(conflist) = conflist {
            lab.configure(conflist);
        }
        lab
    }

    fn configure(&self, conflist: &str) {
        let text = conflist.replace("DATA", &self.dir.path().join("ipam").display().to_string());
        std::fs::write(self.dir.path().join("net.d/10-test.conflist"), text).expect("a file");
    }

    fn leases(&self) -> Vec<String> {
        let entries =
            std::fs::read_dir(self.dir.path().join("ipam/net")).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect()
    }
}

const BRIDGE: &str = r#"{"cniVersion":"1.0.0","name":"net","plugins":[
    {"type":"bridge","bridge":"cnitest0","isGateway":true,"ipMasq":false,
     "ipam":{"type":"host-local","dataDir":"DATA","ranges":[[{"subnet":"10.99.0.0/24"}]]}},
    {"type":"portmap","capabilities":{"portMappings":true}}]}"#;

fn pod(name: &str) -> PodRef {
    PodRef { namespace: "default".into(), name: name.into(), uid: format!("uid-{name}") }
}

fn in_namespace(path: &Path, command: &[&str]) -> String {
    let output = Command::new("nsenter")
        .arg(format!("--net={}", path.display()))
        .args(command)
        .output()
        .expect("nsenter");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn debians_bridge_gives_and_takes_addresses() {
    in_own_network("debians_bridge_gives_and_takes_addresses");
    if !inside() {
        return;
    }
    let lab = Lab::new(Some(BRIDGE));
    assert_eq!(lab.cni.not_ready(), None);
    let mapping = PortMapping {
        host_port: 8080,
        container_port: 80,
        protocol: "tcp".into(),
        host_ip: String::new(),
    };
    let ports = [mapping];
    let first = lab.cni.set_up(&pod("a"), "box-a", &ports).await.expect("a network");
    let second = lab.cni.set_up(&pod("b"), "box-b", &[]).await.expect("a network");
    assert_eq!(first.ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.99.0.2"]);
    assert_eq!(second.ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.99.0.3"]);
    let links = in_namespace(&first.namespace_path, &["ip", "-o", "addr"]);
    assert!(links.contains("127.0.0.1/8") && links.contains("10.99.0.2/24"), "{links}");
    let ping = in_namespace(&first.namespace_path, &["busybox", "ping", "-c1", "-W2", "10.99.0.3"]);
    assert!(ping.contains("1 packets received"), "{ping}");
    let rules = |text: &str| {
        Command::new("iptables-save")
            .output()
            .map(|o| String::from_utf8_lossy(&o.stdout).contains(text))
    };
    assert!(rules("10.99.0.2:80").expect("iptables-save"), "portmap got its port");
    let again = lab.cni.set_up(&pod("a"), "box-a", &[]).await.expect("the same network");
    assert_eq!(again, first);
    for (name, sandbox) in [("a", "box-a"), ("b", "box-b"), ("a", "box-a")] {
        lab.cni.tear_down(&pod(name), sandbox).await.expect("gone, also the second time");
    }
    assert!(!rules("10.99.0.2:80").expect("iptables-save"));
    assert_eq!(lab.leases(), Vec::<String>::new());
    assert!(!first.namespace_path.exists());
    assert_eq!(support::mounts_under(lab.dir.path()), Vec::<String>::new());
}

#[tokio::test]
async fn after_a_reboot_addresses_are_given_back() {
    in_own_network("after_a_reboot_addresses_are_given_back");
    if !inside() {
        return;
    }
    let lab = Lab::new(Some(BRIDGE));
    let network = lab.cni.set_up(&pod("a"), "box-a", &[]).await.expect("a network");
    // The namespace goes with the boot; caches and leases stay on disk.
    nix::mount::umount2(&network.namespace_path, nix::mount::MntFlags::MNT_DETACH)
        .expect("unmounted");
    std::fs::remove_dir_all(lab.dir.path().join("netns")).expect("removed");
    let again = lab.cni.set_up(&pod("a"), "box-a", &[]).await.expect("a network");
    assert_eq!(lab.leases().len(), 1, "the old address is free again");
    assert_eq!(again.ips.len(), 1);
    // The configuration may be gone at the end, too.
    std::fs::remove_file(lab.dir.path().join("net.d/10-test.conflist")).expect("removed");
    lab.cni.tear_down(&pod("a"), "box-a").await.expect("gone");
    assert_eq!(lab.leases(), Vec::<String>::new());
}

#[tokio::test]
async fn a_failing_chain_leaves_nothing() {
    in_own_network("a_failing_chain_leaves_nothing");
    if !inside() {
        return;
    }
    let lab = Lab::new(None);
    let why = lab.cni.not_ready().expect("no configuration yet");
    assert!(why.contains("no network config found in"), "{why}");
    assert!(matches!(
        lab.cni.set_up(&pod("a"), "box-a", &[]).await,
        Err(NetworkError::NotReady(_))
    ));
    lab.configure(&BRIDGE.replace("portmap", "nope"));
    assert!(lab.cni.not_ready().expect("a plugin is missing").contains("plugin nope is not in"));
    let error =
        lab.cni.set_up(&pod("a"), "box-a", &[]).await.expect_err("no such plugin").to_string();
    assert!(error.starts_with("no pod network: plugin nope is not in"), "{error}");
    assert!(!lab.dir.path().join("netns/box-a").exists());
    lab.configure(BRIDGE);
    assert_eq!(lab.cni.not_ready(), None, "noticed without a restart");
    lab.configure(&BRIDGE.replace("10.99.0.0/24", "10.99.0.0/30"));
    lab.cni.set_up(&pod("b"), "box-b", &[]).await.expect("the only address");
    let error =
        lab.cni.set_up(&pod("c"), "box-c", &[]).await.expect_err("no address left").to_string();
    assert!(
        error.starts_with("set up network of pod default/c: plugin type=\"bridge\" ADD failed: "),
        "{error}"
    );
    lab.cni.tear_down(&pod("b"), "box-b").await.expect("gone");
    let left =
        |folder: &str| std::fs::read_dir(lab.dir.path().join(folder)).expect("a folder").count();
    assert_eq!((left("netns"), left("cache/results"), lab.leases().len()), (0, 0, 0));
}

//! `skiff server` on a real etcd: the main path, etcd killed and started again under it, and
//! what a wrong endpoint or certificate is told.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use skiff_e2e::cluster::{Cluster, binary, folder, root};
use skiff_e2e::eventually;
use skiff_e2e::host::Host;
use skiff_kit::pki::{Ca, LEAF_LIFETIME, Request};

const SOON: Duration = Duration::from_secs(60);

/// Debian's etcd on a host, with certificates of an authority of its own.
struct Etcd {
    dir: tempfile::TempDir,
    url: String,
    netns: String,
    child: Option<Child>,
}

impl Etcd {
    fn new(host: &Host) -> Self {
        let dir = tempfile::Builder::new().prefix("skiff-e2e-etcd-").tempdir().expect("a folder");
        let ca = Ca::load_or_create(dir.path(), "ca").expect("a CA");
        let ip = host.address.parse().expect("an address");
        for name in ["server", "client"] {
            let request = Request {
                common_name: format!("etcd-{name}"),
                ips: vec![ip, [127, 0, 0, 1].into()],
                ..Default::default()
            };
            let identity = ca.issue(&request, LEAF_LIFETIME).expect("issues");
            std::fs::write(dir.path().join(format!("{name}.crt")), identity.cert_pem)
                .and_then(|()| {
                    std::fs::write(dir.path().join(format!("{name}.key")), identity.key_pem)
                })
                .expect("writes");
        }
        let url = format!("https://{}:2479", host.address);
        Self { dir, url, netns: host.name.clone(), child: None }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn run(&mut self) {
        let mut command = std::process::Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns)).arg("--").arg("etcd");
        let peers = "http://127.0.0.1:2480";
        command.args(["--data-dir", &self.path("data")]);
        command.args(["--listen-client-urls", &self.url, "--advertise-client-urls", &self.url]);
        command.args(["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]);
        command.args(["--initial-cluster", &format!("default={peers}")]);
        command.args(["--cert-file", &self.path("server.crt")]);
        command.args(["--key-file", &self.path("server.key"), "--client-cert-auth"]);
        command.args(["--trusted-ca-file", &self.path("ca.crt")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("etcd starts: it is in Debian's package etcd-server");
        self.child = Some(child);
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kills");
            child.wait().expect("ends");
        }
    }

    fn flags(&self) -> Vec<String> {
        let files = [("cafile", "ca.crt"), ("certfile", "client.crt"), ("keyfile", "client.key")];
        let mut flags = vec!["--datastore-endpoint".to_owned(), self.url.clone()];
        for (flag, file) in files {
            flags.extend([format!("--datastore-{flag}"), self.path(file)]);
        }
        flags
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

fn running(cluster: &Cluster, count: usize) {
    eventually(&format!("{count} pods run"), SOON, || {
        let done = cluster.try_skiff(&["-n", "demo", "get", "pods", "--no-headers"]);
        let pods = String::from_utf8_lossy(&done.stdout).into_owned();
        let good = pods.lines().count() == count && pods.lines().all(|l| l.contains("Running"));
        if good { Ok(()) } else { Err(pods) }
    });
}

#[test]
fn a_cluster_on_a_real_etcd_outlives_its_end() {
    let host = Host::new("etcd");
    let mut etcd = Etcd::new(&host);
    etcd.run();
    let mut cluster = Cluster::start_on(host, folder(), &etcd.flags());
    for archive in skiff_e2e::images::build(&cluster.path("images")) {
        cluster.image(&["import", &archive.display().to_string()]);
    }
    assert!(!cluster.path("data").join("store").exists(), "no embedded store was made");
    let demo = root().join("deploy/demo/demo.yaml").display().to_string();
    cluster.skiff(&["apply", "-f", &demo]);
    running(&cluster, 3);
    cluster.skiff(&["-n", "demo", "scale", "deployment/web", "--replicas", "4"]);
    running(&cluster, 4);

    etcd.kill();
    let words = cluster.fails(&["-n", "demo", "scale", "deployment/web", "--replicas", "2"]);
    assert!(words.contains("cannot be reached") && words.contains(&etcd.url), "{words}");
    let words = cluster.fails(&["-n", "demo", "get", "pods"]);
    assert!(words.contains("cannot be reached"), "{words}");
    etcd.run();
    eventually("the API recovers by itself", SOON, || {
        let scale = ["-n", "demo", "scale", "deployment/web", "--replicas", "2"];
        let done = cluster.try_skiff(&scale);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        if done.status.success() { Ok(()) } else { Err(said) }
    });
    running(&cluster, 2);

    // The objects are in etcd alone: another server finds them there.
    cluster.stop_server();
    cluster.start_server();
    cluster.wait_ready();
    running(&cluster, 2);
    let done = cluster.clean_up();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}

/// What a server says that must not start.
fn refused(host: &Host, dir: &tempfile::TempDir, flags: &[String]) -> String {
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    let mut command = host.command(binary().to_str().expect("UTF-8"));
    command.args(["server", "--disable-agent", "--node-ip", &host.address]);
    command.arg("--data-dir").arg(path("data")).arg("--run-dir").arg(path("run"));
    command.arg("--log-dir").arg(path("pods")).arg("--write-kubeconfig").arg(path("kubeconfig"));
    let done = command.args(flags).output().expect("skiff starts");
    assert!(!done.status.success(), "it should not start with {flags:?}");
    String::from_utf8_lossy(&done.stderr).into_owned()
}

#[test]
fn a_wrong_datastore_is_one_clear_error() {
    let host = Host::new("etcd-bad");
    let mut etcd = Etcd::new(&host);
    let dir = tempfile::tempdir().expect("a folder");
    let said = refused(&host, &dir, &etcd.flags());
    assert!(
        said.contains(&format!("--datastore-endpoint: no endpoint can be used\n  {}", etcd.url)),
        "{said}"
    );
    assert!(said.contains("refused"), "{said}");

    etcd.run();
    let stranger = Ca::load_or_create(dir.path(), "stranger").expect("a CA");
    let identity = stranger.issue(&Request::default(), LEAF_LIFETIME).expect("issues");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("writes");
        path.display().to_string()
    };
    let (cert, key) = (file("s.crt", &identity.cert_pem), file("s.key", &identity.key_pem));
    let with = |at: &[(usize, &str)]| {
        let mut flags = etcd.flags();
        at.iter().for_each(|(at, value)| flags[*at] = (*value).to_owned());
        flags
    };
    let stranger = dir.path().join("stranger.crt").display().to_string();
    // Until it listens, it refuses connections; then it is the certificate.
    eventually("etcd's certificate is not trusted", SOON, || {
        let said = refused(&host, &dir, &with(&[(3, &stranger)]));
        if said.contains("is not of --datastore-cafile") { Ok(()) } else { Err(said) }
    });
    let said = refused(&host, &dir, &with(&[(5, &cert), (7, &key)]));
    assert!(said.contains("--datastore-certfile") && said.contains(&etcd.url), "{said}");
    let said = refused(&host, &dir, &with(&[(3, "/nowhere/ca.crt")]));
    assert!(said.contains("--datastore-cafile /nowhere/ca.crt"), "{said}");
}

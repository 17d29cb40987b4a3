//! One `skiff server` on a host, and the client beside it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::Host;
use crate::{eventually, images};

const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(30);

/// The project's root folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The binary under test: `$SKIFF_BIN`, or the one built beside this test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SKIFF_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("this test's own path");
    let dir = test.ancestors().nth(2).expect("target/PROFILE");
    let path = dir.join("skiff");
    assert!(
        path.is_file(),
        "{} is not there: cargo build --workspace --all-targets",
        path.display()
    );
    path
}

/// Where a cluster's files go.
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("skiff-e2e-").tempdir().expect("a folder")
}

/// A cluster of one node. Dropping it stops the server and cleans the host.
pub struct Cluster {
    pub host: Host,
    pub dir: tempfile::TempDir,
    server: Option<Child>,
    extra: Vec<String>,
    /// How often the host was booted again, and the file that says under which id.
    pub(crate) boot: Option<(u32, PathBuf)>,
}

impl Cluster {
    /// Starts a server and waits until its node is Ready; without an agent, until its API answers.
    pub fn start(purpose: &str) -> Self {
        Self::start_with(purpose, &[])
    }

    pub fn start_with(purpose: &str, extra: &[&str]) -> Self {
        Self::start_in(purpose, extra, |_| {})
    }

    /// As `start_with`; `prepare` gets the folder that everything will be in.
    pub fn start_in(purpose: &str, extra: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let dir = folder();
        prepare(dir.path());
        let extra: Vec<_> = extra.iter().map(|s| (*s).to_owned()).collect();
        Self::start_on(Host::new(purpose), dir, &extra)
    }

    /// On a host and in a folder that have something already.
    pub fn start_on(host: Host, dir: tempfile::TempDir, extra: &[String]) -> Self {
        let extra = extra.to_vec();
        let mut cluster = Self { host, dir, server: None, extra, boot: None };
        cluster.start_server();
        cluster.wait_ready();
        cluster
    }

    /// A cluster with the demo's images imported.
    pub fn with_images(purpose: &str) -> Self {
        let cluster = Self::start(purpose);
        cluster.import_images();
        cluster
    }

    pub fn import_images(&self) {
        for archive in images::build(&self.path("images")) {
            self.image(&["import", &archive.display().to_string()]);
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("server.log")).unwrap_or_default()
    }

    pub fn server_flags(&self) -> Vec<String> {
        let path = |name: &str| self.path(name).display().to_string();
        let mut flags: Vec<String> = [
            ("--data-dir", path("data")),
            ("--run-dir", path("run")),
            ("--log-dir", path("pods")),
            ("--write-kubeconfig", path("kubeconfig")),
            ("--node-name", "node-1".to_owned()),
            ("--node-ip", self.host.address.clone()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        flags.extend(self.extra.iter().cloned());
        flags
    }

    pub fn start_server(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("server.log"))
            .expect("a log file");
        let binary = binary().display().to_string();
        let mut command = match &self.boot {
            None => self.host.command(&binary),
            // Another boot id, for this server and what it starts alone.
            Some((_, file)) => {
                let mut command = self.host.command("unshare");
                let script = "mount --make-private /proc && mount --bind \"$1\" /proc/sys/kernel/random/boot_id && shift && exec \"$@\"";
                command.args([
                    "--mount",
                    "--propagation",
                    "unchanged",
                    "--",
                    "sh",
                    "-c",
                    script,
                    "sh",
                ]);
                command.arg(file).arg(&binary);
                command
            }
        };
        command.arg("server").args(self.server_flags());
        command.stdout(Stdio::null()).stderr(log);
        self.server = Some(command.spawn().expect("the server starts"));
    }

    pub fn server_pid(&self) -> u32 {
        self.server.as_ref().expect("a running server").id()
    }

    pub fn wait_ready(&mut self) {
        let begin = std::time::Instant::now();
        loop {
            let ended = self.server.as_mut().and_then(|s| s.try_wait().ok().flatten());
            if let Some(status) = ended {
                panic!("the server ended ({status}):\n{}", self.log());
            }
            let (what, sign) = match self.extra.iter().any(|flag| flag == "--disable-agent") {
                true => ("serviceaccounts", "default "),
                false => ("nodes", " Ready "),
            };
            let found = self.try_skiff(&["get", what, "--no-headers"]);
            if String::from_utf8_lossy(&found.stdout).contains(sign) {
                return;
            }
            assert!(
                begin.elapsed() < START,
                "{what} not ready: {}\n{}",
                String::from_utf8_lossy(&found.stderr),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// As a power loss would end it.
    pub fn kill_server(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("kills");
            server.wait().expect("ends");
        }
    }

    /// As an administrator would stop it.
    pub fn stop_server(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let _ = kill(Pid::from_raw(server.id() as i32), Signal::SIGTERM);
        let begin = std::time::Instant::now();
        while begin.elapsed() < STOP {
            if server.try_wait().ok().flatten().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = server.kill();
        let _ = server.wait();
        panic!("the server did not stop within {STOP:?}:\n{}", self.log());
    }

    /// Stops the server and removes what it left; returns what the command said.
    pub fn clean_up(&mut self) -> Output {
        self.stop_server();
        let mut command = self.host.command(binary().to_str().expect("UTF-8"));
        command.arg("cleanup").arg("--data").args(self.server_flags());
        command.output().expect("cleanup starts")
    }

    pub fn command(&self) -> Command {
        let mut command = self.host.command(binary().to_str().expect("UTF-8"));
        command.env("KUBECONFIG", self.path("kubeconfig"));
        command
    }

    pub fn try_skiff(&self, args: &[&str]) -> Output {
        self.command().args(args).output().expect("skiff starts")
    }

    /// The client; its output, or a panic with what it said.
    pub fn skiff(&self, args: &[&str]) -> String {
        let done = self.try_skiff(args);
        assert!(
            done.status.success(),
            "skiff {}: {}{}",
            args.join(" "),
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// What a command that must fail says on stderr.
    pub fn fails(&self, args: &[&str]) -> String {
        let done = self.try_skiff(args);
        assert!(!done.status.success(), "skiff {} should fail", args.join(" "));
        String::from_utf8_lossy(&done.stderr).into_owned()
    }

    pub fn apply(&self, manifest: &str) -> String {
        let path = self.path("manifest.yaml");
        std::fs::write(&path, manifest).expect("writes");
        self.skiff(&["apply", "-f", &path.display().to_string()])
    }

    pub fn apply_fails(&self, manifest: &str) -> String {
        let path = self.path("manifest.yaml");
        std::fs::write(&path, manifest).expect("writes");
        self.fails(&["apply", "-f", &path.display().to_string()])
    }

    pub fn image(&self, args: &[&str]) -> String {
        let socket = self.path("run").join("containerd/containerd.sock").display().to_string();
        let (data, run) =
            (self.path("data").display().to_string(), self.path("run").display().to_string());
        let mut all =
            vec!["image", "--containerd-address", &socket, "--data-dir", &data, "--run-dir", &run];
        all.extend(args);
        self.skiff(&all)
    }

    /// Follows one field until it has a value.
    pub fn wait_field(&self, object: &[&str], path: &str, wanted: &str, limit: Duration) {
        let template = format!("jsonpath={path}");
        let mut args = vec!["get"];
        args.extend(object);
        args.extend(["-o", &template]);
        eventually(&format!("{} {path} = {wanted}", object.join(" ")), limit, || {
            let found = self.try_skiff(&args);
            let text = String::from_utf8_lossy(&found.stdout).into_owned();
            if text == wanted { Ok(()) } else { Err(format!("it is {text:?}")) }
        });
    }

    /// A request from the host's own network.
    pub fn http(&self, url: &str, host: Option<&str>) -> Result<String, String> {
        // busybox's wget -T is broken in static builds: its own timeout command ends it.
        let mut args: Vec<String> =
            ["timeout", "5", "busybox", "wget", "-qO-"].map(str::to_owned).to_vec();
        if let Some(host) = host {
            args.extend(["--header".to_owned(), format!("Host: {host}")]);
        }
        args.push(url.to_owned());
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let done = self.host.run("busybox", &args);
        match done.status.success() {
            true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            eprintln!("--- the server's last words");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        self.kill_server();
        if self.path("data").exists() {
            let done = self.clean_up();
            if !done.status.success() {
                eprintln!("cleanup: {}", String::from_utf8_lossy(&done.stdout));
            }
        }
    }
}

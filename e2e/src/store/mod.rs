//! Members of a store as processes of their own: the real binary, run as `skiff store`.

pub mod lan;
pub mod load;

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::binary;
use crate::eventually;

pub const PATIENCE: Duration = Duration::from_secs(60);

/// A member; its process ends with it.
pub struct Member {
    pub name: String,
    pub client_url: String,
    pub peer_url: String,
    /// The network namespace it runs in, if not this process's own.
    pub namespace: Option<String>,
    args: Vec<String>,
    dir: std::path::PathBuf,
    process: Option<Child>,
}

impl Member {
    fn new(dir: &Path, name: &str, client_url: String, peer_url: String) -> Self {
        Self {
            name: name.to_owned(),
            client_url,
            peer_url,
            namespace: None,
            args: Vec::new(),
            dir: dir.to_owned(),
            process: None,
        }
    }

    pub fn start(&mut self) {
        let mut command = match &self.namespace {
            None => Command::new(binary()),
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{namespace}")).arg("--").arg(binary());
                command
            }
        };
        let log = std::fs::File::options().create(true).append(true).open(self.log_path());
        let log = log.expect("the member's log");
        command.arg("store").args(["--name", &self.name]).arg("--data-dir").arg(self.data_dir());
        command.args(["--listen-client-urls", &self.client_url]);
        command.args(["--listen-peer-urls", &self.peer_url]).args(&self.args);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log")).stderr(log);
        // Should the test be killed, its members do not outlive it.
        unsafe {
            command.pre_exec(|| {
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from)
            });
        }
        self.process = Some(command.spawn().expect("skiff store starts"));
    }

    pub fn data_dir(&self) -> std::path::PathBuf {
        self.dir.join(&self.name)
    }

    fn log_path(&self) -> std::path::PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        kill(Pid::from_raw(process.id() as i32), signal).expect("signal a member");
    }

    /// kill -9, while others use it; [`Member::kill`] then waits for its end.
    pub fn end_now(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.process.take().expect("it runs").wait();
    }

    /// Ends it as systemd does.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let _ = self.process.take().expect("it runs").wait();
    }

    /// Waits until it ends by itself.
    pub fn wait_end(&mut self) -> std::process::ExitStatus {
        let mut process = self.process.take().expect("it runs");
        eventually("the member ends by itself", PATIENCE, || {
            process.try_wait().expect("wait").ok_or_else(|| "it runs".to_owned())
        })
    }

    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// `etcdctl` against this member.
    pub fn etcdctl(&self, args: &[&str]) -> Output {
        let mut command = self.etcdctl_command(args);
        command.stdin(Stdio::null());
        command.output().expect("run etcdctl: it is in Debian's package etcd-client")
    }

    pub fn etcdctl_command(&self, args: &[&str]) -> Command {
        let mut command = match &self.namespace {
            None => Command::new("etcdctl"),
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{namespace}")).arg("--").arg("etcdctl");
                command
            }
        };
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.client_url]).args(args);
        command
    }

    /// What it prints; it must succeed.
    pub fn ctl(&self, args: &[&str]) -> String {
        self.try_ctl(args)
            .unwrap_or_else(|error| panic!("{}: etcdctl {args:?}: {error}", self.name))
    }

    /// What it complains about; it must fail.
    pub fn ctl_fails(&self, args: &[&str]) -> String {
        match self.try_ctl(args) {
            Ok(out) => panic!("{}: etcdctl {args:?} was to fail: {out}", self.name),
            Err(error) => error,
        }
    }

    pub fn try_ctl(&self, args: &[&str]) -> Result<String, String> {
        let output = self.etcdctl(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        match output.status.success() {
            true if out.is_empty() => Ok(err),
            true => Ok(out),
            false => Err(format!("{out}{err}")),
        }
    }

    /// What a command prints that goes on until it is ended.
    pub fn etcdctl_for(&self, time: Duration, args: &[&str]) -> String {
        let seconds = time.as_secs().to_string();
        let mut command = Command::new("timeout");
        command.arg(seconds).arg("etcdctl").env("ETCDCTL_API", "3");
        command.args(["--endpoints", &self.client_url]).args(args).stdin(Stdio::null());
        let output = command.output().expect("run etcdctl: it is in Debian's package etcd-client");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let mut args = args.to_vec();
        args.extend(["-w", "json"]);
        let out = self.ctl(&args);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}"))
    }

    /// The leader's id as this member sees it, and its own.
    pub fn status(&self) -> Result<(u64, u64), String> {
        let out = self.try_ctl(&["endpoint", "status", "-w", "json"])?;
        let status: serde_json::Value = serde_json::from_str(&out).map_err(|e| e.to_string())?;
        let status = &status[0]["Status"];
        let leader = status["leader"].as_u64().unwrap_or(0);
        Ok((leader, status["header"]["member_id"].as_u64().ok_or("no id")?))
    }

    pub fn wait_healthy(&self) {
        eventually(&format!("member {} is healthy", self.name), PATIENCE, || {
            self.try_ctl(&["endpoint", "health"])
                .map_err(|error| format!("{error}\n{}", self.log()))
        });
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.process.is_some() {
            // One that is stopped dies too.
            self.kill();
        }
    }
}

/// A free port of loopback. Another process could take it before it is used, but nobody else
/// asks for ports of this range by number.
pub fn free_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}", listener.local_addr().expect("its address"))
}

/// Members that started together.
pub struct Members {
    pub dir: tempfile::TempDir,
    pub list: Vec<Member>,
}

impl Members {
    /// A new cluster on loopback; returns when all are healthy.
    pub fn start(count: usize) -> Self {
        Self::start_with(count, &[])
    }

    pub fn start_with(count: usize, extra: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("skiff-store-").tempdir().expect("a folder");
        let member = |at: usize| {
            let name = format!("m{}", at + 1);
            Member::new(dir.path(), &name, free_url(), free_url())
        };
        let mut list: Vec<_> = (0..count).map(member).collect();
        let cluster = initial_cluster(&list);
        for member in &mut list {
            member.args = vec!["--initial-cluster".into(), cluster.clone()];
            member.args.extend(extra.iter().map(|arg| (*arg).to_owned()));
            member.start();
        }
        let members = Self { dir, list };
        for member in &members.list {
            member.wait_healthy();
        }
        members
    }

    /// One that is to join; not started.
    pub fn joining(&self, name: &str) -> Member {
        let mut member = Member::new(self.dir.path(), name, free_url(), free_url());
        let others = initial_cluster(&self.list);
        let cluster = format!("{others},{name}={}", member.peer_url);
        member.args = ["--initial-cluster", &cluster, "--initial-cluster-state", "existing"]
            .map(str::to_owned)
            .to_vec();
        member
    }

    /// The place of the leader, as a majority sees it.
    pub fn leader(&self) -> usize {
        eventually("the members agree on a leader", PATIENCE, || self.try_leader())
    }

    pub fn try_leader(&self) -> Result<usize, String> {
        let running = self.list.iter().enumerate().filter(|(_, member)| member.is_running());
        let seen: Vec<_> =
            running.filter_map(|(at, member)| Some((at, member.status().ok()?))).collect();
        for (at, (_, id)) in &seen {
            let votes = seen.iter().filter(|(_, (leader, _))| leader == id).count();
            if votes > self.list.len() / 2 {
                return Ok(*at);
            }
        }
        Err(format!("{seen:?}"))
    }

    pub fn endpoints(&self) -> String {
        self.list.iter().map(|member| member.client_url.as_str()).collect::<Vec<_>>().join(",")
    }
}

pub fn initial_cluster(members: &[Member]) -> String {
    let pair = |member: &Member| format!("{}={}", member.name, member.peer_url);
    members.iter().map(pair).collect::<Vec<_>>().join(",")
}

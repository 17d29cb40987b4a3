//! A private containerd in a temporary folder, a busybox image made on the spot, and the cleaning up after
//! them, whatever happens in between. Needs root, containerd, runc and busybox-static.
#![allow(dead_code)]

pub mod archive;
pub mod registry;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skiff_kubelet::containerd_supervisor as supervisor;
use skiff_kubelet::ports::{
    ContainerConfig, ContainerState, ExecIo, Image, Phase, PodRef, Resources, Runtime,
    SandboxConfig, Security,
};
use skiff_kubelet::runtime::{Config, Containerd};
use tokio::sync::mpsc;

static NUMBER: AtomicU32 = AtomicU32::new(0);

pub struct Host {
    /// Short, because socket paths are limited to 108 bytes.
    pub dir: PathBuf,
    pub name: String,
    pub supervisor: Option<supervisor::Supervisor>,
    pub runtime: Containerd,
    pub image: Image,
}

impl Host {
    pub async fn start() -> Host {
        Host::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Host {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root");
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        for program in ["/bin/busybox", "/usr/sbin/runc", "/usr/bin/containerd"] {
            assert!(
                Path::new(program).exists(),
                "this test needs {program}: apt-get install busybox-static containerd runc"
            );
        }
        let name = format!("skt{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = PathBuf::from("/tmp").join(&name);
        std::fs::create_dir_all(&dir).expect("a temporary folder");
        // From here on everything is cleaned up, also when a step fails.
        let cleaner = Cleaner { dir: dir.clone(), name: name.clone() };
        let supervisor = supervisor::Supervisor::start(Host::supervisor_config(&dir))
            .await
            .expect("containerd starts");
        let mut config = Host::config(&dir);
        change(&mut config);
        let runtime = Containerd::connect(config).await.expect("a connection");
        let tar = dir.join("busybox.tar");
        archive::write_oci(&tar, "docker.io/library/busybox:test", &archive::busybox());
        let image = runtime.import(&tar).await.expect("the image comes in").remove(0);
        std::mem::forget(cleaner);
        Host { dir, name, supervisor: Some(supervisor), runtime, image }
    }

    pub fn supervisor_config(dir: &Path) -> supervisor::Config {
        supervisor::Config::new(dir.join("c"), dir.join("s"))
    }

    pub fn config(dir: &Path) -> Config {
        Config {
            state_dir: dir.join("run"),
            data_dir: dir.join("data"),
            ..Config::new(dir.join("s/containerd.sock"))
        }
    }

    pub fn pod(&self, name: &str) -> PodRef {
        PodRef {
            namespace: "default".into(),
            name: name.into(),
            uid: format!("{}-{name}", self.name),
        }
    }

    pub fn sandbox(&self, name: &str) -> SandboxConfig {
        SandboxConfig {
            pod: self.pod(name),
            attempt: 0,
            hostname: name.into(),
            network_namespace: None,
            host_pid: false,
            host_ipc: false,
            share_process_namespace: false,
            cgroup_parent: format!("/{}/pod{name}", self.name),
            sysctls: Default::default(),
        }
    }

    pub fn container(&self, pod: &str, name: &str, command: &[&str]) -> ContainerConfig {
        ContainerConfig {
            pod: self.pod(pod),
            name: name.into(),
            attempt: 0,
            image: self.image.clone(),
            args: command.iter().map(|word| (*word).to_owned()).collect(),
            env: vec!["PATH=/bin".into()],
            working_dir: String::new(),
            mounts: Vec::new(),
            resources: Resources::default(),
            security: Security::default(),
            tty: false,
            stdin: false,
            log_path: self.dir.join("logs").join(pod).join(name).join("0.log"),
            annotations: Default::default(),
        }
    }

    /// A sandbox with one running container; their ids.
    pub async fn run(&self, pod: &str, command: &[&str]) -> (String, String) {
        self.run_with(pod, command, |_, _| {}).await
    }

    pub async fn run_with(
        &self,
        pod: &str,
        command: &[&str],
        change: impl FnOnce(&mut SandboxConfig, &mut ContainerConfig),
    ) -> (String, String) {
        let (mut sandbox, mut container) = (self.sandbox(pod), self.container(pod, "app", command));
        change(&mut sandbox, &mut container);
        let sandbox_id = self.runtime.run_sandbox(&sandbox).await.expect("a sandbox");
        let id = self.runtime.create_container(&sandbox_id, &container).await.expect("a container");
        self.runtime.start_container(&id).await.expect("the container starts");
        (sandbox_id, id)
    }

    pub async fn container_state(&self, pod: &str, id: &str) -> ContainerState {
        let (_, containers) = self.runtime.pod_state(&self.pod(pod).uid).await.expect("a state");
        containers.into_iter().find(|one| one.id == id).expect("the container is there")
    }

    /// By events, not by looking again and again.
    pub async fn wait_for(&self, pod: &str, id: &str, phase: Phase) -> ContainerState {
        let mut events = self.runtime.events();
        let wait = async {
            loop {
                let state = self.container_state(pod, id).await;
                if state.phase == phase {
                    return state;
                }
                events.recv().await.expect("events go on");
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .expect("the container changes in time")
    }

    /// Output (both streams) and exit code.
    pub async fn exec(&self, id: &str, command: &[&str], input: Option<&str>) -> (String, i32) {
        let (stdout, mut out) = mpsc::channel(16);
        let (stderr, mut err) = mpsc::channel(16);
        let stdin = input.map(|text| {
            let (sender, receiver) = mpsc::channel(1);
            sender.try_send(text.to_owned().into()).expect("room");
            receiver
        });
        let io = ExecIo { stdin, stdout, stderr, resize: None, tty: false };
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        let gather = async {
            let mut text = Vec::new();
            loop {
                tokio::select! {
                    Some(bytes) = out.recv() => text.extend_from_slice(&bytes),
                    Some(bytes) = err.recv() => text.extend_from_slice(&bytes),
                    else => return text,
                }
            }
        };
        let (code, text) = tokio::join!(self.runtime.exec(id, &command, io), gather);
        (String::from_utf8_lossy(&text).into_owned(), code.expect("the command runs"))
    }

    /// Lines of the log without time: `stdout F hello`.
    pub fn log(&self, pod: &str, name: &str) -> Vec<String> {
        let text =
            std::fs::read_to_string(self.dir.join("logs").join(pod).join(name).join("0.log"));
        let lines = text.unwrap_or_default();
        lines
            .lines()
            .map(|line| line.split_once(' ').map_or("", |(_, rest)| rest).to_owned())
            .collect()
    }

    /// Ends every process of ours, and takes away mounts and what lies in /run.
    pub fn lose_power(&self) {
        end_processes(&self.dir, &self.name);
        unmount_all(&self.dir);
        for folder in ["s", "run"] {
            std::fs::remove_dir_all(self.dir.join(folder)).expect("removed");
        }
        remove_cgroups(&self.name);
    }

    pub async fn connect_again(&mut self) {
        self.runtime = Containerd::connect(Host::config(&self.dir)).await.expect("a connection");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.supervisor.take();
        drop(Cleaner { dir: self.dir.clone(), name: self.name.clone() });
    }
}

struct Cleaner {
    dir: PathBuf,
    name: String,
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        end_processes(&self.dir, &self.name);
        unmount_all(&self.dir);
        remove_cgroups(&self.name);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// containerd first, or it would report and restart; then shims and what runs in our cgroups.
fn end_processes(dir: &Path, name: &str) {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let ours: Vec<i32> =
        processes_of(dir).iter().map(|(pid, _)| *pid).filter(|pid| *pid != own).collect();
    // A killed shim does not take its socket away.
    let sockets: Vec<String> = ours.iter().flat_map(|pid| shim_sockets(*pid)).collect();
    ours.into_iter().for_each(end);
    for dir in cgroup_dirs(name) {
        let pids = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        pids.lines().filter_map(|pid| pid.parse().ok()).for_each(end);
    }
    for socket in sockets {
        let _ = std::fs::remove_file(socket);
    }
}

/// Where a shim listens: in a folder that all containerds of a machine share.
fn shim_sockets(pid: i32) -> Vec<String> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let inodes: Vec<String> = links
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let listed = table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(6);
        Some((fields.next()?, fields.next()?))
    });
    listed
        .filter(|(inode, path)| {
            path.starts_with("/run/containerd/s/") && inodes.iter().any(|one| one == inode)
        })
        .map(|(_, path)| path.to_owned())
        .collect()
}

fn unmount_all(dir: &Path) {
    for mount in mounts_under(dir) {
        let _ = nix::mount::umount2(mount.as_str(), nix::mount::MntFlags::MNT_DETACH);
    }
}

fn remove_cgroups(name: &str) {
    for dir in cgroup_dirs(name) {
        let _ = std::fs::remove_dir(dir);
    }
}

/// An empty network, mounted at this path.
pub fn make_network_namespace(path: &Path) -> PathBuf {
    std::fs::File::create(path).expect("a file");
    let mount_point = path.to_path_buf();
    let thread = std::thread::spawn(move || {
        use nix::mount::MsFlags;
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
        let own = format!("/proc/self/task/{}/ns/net", nix::unistd::gettid());
        nix::mount::mount(
            Some(own.as_str()),
            &mount_point,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .expect("mounted");
    });
    thread.join().expect("made");
    path.to_path_buf()
}

/// Processes of ours, by the private folder in their command line.
pub fn processes_of(dir: &Path) -> Vec<(i32, String)> {
    let needle = format!("{}/", dir.display());
    processes().into_iter().filter(|(_, command)| command.contains(&needle)).collect()
}

fn processes() -> Vec<(i32, String)> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let command = std::fs::read(entry.path().join("cmdline")).ok()?;
            Some((pid, String::from_utf8_lossy(&command).replace('\0', " ")))
        })
        .collect()
}

fn end(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    for _ in 0..200 {
        if !Path::new(&format!("/proc/{pid}")).exists()
            || nix::sys::wait::waitpid(
                Pid::from_raw(pid),
                Some(nix::sys::wait::WaitPidFlag::WNOHANG),
            )
            .is_ok_and(|s| s.pid().is_some())
        {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn mounts_under(dir: &Path) -> Vec<String> {
    let needle = format!("{}/", dir.display());
    let table = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let mut found: Vec<String> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|point| point.starts_with(&needle))
        .map(str::to_owned)
        .collect();
    found.reverse();
    found
}

/// Deepest first.
pub fn cgroup_dirs(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let roots = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    for root in roots.map(|entry| entry.path()).chain([PathBuf::from("/sys/fs/cgroup")]) {
        collect(&root.join(name), &mut found);
    }
    found
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
        }
    }
    found.push(dir.to_path_buf());
}

//! Sandboxes: the pause program holding a pod's namespaces, and the pod's shared memory.

use std::path::Path;
use std::time::SystemTime;

use containerd_client::types::v1::Status as TaskStatus;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tonic::Status;

use super::connection::already_exists;
use super::record::{self, ExitRecord, PAUSE_IMAGE, Record};
use super::{Core, Pause, cgroup, pins, spec, task};
use crate::ports::{RuntimeError, SandboxConfig};
use crate::turns::Rank;

/// As the CRI gives it: `/dev/shm` of 64 MiB for the whole pod.
const SHM_OPTIONS: &str = "mode=1777,size=65536k";

impl Core {
    pub(super) async fn run_sandbox(&self, config: &SandboxConfig) -> Result<String, RuntimeError> {
        let id = record::sandbox_id(&config.pod, config.attempt);
        let operation =
            || format!("run sandbox of pod {}/{}", config.pod.namespace, config.pod.name);
        let failed = |status: Status| self.connection.failed(operation(), &status);
        match self.begin_sandbox(config, &id).await {
            Ok(()) => return Ok(id),
            Err(status) if already_exists(&status) => {}
            Err(status) => {
                self.undo(&id).await;
                return Err(failed(status));
            }
        }
        let task = self.get_task(&id).await.map_err(failed)?;
        let running = task.is_some_and(|task| task.status() == TaskStatus::Running);
        if running || pins::are_there(&self.container_dir(&id)) {
            return Ok(id);
        }
        // Left behind half-made, or ended: make it anew.
        self.remove_sandbox(&id).await?;
        match self.begin_sandbox(config, &id).await {
            Ok(()) => Ok(id),
            Err(status) => {
                self.undo(&id).await;
                Err(failed(status))
            }
        }
    }

    async fn begin_sandbox(&self, config: &SandboxConfig, id: &str) -> Result<(), Status> {
        let record = Record::sandbox(config, &self.boot_id);
        let cgroup = format!("{}/{id}", config.cgroup_parent.trim_end_matches('/'));
        let spec = spec::sandbox(config, id, &self.programs.pause_rootfs, &cgroup, &self.host);
        self.create_record(id, PAUSE_IMAGE, &record, &spec, false).await?;
        let dir = self.container_dir(id);
        if !config.host_ipc {
            mount_shm(&dir).map_err(|why| Status::internal(format!("mount /dev/shm: {why}")))?;
        }
        if self.needs_pause(config) {
            return self.run_task(self.task_request(id, Vec::new()), Rank::Second).await;
        }
        task::make_private_dir(&dir)
            .map_err(|why| Status::internal(format!("make {}: {why}", dir.display())))?;
        let sysctls = config.sysctls.clone().into_iter().collect();
        let network = config.network_namespace.clone().unwrap_or_default();
        let pinned = pins::make(dir, config.hostname.clone(), sysctls, network).await;
        pinned.map_err(|why| Status::internal(format!("make the pod's namespaces: {why}")))
    }

    /// Pods of the host's own network keep the host's name, those of its processes have no process 1: they
    /// are few, and get the program that fits all.
    fn needs_pause(&self, config: &SandboxConfig) -> bool {
        let plain = config.network_namespace.is_some() && !config.host_ipc && !config.host_pid;
        self.config.pause == Pause::Always || config.share_process_namespace || !plain
    }

    /// After a failure: best effort, the next attempt removes what stays.
    async fn undo(&self, id: &str) {
        if let Err(why) = self.remove_sandbox(id).await {
            tracing::warn!(sandbox = id, %why, "half-made sandbox stays for now");
        }
    }

    pub(super) async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let failed = |status: Status| self.connection.failed(format!("stop sandbox {id}"), &status);
        let containers = self.containers_of(id).await.map_err(failed)?;
        let kills = containers.iter().map(String::as_str).chain([id]).map(|one| async move {
            let result = self.kill_and_wait(one).await;
            self.settled(one, result).await?;
            self.reap(one).await
        });
        for result in futures_util::future::join_all(kills).await {
            result.map_err(failed)?;
        }
        let dir = self.container_dir(id);
        if pins::are_there(&dir) {
            pins::remove(&dir).map_err(|why| Core::failed(format!("stop sandbox {id}"), why))?;
            let now = record::nanos(SystemTime::now());
            let exit = ExitRecord { code: 0, started: None, finished: now, oom: false };
            self.write_exit(id, &exit).await.map_err(failed)?;
        }
        Ok(())
    }

    pub(super) async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let failed =
            |status: Status| self.connection.failed(format!("remove sandbox {id}"), &status);
        let containers = self.containers_of(id).await.map_err(failed)?;
        let removals = containers.iter().map(|one| self.remove_all(one));
        for result in futures_util::future::join_all(removals).await {
            result.map_err(failed)?;
        }
        let record = self.get_record(id).await.map_err(failed)?;
        let dir = self.container_dir(id);
        let unmounted = unmount_shm(&dir).and_then(|()| pins::remove(&dir));
        unmounted.map_err(|why| Core::failed(format!("unmount what sandbox {id} holds"), why))?;
        self.remove_all(id).await.map_err(failed)?;
        if let Some((_, Record { kind: record::Kind::Sandbox { cgroup_parent, .. }, .. })) = record
        {
            cgroup::remove(&cgroup_parent);
        }
        Ok(())
    }

    /// Ids of the containers of a sandbox.
    async fn containers_of(&self, sandbox: &str) -> Result<Vec<String>, Status> {
        let filter = format!("labels.\"{}\"=={sandbox}", record::LABEL_SANDBOX);
        let found = self.list_records(vec![filter]).await?;
        Ok(found.into_iter().map(|(container, _)| container.id).collect())
    }
}

pub(super) fn shm_of(dir: &Path) -> std::path::PathBuf {
    dir.join("shm")
}

fn mount_shm(dir: &Path) -> std::io::Result<()> {
    let shm = shm_of(dir);
    task::make_private_dir(&shm)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("shm"), &shm, Some("tmpfs"), flags, Some(SHM_OPTIONS))?;
    Ok(())
}

/// Nothing mounted is what is wanted.
fn unmount_shm(dir: &Path) -> std::io::Result<()> {
    use nix::errno::Errno;
    match umount2(&shm_of(dir), MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

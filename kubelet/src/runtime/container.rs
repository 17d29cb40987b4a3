//! Containers: a snapshot of the image, a record with the specification, and a task with its logger.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use containerd_client::services::v1::snapshots as snap;
use containerd_client::types::Mount;
use containerd_client::types::v1::Status as TaskStatus;
use tonic::Status;

use super::connection::{already_exists, is_not_found};
use super::images::Resolved;
use super::record::{self, ExitRecord, Kind, Record};
use super::spec::NamespaceSource;
use super::users::Accounts;
use super::{Core, accounts, embedded, pins, sandbox, spec, sweep, task, users};
use crate::ports::{ContainerConfig, RuntimeError};
use crate::turns::Rank;

/// The exit code of a container that could not be started, as upstream has it.
const START_ERROR_CODE: i32 = 128;

/// What is known between create and start.
#[derive(Clone)]
pub(super) struct Prepared {
    mounts: Vec<Mount>,
    log_path: PathBuf,
    tty: bool,
}

impl Core {
    pub(super) async fn create_container(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
    ) -> Result<String, RuntimeError> {
        let operation = format!(
            "create container {} of pod {}/{}",
            config.name, config.pod.namespace, config.pod.name
        );
        let failed = |status: Status| self.connection.failed(operation.clone(), &status);
        let id = record::container_id(sandbox_id, &config.name, config.attempt);
        let (shared, image) =
            tokio::join!(self.shared(sandbox_id), self.images.unpacked(&config.image));
        let ((shared, cgroup_parent), image) = (shared?, image?);
        // The first container of an image shows its accounts; from then on nothing has to wait for them.
        let (accounts, mounts) = match self.known_accounts(&config.image.id) {
            Some(accounts) => (accounts, None),
            None => {
                let mounts = self.prepare_snapshot(&id, &image).await.map_err(failed)?;
                (self.learn_accounts(&config.image.id, &mounts), Some(mounts))
            }
        };
        let user = match users::resolve(&config.security, &config.image.config.user, &accounts) {
            Ok(user) => user,
            Err(why) => {
                let _ = self.remove_all(&id).await;
                return Err(RuntimeError::Failed { operation, why });
            }
        };
        let cgroup = format!("{}/{id}", cgroup_parent.trim_end_matches('/'));
        let spec = spec::container(config, &shared, &user, &cgroup, &self.host);
        let record = Record::container(config, sandbox_id, cgroup, &self.boot_id);
        let mounts = async {
            match mounts {
                Some(mounts) => Ok(mounts),
                None => self.prepare_snapshot(&id, &image).await,
            }
        };
        let reference = &config.image.reference;
        let (mounts, created) =
            tokio::join!(mounts, self.create_record(&id, reference, &record, &spec, true));
        match (mounts, created) {
            (Ok(mounts), Ok(())) => {
                let prepared =
                    Prepared { mounts, log_path: config.log_path.clone(), tty: config.tty };
                let mut all = self.created.lock().unwrap_or_else(PoisonError::into_inner);
                all.insert(id.clone(), prepared);
                Ok(id)
            }
            // The same attempt again: it is there.
            (_, Err(status)) if already_exists(&status) => Ok(id),
            (_, Err(status)) | (Err(status), Ok(())) => {
                let _ = self.remove_all(&id).await;
                Err(failed(status))
            }
        }
    }

    fn known_accounts(&self, image_id: &str) -> Option<Arc<Accounts>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner).get(image_id).cloned()
    }

    fn learn_accounts(&self, image_id: &str, mounts: &[Mount]) -> Arc<Accounts> {
        let accounts = Arc::new(accounts::read(mounts));
        let mut all = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(image_id.to_owned(), accounts.clone());
        accounts
    }

    /// What the container gets from its sandbox, and the pod's cgroup.
    async fn shared(&self, sandbox_id: &str) -> Result<(spec::Shared, String), RuntimeError> {
        let failed = |status: Status| {
            self.connection.failed(format!("look at sandbox {sandbox_id}"), &status)
        };
        let gone = || RuntimeError::NotFound { kind: "sandbox", id: sandbox_id.to_owned() };
        let dir = self.container_dir(sandbox_id);
        // A sandbox that pins its namespaces has no task to ask for.
        let task = async {
            if pins::are_there(&dir) { Ok(None) } else { self.get_task(sandbox_id).await }
        };
        let (record, task) = tokio::join!(self.get_record(sandbox_id), task);
        let (_, record) = record.map_err(failed)?.ok_or_else(gone)?;
        let Kind::Sandbox {
            network_namespace,
            cgroup_parent,
            host_ipc,
            host_pid,
            share_process_namespace,
            hostname,
        } = record.kind
        else {
            return Err(gone());
        };
        let task = task.map_err(failed)?.filter(|task| task.status() == TaskStatus::Running);
        let namespaces = match task {
            Some(task) => NamespaceSource::Process(task.pid),
            None if pins::are_there(&dir) => NamespaceSource::Pinned(dir),
            None => {
                return Err(Core::failed(
                    format!("look at sandbox {sandbox_id}"),
                    "it does not run",
                ));
            }
        };
        let shm = match host_ipc {
            true => PathBuf::from("/dev/shm"),
            false => sandbox::shm_of(&self.container_dir(sandbox_id)),
        };
        let shared = spec::Shared {
            sandbox_id: sandbox_id.to_owned(),
            namespaces,
            network_namespace,
            hostname,
            host_pid,
            host_ipc,
            share_process_namespace,
            shm,
        };
        Ok((shared, cgroup_parent))
    }

    async fn prepare_snapshot(
        &self,
        id: &str,
        image: &Arc<Resolved>,
    ) -> Result<Vec<Mount>, Status> {
        match self.try_prepare(id, image).await {
            Err(status) if already_exists(&status) => self.snapshot_mounts(id).await,
            Err(status) if is_not_found(&status) => {
                self.images.unpack_again(image).await?;
                self.try_prepare(id, image).await
            }
            other => other,
        }
    }

    async fn try_prepare(&self, id: &str, image: &Resolved) -> Result<Vec<Mount>, Status> {
        // Until the container's record names it, the label keeps it from the collector.
        let now = prost_types::Timestamp::from(SystemTime::now()).to_string();
        let labels = HashMap::from([
            ("containerd.io/gc.root".to_owned(), now),
            (sweep::LABEL_SNAPSHOT.to_owned(), "container".to_owned()),
        ]);
        let request = snap::PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: id.to_owned(),
            parent: image.chain_ids.last().cloned().unwrap_or_default(),
            labels,
        };
        let answer = self.connection.snapshots().prepare(self.connection.request(request)).await?;
        Ok(answer.into_inner().mounts)
    }

    async fn snapshot_mounts(&self, id: &str) -> Result<Vec<Mount>, Status> {
        let request =
            snap::MountsRequest { snapshotter: self.snapshotter.clone(), key: id.to_owned() };
        let answer = self.connection.snapshots().mounts(self.connection.request(request)).await?;
        Ok(answer.into_inner().mounts)
    }

    pub(super) async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let failed =
            |status: &Status| self.connection.failed(format!("start container {id}"), status);
        let prepared = self.created.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        let prepared = match prepared {
            Some(prepared) => prepared,
            None => self.prepared_again(id).await?,
        };
        if let Some(dir) = prepared.log_path.parent() {
            std::fs::create_dir_all(dir).map_err(|why| {
                Core::failed(format!("make the log folder {}", dir.display()), why)
            })?;
        }
        let (max_bytes, max_files) = (self.config.log_max_bytes, self.config.log_max_files);
        let log =
            embedded::log_uri(&self.programs.logger, &prepared.log_path, max_bytes, max_files);
        let mut request = self.task_request(id, prepared.mounts);
        request.stderr = if prepared.tty { String::new() } else { log.clone() };
        request.stdout = log;
        request.terminal = prepared.tty;
        let Err(status) = self.run_task(request, Rank::First).await else { return Ok(()) };
        let now = record::nanos(SystemTime::now());
        let exit = ExitRecord { code: START_ERROR_CODE, started: None, finished: now, oom: false };
        if let Err(status) = self.write_exit(id, &exit).await {
            tracing::warn!(
                container = id,
                why = status.message(),
                "the failed start was not recorded"
            );
        }
        Err(failed(&status))
    }

    /// After a restart of skiff between create and start.
    async fn prepared_again(&self, id: &str) -> Result<Prepared, RuntimeError> {
        let failed =
            |status: Status| self.connection.failed(format!("start container {id}"), &status);
        let gone = || RuntimeError::NotFound { kind: "container", id: id.to_owned() };
        let (_, record) = self.get_record(id).await.map_err(failed)?.ok_or_else(gone)?;
        let Kind::Container { log_path, tty, .. } = record.kind else { return Err(gone()) };
        let mounts = self.snapshot_mounts(id).await.map_err(failed)?;
        Ok(Prepared { mounts, log_path, tty })
    }

    pub(super) async fn stop_container(
        &self,
        id: &str,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        let failed =
            |status: Status| self.connection.failed(format!("stop container {id}"), &status);
        let Some((_, record)) = self.get_record(id).await.map_err(failed)? else { return Ok(()) };
        let signal = match &record.kind {
            Kind::Container { stop_signal, .. } => task::signal_number(stop_signal),
            Kind::Sandbox { .. } => task::SIGKILL,
        };
        let result = self.stop_task(id, signal, grace).await;
        self.settled(id, result).await.map_err(failed)?;
        self.reap(id).await.map_err(failed)
    }

    async fn stop_task(&self, id: &str, signal: u32, grace: Duration) -> Result<(), Status> {
        if !grace.is_zero() {
            self.kill(id, signal).await?;
            if self.wait_for(id, grace).await? {
                return Ok(());
            }
        }
        self.kill_and_wait(id).await
    }

    pub(super) async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let result = self.remove_all(id).await;
        result.map_err(|status| self.connection.failed(format!("remove container {id}"), &status))
    }
}

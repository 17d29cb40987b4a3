//! What sandboxes and containers have in common: the record in containerd, the task, its end, its removal.

use std::collections::HashMap;
use std::os::unix::fs::DirBuilderExt;
use std::time::{Duration, SystemTime};

use containerd_client::services::v1 as api;
use containerd_client::services::v1::snapshots as snap;
use containerd_client::types::Mount;
use containerd_client::types::v1::{Process, Status as TaskStatus};
use prost_types::{Any, FieldMask};
use tonic::{Code, Status};

use super::connection::{already_exists, ignore_not_found, is_not_found};
use super::record::{self, ExitRecord, Kind, LABEL_EXIT, Record};
use super::{Core, cgroup};
use crate::turns::Rank;

const RUNTIME: &str = "io.containerd.runc.v2";
const OPTIONS_TYPE: &str = "containerd.runc.v1.Options";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
pub(super) const SIGKILL: u32 = 9;
/// A killed process that is not gone after this hangs in the kernel.
pub(super) const KILL_PATIENCE: Duration = Duration::from_secs(20);

/// `containerd.runc.v1.Options`, the fields that skiff sets.
#[derive(Clone, PartialEq, prost::Message)]
struct RuncOptions {
    #[prost(string, tag = "6")]
    binary_name: String,
    #[prost(string, tag = "7")]
    root: String,
}

impl Core {
    /// Writes the record of a new container.
    pub(super) async fn create_record(
        &self,
        id: &str,
        image: &str,
        record: &Record,
        spec: &serde_json::Value,
        snapshot: bool,
    ) -> Result<(), Status> {
        let runc = self.config.runtime_binary.as_ref();
        let options = RuncOptions {
            binary_name: runc.map(|path| path.display().to_string()).unwrap_or_default(),
            root: self.config.state_dir.join("runc").display().to_string(),
        };
        let options = Any {
            type_url: OPTIONS_TYPE.to_owned(),
            value: prost::Message::encode_to_vec(&options),
        };
        let container = api::Container {
            id: id.to_owned(),
            labels: record.labels(),
            image: image.to_owned(),
            runtime: Some(api::container::Runtime {
                name: RUNTIME.to_owned(),
                options: Some(options),
            }),
            spec: Some(Any {
                type_url: SPEC_TYPE.to_owned(),
                value: spec.to_string().into_bytes(),
            }),
            snapshotter: if snapshot { self.snapshotter.clone() } else { String::new() },
            snapshot_key: if snapshot { id.to_owned() } else { String::new() },
            extensions: record.extensions(),
            ..Default::default()
        };
        let request = api::CreateContainerRequest { container: Some(container) };
        self.connection.containers().create(self.connection.request(request)).await?;
        self.remember(id, record.pod());
        Ok(())
    }

    pub(super) async fn get_record(
        &self,
        id: &str,
    ) -> Result<Option<(api::Container, Record)>, Status> {
        let request = self.connection.request(api::GetContainerRequest { id: id.to_owned() });
        match self.connection.containers().get(request).await {
            Ok(answer) => {
                let container = answer.into_inner().container.unwrap_or_default();
                let record = Record::of(&container).ok_or_else(|| {
                    Status::failed_precondition(format!("container {id} was not made by skiff"))
                })?;
                Ok(Some((container, record)))
            }
            Err(status) if is_not_found(&status) => Ok(None),
            Err(status) => Err(status),
        }
    }

    pub(super) async fn get_task(&self, id: &str) -> Result<Option<Process>, Status> {
        let request = api::GetRequest { container_id: id.to_owned(), exec_id: String::new() };
        match self.connection.tasks().get(self.connection.request(request)).await {
            Ok(answer) => Ok(answer.into_inner().process),
            Err(status) if is_not_found(&status) => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// As `get_task`, when nobody is just deleting it: calls that cross a deletion fail with words of the
    /// connection to the shim (`ttrpc: closed`).
    pub(super) async fn look_at_task(&self, id: &str) -> Result<Option<Process>, Status> {
        match self.get_task(id).await {
            Ok(task) => Ok(task),
            Err(_) => {
                let _only = self.locks.lock(id).await;
                self.get_task(id).await
            }
        }
    }

    /// What a failed call matters when the task has ended or gone meanwhile: nothing.
    pub(super) async fn settled(&self, id: &str, result: Result<(), Status>) -> Result<(), Status> {
        let Err(status) = result else { return Ok(()) };
        let _only = self.locks.lock(id).await;
        match self.get_task(id).await? {
            None => Ok(()),
            Some(task) if task.status() == TaskStatus::Stopped => Ok(()),
            Some(_) => Err(status),
        }
    }

    /// Creates and starts the task. Only so many at a time: the work is processor time.
    pub(super) async fn run_task(
        &self,
        request: api::CreateTaskRequest,
        rank: Rank,
    ) -> Result<(), Status> {
        let id = request.container_id.clone();
        let _turn = self.starts.wait(rank).await;
        let created = self.connection.tasks().create(self.connection.request(request)).await;
        let again = match created {
            Ok(_) => false,
            // A call that was given up on before may have come this far.
            Err(status) if already_exists(&status) => true,
            Err(status) => return Err(status),
        };
        if !again {
            self.note_start(&id);
        }
        let request = api::StartRequest { container_id: id.clone(), exec_id: String::new() };
        match self.connection.tasks().start(self.connection.request(request)).await {
            Ok(_) => Ok(()),
            Err(_) if again && self.runs(&id).await? => Ok(()),
            Err(status) => {
                let _ = self.delete_task(&id).await;
                Err(status)
            }
        }
    }

    async fn runs(&self, id: &str) -> Result<bool, Status> {
        Ok(self.get_task(id).await?.is_some_and(|task| task.status() == TaskStatus::Running))
    }

    /// containerd does not keep when a task started; a file that lives as long as the boot does.
    fn note_start(&self, id: &str) {
        let dir = self.container_dir(id);
        let time = record::nanos(SystemTime::now()).to_string();
        let written =
            make_private_dir(&dir).and_then(|()| std::fs::write(dir.join("started"), time));
        if let Err(why) = written {
            tracing::warn!(container = id, %why, "start time was not noted");
        }
    }

    pub(super) fn started(&self, id: &str) -> Option<SystemTime> {
        let text = std::fs::read_to_string(self.container_dir(id).join("started")).ok()?;
        text.trim().parse().ok().map(record::from_nanos)
    }

    pub(super) async fn kill(&self, id: &str, signal: u32) -> Result<(), Status> {
        let request = api::KillRequest {
            container_id: id.to_owned(),
            exec_id: String::new(),
            signal,
            all: false,
        };
        let result = self.connection.tasks().kill(self.connection.request(request)).await;
        match ignore_not_found(result) {
            // Created, never started: there is nothing to signal.
            Err(status) if status.code() == Code::FailedPrecondition && signal != SIGKILL => Ok(()),
            other => other,
        }
    }

    /// Until the first process has ended; no task is an end, too.
    pub(super) async fn wait(&self, id: &str) -> Result<(), Status> {
        let request = api::WaitRequest { container_id: id.to_owned(), exec_id: String::new() };
        ignore_not_found(self.connection.tasks().wait(self.connection.request(request)).await)
    }

    /// Whether it ended in time.
    pub(super) async fn wait_for(&self, id: &str, patience: Duration) -> Result<bool, Status> {
        match tokio::time::timeout(patience, self.wait(id)).await {
            Ok(result) => result.map(|()| true),
            Err(_) => Ok(false),
        }
    }

    pub(super) async fn kill_and_wait(&self, id: &str) -> Result<(), Status> {
        self.kill(id, SIGKILL).await?;
        match self.wait_for(id, KILL_PATIENCE).await? {
            true => Ok(()),
            false => Err(Status::deadline_exceeded(
                "killed, and still there after 20 s: it hangs in the kernel",
            )),
        }
    }

    /// Keeps how an ended task ended, then lets the task go with its logger. Containers that still run are left.
    pub(super) async fn reap(&self, id: &str) -> Result<(), Status> {
        let _only = self.locks.lock(id).await;
        let Some(task) = self.get_task(id).await? else { return Ok(()) };
        if task.status() != TaskStatus::Stopped {
            return Ok(());
        }
        if let Some((container, record)) = self.get_record(id).await?
            && ExitRecord::of(&container).is_none()
        {
            self.write_exit(id, &self.exit_of(id, &record, &task)).await?;
        }
        self.delete_task(id).await
    }

    pub(super) fn exit_of(&self, id: &str, record: &Record, task: &Process) -> ExitRecord {
        let oom = match &record.kind {
            Kind::Container { cgroup, .. } => cgroup::oom_killed(cgroup),
            Kind::Sandbox { .. } => false,
        };
        let finished = record::time(task.exited_at.as_ref()).unwrap_or_else(SystemTime::now);
        ExitRecord {
            code: i32::try_from(task.exit_status).unwrap_or(255),
            started: self.started(id).map(record::nanos),
            finished: record::nanos(finished),
            oom,
        }
    }

    pub(super) async fn write_exit(&self, id: &str, exit: &ExitRecord) -> Result<(), Status> {
        let value = serde_json::to_string(exit).map_err(|e| Status::internal(e.to_string()))?;
        let container = api::Container {
            id: id.to_owned(),
            labels: HashMap::from([(LABEL_EXIT.to_owned(), value)]),
            ..Default::default()
        };
        let paths = vec![format!("labels.{LABEL_EXIT}")];
        let request = api::UpdateContainerRequest {
            container: Some(container),
            update_mask: Some(FieldMask { paths }),
        };
        let result = self.connection.containers().update(self.connection.request(request)).await;
        ignore_not_found(result)
    }

    async fn delete_task(&self, id: &str) -> Result<(), Status> {
        let request = api::DeleteTaskRequest { container_id: id.to_owned() };
        ignore_not_found(self.connection.tasks().delete(self.connection.request(request)).await)
    }

    /// Everything of one container: task, record, snapshot, files.
    pub(super) async fn remove_all(&self, id: &str) -> Result<(), Status> {
        let _only = self.locks.lock(id).await;
        // Refused while it runs, with a code that depends on containerd's version.
        if self.delete_task(id).await.is_err() {
            self.kill_and_wait(id).await?;
            self.delete_task(id).await?;
        }
        let request = api::DeleteContainerRequest { id: id.to_owned() };
        ignore_not_found(
            self.connection.containers().delete(self.connection.request(request)).await,
        )?;
        self.forget(id);
        let request = snap::RemoveSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: id.to_owned(),
        };
        ignore_not_found(
            self.connection.snapshots().remove(self.connection.request(request)).await,
        )?;
        remove_dir(&self.container_dir(id)).map_err(|why| Status::internal(why.to_string()))
    }

    pub(super) fn task_request(&self, id: &str, rootfs: Vec<Mount>) -> api::CreateTaskRequest {
        api::CreateTaskRequest { container_id: id.to_owned(), rootfs, ..Default::default() }
    }
}

/// Only root looks in: pipes and shared memory of pods lie there.
pub(super) fn make_private_dir(dir: &std::path::Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(dir)
}

fn remove_dir(dir: &std::path::Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// `SIGTERM`, `TERM` or `15`; what cannot be read is the default of all runtimes.
pub(super) fn signal_number(text: &str) -> u32 {
    const SIGTERM: u32 = 15;
    let name = text.trim().to_ascii_uppercase();
    if let Ok(number) = name.parse() {
        return number;
    }
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    if let Some(offset) =
        name.strip_prefix("SIGRTMIN+").and_then(|offset| offset.parse::<u32>().ok())
    {
        return 34 + offset;
    }
    name.parse::<nix::sys::signal::Signal>().map_or(SIGTERM, |signal| signal as u32)
}

#[cfg(test)]
mod tests {
    use super::signal_number;

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(signal_number(""), 15);
        assert_eq!(signal_number("SIGQUIT"), 3);
        assert_eq!(signal_number("hup"), 1);
        assert_eq!(signal_number("9"), 9);
        assert_eq!(signal_number("SIGRTMIN+3"), 37);
        assert_eq!(signal_number("SIGNOPE"), 15);
    }
}

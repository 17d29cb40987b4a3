//! What the runtime has now: containerd's records with what its tasks say, as sandboxes and containers.

use std::collections::HashMap;
use std::time::SystemTime;

use containerd_client::services::v1 as api;
use containerd_client::types::v1::{Process, Status as TaskStatus};
use tonic::Status;

use super::record::{self, ExitRecord, Kind, LABEL_POD_UID, Record};
use super::{Core, pins};
use crate::ports::{ContainerState, Phase, RuntimeError, SandboxState};

/// The exit code of containers whose end nobody saw, as upstream has it.
const UNKNOWN_CODE: i32 = 255;

/// What is known of one container or sandbox.
#[derive(Debug, Clone, Default)]
struct Known {
    task: Option<Process>,
    exit: Option<ExitRecord>,
    started: Option<SystemTime>,
    /// Made before the host was started the last time.
    other_boot: bool,
    /// A sandbox without a process that holds its namespaces.
    pinned: bool,
}

impl Known {
    fn phase(&self) -> Phase {
        match (&self.task, &self.exit) {
            (_, Some(_)) => Phase::Exited,
            (Some(task), None) => match task.status() {
                TaskStatus::Created => Phase::Created,
                TaskStatus::Running | TaskStatus::Paused | TaskStatus::Pausing => Phase::Running,
                TaskStatus::Stopped => Phase::Exited,
                TaskStatus::Unknown => Phase::Unknown,
            },
            (None, None) if self.pinned => Phase::Running,
            (None, None) if self.other_boot || self.started.is_some() => Phase::Exited,
            (None, None) => Phase::Created,
        }
    }

    /// No task, no end on record, and it had been started: the end may just be being written.
    fn doubtful(&self) -> bool {
        self.task.is_none() && self.exit.is_none() && self.started.is_some()
    }

    fn pid(&self) -> Option<u32> {
        let task = self.task.as_ref().filter(|_| self.phase() == Phase::Running)?;
        (task.pid > 0).then_some(task.pid)
    }
}

impl Core {
    pub(super) async fn list_records(
        &self,
        filters: Vec<String>,
    ) -> Result<Vec<(api::Container, Record)>, Status> {
        let request = self.connection.request(api::ListContainersRequest { filters });
        let containers = self.connection.containers().list(request).await?.into_inner().containers;
        let ours =
            containers.into_iter().filter_map(|one| Record::of(&one).map(|record| (one, record)));
        Ok(ours.collect())
    }

    pub(super) async fn state(
        &self,
        pod_uid: Option<&str>,
    ) -> Result<(Vec<SandboxState>, Vec<ContainerState>), RuntimeError> {
        let failed = |status: Status| self.connection.failed("list containers", &status);
        let looked = match pod_uid {
            Some(uid) => self.look_at_pod(uid).await.map_err(failed)?,
            None => self.look_at_all().await.map_err(failed)?,
        };
        let (mut sandboxes, mut containers) = (Vec::new(), Vec::new());
        for (container, record, mut known) in looked {
            if known.doubtful() {
                let Some(again) = self.look_again(&container.id).await.map_err(failed)? else {
                    continue;
                };
                known = again;
            }
            self.remember(&container.id, record.pod());
            match &record.kind {
                Kind::Sandbox { .. } => sandboxes.push(sandbox_state(&container, &record, &known)),
                Kind::Container { .. } => {
                    let exit = self.exit_known(&container.id, &record, &known);
                    containers.extend(container_state(&container, &record, &known, exit.as_ref()));
                }
            }
        }
        Ok((sandboxes, containers))
    }

    /// Tasks first: an end is recorded before its task goes.
    async fn look_at_all(&self) -> Result<Vec<(api::Container, Record, Known)>, Status> {
        let request = self.connection.request(api::ListTasksRequest::default());
        let tasks = self.connection.tasks().list(request).await?.into_inner().tasks;
        let mut tasks: HashMap<String, Process> =
            tasks.into_iter().map(|task| (task.id.clone(), task)).collect();
        let records = self.list_records(Vec::new()).await?;
        let looked = records.into_iter().map(|(container, record)| {
            let known = self.known(&container, &record, tasks.remove(&container.id));
            (container, record, known)
        });
        Ok(looked.collect())
    }

    async fn look_at_pod(&self, uid: &str) -> Result<Vec<(api::Container, Record, Known)>, Status> {
        let records = self.list_records(vec![format!("labels.\"{LABEL_POD_UID}\"=={uid}")]).await?;
        let looks = records.into_iter().map(|(container, record)| async move {
            let task = match ExitRecord::of(&container) {
                Some(_) => None,
                None => self.look_at_task(&container.id).await?,
            };
            let known = self.known(&container, &record, task);
            Ok((container, record, known))
        });
        futures_util::future::try_join_all(looks).await
    }

    /// Nothing when it was removed meanwhile.
    async fn look_again(&self, id: &str) -> Result<Option<Known>, Status> {
        let task = self.look_at_task(id).await?;
        let found = self.get_record(id).await?;
        Ok(found.map(|(container, record)| self.known(&container, &record, task)))
    }

    fn known(&self, container: &api::Container, record: &Record, task: Option<Process>) -> Known {
        Known {
            task,
            exit: ExitRecord::of(container),
            started: self.started(&container.id),
            other_boot: record.boot_id != self.boot_id,
            pinned: matches!(record.kind, Kind::Sandbox { .. })
                && pins::are_there(&self.container_dir(&container.id)),
        }
    }

    fn exit_known(&self, id: &str, record: &Record, known: &Known) -> Option<ExitRecord> {
        match (&known.exit, &known.task) {
            (Some(exit), _) => Some(exit.clone()),
            (None, Some(task)) if task.status() == TaskStatus::Stopped => {
                Some(self.exit_of(id, record, task))
            }
            _ => None,
        }
    }
}

fn sandbox_state(container: &api::Container, record: &Record, known: &Known) -> SandboxState {
    let network_namespace = match &record.kind {
        Kind::Sandbox { network_namespace, .. } => network_namespace.clone(),
        Kind::Container { .. } => None,
    };
    SandboxState {
        id: container.id.clone(),
        pod: record.pod(),
        attempt: record.attempt,
        phase: known.phase(),
        created_at: created_at(container),
        network_namespace,
        pid: known.pid(),
    }
}

fn container_state(
    container: &api::Container,
    record: &Record,
    known: &Known,
    exit: Option<&ExitRecord>,
) -> Option<ContainerState> {
    let Kind::Container { name, sandbox_id, image_id, log_path, annotations, .. } = &record.kind
    else {
        return None;
    };
    let phase = known.phase();
    let started_at =
        known.started.or_else(|| exit.and_then(|exit| exit.started).map(record::from_nanos));
    let lost = phase == Phase::Exited && exit.is_none();
    Some(ContainerState {
        id: container.id.clone(),
        sandbox_id: sandbox_id.clone(),
        pod: record.pod(),
        name: name.clone(),
        attempt: record.attempt,
        phase,
        image: container.image.clone(),
        image_id: image_id.clone(),
        created_at: created_at(container),
        started_at,
        finished_at: exit.map(|exit| record::from_nanos(exit.finished)),
        exit_code: exit.map(|exit| exit.code).or(lost.then_some(UNKNOWN_CODE)),
        // containerd gives 128 + the signal as the code, and no more.
        signal: None,
        oom_killed: exit.is_some_and(|exit| exit.oom),
        pid: known.pid(),
        log_path: log_path.clone(),
        annotations: annotations.clone(),
    })
}

fn created_at(container: &api::Container) -> SystemTime {
    record::time(container.created_at.as_ref()).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(status: Option<TaskStatus>, exit: bool, started: bool, other_boot: bool) -> Known {
        Known {
            task: status.map(|status| Process {
                status: status as i32,
                pid: 7,
                ..Default::default()
            }),
            exit: exit.then_some(ExitRecord { code: 3, started: None, finished: 1, oom: false }),
            started: started.then_some(SystemTime::UNIX_EPOCH),
            other_boot,
            pinned: false,
        }
    }

    #[test]
    fn phases() {
        use TaskStatus::{Created, Paused, Running, Stopped};
        assert_eq!(known(None, false, false, false).phase(), Phase::Created);
        assert_eq!(known(Some(Created), false, false, false).phase(), Phase::Created);
        assert_eq!(known(Some(Running), false, true, false).phase(), Phase::Running);
        assert_eq!(known(Some(Paused), false, true, false).phase(), Phase::Running);
        assert_eq!(known(Some(Stopped), false, true, false).phase(), Phase::Exited);
        assert_eq!(known(None, true, true, false).phase(), Phase::Exited);
        assert_eq!(known(None, false, false, true).phase(), Phase::Exited, "the host was rebooted");
        assert_eq!(known(None, false, true, false).phase(), Phase::Exited, "its shim was killed");
    }

    #[test]
    fn only_a_running_one_has_a_pid() {
        assert_eq!(known(Some(TaskStatus::Running), false, true, false).pid(), Some(7));
        assert_eq!(known(Some(TaskStatus::Stopped), false, true, false).pid(), None);
    }

    #[test]
    fn an_end_that_nobody_saw_has_upstreams_code() {
        let kind = Kind::Container {
            name: "app".into(),
            sandbox_id: "s".into(),
            image_id: "i".into(),
            log_path: "/l".into(),
            stop_signal: String::new(),
            cgroup: "/c".into(),
            tty: false,
            annotations: Default::default(),
        };
        let record = Record {
            namespace: "n".into(),
            name: "p".into(),
            uid: "u".into(),
            attempt: 0,
            boot_id: "b".into(),
            kind,
        };
        let state = container_state(
            &api::Container::default(),
            &record,
            &known(None, false, false, true),
            None,
        );
        assert_eq!(state.expect("a container").exit_code, Some(UNKNOWN_CODE));
    }
}

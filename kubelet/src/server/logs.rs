//! Logs: which file is meant, and its stream, followed until the container ends.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::Stream;
use skiff_proto::grpc::api::{LogChunk, LogOptions};
use skiff_proto::grpc::node::NodeLogsRequest;
use skiff_proto::{Timestamp, resource};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Service;
use super::cri_log::{Reader, Selection};
use super::follow::FolderWatch;
use crate::ports::{ContainerState, Phase, PodRef, Runtime};

pub type LogStream = Pin<Box<dyn Stream<Item = Result<LogChunk, Status>> + Send>>;

/// Chunks of up to 64 KiB ahead of a slow reader.
const CHUNKS: usize = 4;

fn internal(why: impl std::fmt::Display) -> Status {
    skiff_proto::Status::internal(why).into()
}

fn selection(options: &LogOptions) -> Result<Selection, Status> {
    let count = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok());
    let since = match (&options.since_time, options.since_seconds) {
        (text, _) if !text.is_empty() => Some(Timestamp::parse(text).ok_or_else(|| {
            Status::from(skiff_proto::Status::bad_request(format!(
                "sinceTime {text:?} is not an RFC 3339 time"
            )))
        })?),
        (_, Some(seconds)) => {
            let ago = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            Some(Timestamp::micros(SystemTime::now() - ago))
        }
        _ => None,
    };
    Ok(Selection {
        tail_lines: count(options.tail_lines),
        since,
        timestamps: options.timestamps,
        limit_bytes: count(options.limit_bytes),
    })
}

impl Service {
    pub async fn serve_logs(&self, request: NodeLogsRequest) -> Result<LogStream, Status> {
        let options = request.options.clone().unwrap_or_default();
        let selection = selection(&options)?;
        let (_, containers) = self.ctx.runtime.pod_state(&request.uid).await.map_err(internal)?;
        let mut containers: Vec<ContainerState> = containers
            .into_iter()
            .filter(|c| c.name == request.container && c.phase != Phase::Created)
            .collect();
        containers.sort_by_key(|c| (c.attempt, c.created_at));
        let (path, follow) = if options.previous {
            (self.previous(&request, &containers)?, None)
        } else {
            let newest = containers.last();
            match newest {
                Some(state) => (state.log_path.clone(), options.follow.then(|| state.clone())),
                None => (self.left_behind(&request)?, None),
            }
        };
        let events = follow.as_ref().map(|_| self.ctx.runtime.events());
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let runtime = self.ctx.runtime.clone();
        tokio::spawn(async move {
            let end = Following { runtime, container: follow, events };
            if let Err(why) = stream(&path, selection, end, &sender).await {
                let _ =
                    sender.send(Err(internal(format!("read log {}: {why}", path.display())))).await;
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    fn folder(&self, request: &NodeLogsRequest) -> PathBuf {
        let pod = PodRef {
            namespace: request.namespace.clone(),
            name: request.pod.clone(),
            uid: request.uid.clone(),
        };
        self.ctx.config.pod_log_dir(&pod).join(&request.container)
    }

    /// The container before the present one; its record may be gone, its log may still be there.
    fn previous(
        &self,
        request: &NodeLogsRequest,
        containers: &[ContainerState],
    ) -> Result<PathBuf, Status> {
        let missing = || {
            let (container, pod) = (&request.container, &request.pod);
            let text =
                format!("previous terminated container {container:?} in pod {pod:?} not found");
            Status::from(skiff_proto::Status::bad_request(text))
        };
        let newest = containers.last().ok_or_else(missing)?;
        let before = newest.attempt.checked_sub(1).ok_or_else(missing)?;
        let path = self.folder(request).join(format!("{before}.log"));
        if path.exists() { Ok(path) } else { Err(missing()) }
    }

    /// The last log of a container whose record is gone.
    fn left_behind(&self, request: &NodeLogsRequest) -> Result<PathBuf, Status> {
        // The name is part of a path below the pod's own folder.
        let plain = !request.container.is_empty()
            && !request.container.contains(['/', '\0'])
            && !request.container.starts_with('.');
        let entries = plain.then(|| std::fs::read_dir(self.folder(request)).ok()).flatten();
        let attempts = entries.into_iter().flatten().flatten().filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_suffix(".log")?.parse::<u32>().ok()
        });
        match attempts.max() {
            Some(attempt) => Ok(self.folder(request).join(format!("{attempt}.log"))),
            None => Err(skiff_proto::Status::not_found(&resource::PODS, &request.pod).into()),
        }
    }
}

/// What tells that a followed log has ended.
struct Following {
    runtime: std::sync::Arc<dyn Runtime>,
    container: Option<ContainerState>,
    events: Option<mpsc::Receiver<crate::ports::RuntimeEvent>>,
}

impl Following {
    async fn still_runs(&self) -> bool {
        let Some(container) = &self.container else { return false };
        match self.runtime.pod_state(&container.pod.uid).await {
            Ok((_, all)) => all.iter().any(|c| c.id == container.id && c.phase == Phase::Running),
            // An unknown state ends nothing.
            Err(_) => true,
        }
    }

    /// Something about this pod changed in the runtime.
    async fn event(&mut self) {
        let (Some(events), Some(container)) = (&mut self.events, &self.container) else {
            return std::future::pending().await;
        };
        while let Some(event) = events.recv().await {
            if event.pod.is_none_or(|pod| pod.uid == container.pod.uid) {
                return;
            }
        }
        self.events = None;
        std::future::pending().await
    }
}

async fn stream(
    path: &Path,
    selection: Selection,
    mut following: Following,
    sender: &mpsc::Sender<Result<LogChunk, Status>>,
) -> std::io::Result<()> {
    let watch = match (&following.container, path.parent()) {
        // Before the first read, so that nothing written after it is missed.
        (Some(_), Some(folder)) => Some(FolderWatch::new(folder)?),
        _ => None,
    };
    let from = path.to_path_buf();
    let opened = tokio::task::spawn_blocking(move || Reader::open(&from, &selection)).await;
    let mut reader = opened.map_err(std::io::Error::other)??;
    loop {
        // Asked before the read: what was written until then is shown.
        let goes_on = following.still_runs().await;
        loop {
            let read = tokio::task::spawn_blocking(move || (reader.read_lines(), reader)).await;
            let (chunk, back) = read.map_err(std::io::Error::other)?;
            reader = back;
            let Some(data) = chunk? else { break };
            if sender.send(Ok(LogChunk { data: Bytes::from(data) })).await.is_err() {
                return Ok(());
            }
        }
        let Some(watch) = watch.as_ref().filter(|_| goes_on && !reader.is_done()) else {
            return Ok(());
        };
        tokio::select! {
            changed = watch.changed() => changed?,
            () = following.event() => {}
            () = sender.closed() => return Ok(()),
        }
    }
}

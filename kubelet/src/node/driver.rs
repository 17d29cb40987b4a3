//! Registers the Node and keeps its status true: written when it changed, and otherwise only
//! every few minutes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::{Value, json};
use skiff_client::{Patch, Target, WriteOptions};
use skiff_kit::backoff::Backoff;
use skiff_proto::model::{Node, NodeStatus};
use skiff_proto::{ObjectReference, Status, resource};
use tokio::time::Instant;

use super::facts::{Machine, Room, architecture};
use super::status::{Input, beat, node_status};
use crate::pod::context::Context;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(10);
/// How often the machine is looked at, for pressure and for new images. Reads of `/proc`
/// only; nothing is written unless something changed.
const LOOK: Duration = Duration::from_secs(30);
/// A node that is not ready is looked at more often: it has just begun, or waits for its
/// runtime or network. The longer this lasts, the longer the pauses.
const LOOK_NOT_READY: Duration = Duration::from_millis(250);
const LOOK_NOT_READY_MAX: Duration = Duration::from_secs(10);

pub struct Driver {
    ctx: Arc<Context>,
    machine: Machine,
    /// What the API has.
    written: NodeStatus,
    written_at: Instant,
}

impl Driver {
    pub fn new(ctx: Arc<Context>, machine: Machine) -> Self {
        Self { ctx, machine, written: NodeStatus::default(), written_at: Instant::now() }
    }

    fn target(&self) -> Target {
        Target::one(&resource::NODES, "", &self.ctx.config.node_name)
    }

    /// Makes or takes up the Node object; returns once it is there with its first status.
    pub async fn register(&mut self) {
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        loop {
            let done = async {
                self.take_up().await?;
                self.report(true).await
            };
            match done.await {
                Ok(()) => return,
                Err(status) => {
                    let wait = backoff.next();
                    tracing::warn!(
                        node = self.ctx.config.node_name,
                        ?wait,
                        "node not registered, trying again: {status}"
                    );
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    async fn take_up(&mut self) -> Result<(), Status> {
        let options = WriteOptions::default();
        match self.ctx.api.get(&self.target()).await {
            Ok(object) => {
                let node: Node = object.parse().map_err(Status::internal)?;
                self.written = node.status;
                // Labels of the configuration win; those of other people stay.
                let patch = json!({"metadata": {"labels": self.labels()}});
                let patch = Patch::Merge(Bytes::from(patch.to_string()));
                let wanted = self.labels();
                let missing = wanted.as_object().is_some_and(|labels| {
                    labels
                        .iter()
                        .any(|(k, v)| node.metadata.labels.get(k).map(String::as_str) != v.as_str())
                });
                if missing {
                    self.ctx.api.patch(&self.target(), patch, &options).await?;
                }
                Ok(())
            }
            Err(status) if status.is_not_found() => {
                let body = self.new_node();
                let all = Target::all(&resource::NODES, "");
                match self.ctx.api.create(&all, Bytes::from(body.to_string()), &options).await {
                    Err(status) if !status.is_already_exists() => Err(status),
                    _ => Ok(()),
                }
            }
            Err(status) => Err(status),
        }
    }

    fn labels(&self) -> Value {
        let config = &self.ctx.config;
        let mut labels = config.labels.clone();
        for (key, value) in [
            ("kubernetes.io/hostname", config.node_name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", architecture()),
        ] {
            labels.entry(key.into()).or_insert_with(|| value.into());
        }
        json!(labels)
    }

    fn new_node(&self) -> Value {
        let config = &self.ctx.config;
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": config.node_name, "labels": self.labels()},
            "spec": {"taints": config.taints},
        })
    }

    async fn observe(&self) -> NodeStatus {
        let runtime = &self.ctx.runtime;
        let (version, images) = tokio::join!(runtime.version(), runtime.images());
        let not_ready = match (&version, self.ctx.network.not_ready()) {
            (Err(why), _) => Some(format!("container runtime is down: {why}")),
            (Ok(_), Some(why)) => Some(format!(
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:{why}"
            )),
            (Ok(_), None) => None,
        };
        let known = &self.written.node_info.container_runtime_version;
        node_status(&Input {
            config: &self.ctx.config,
            machine: &self.machine,
            room: Room::read(&self.ctx.config.root_dir),
            images: &images.unwrap_or_default(),
            runtime_version: version.as_ref().unwrap_or(known),
            not_ready,
            previous: &self.written,
            now: SystemTime::now(),
        })
    }

    async fn report(&mut self, always: bool) -> Result<(), Status> {
        let mut status = self.observe().await;
        let due = self.written_at.elapsed() >= self.ctx.config.status_report_interval;
        if status == self.written && !always && !due {
            return Ok(());
        }
        if always || due {
            status = beat(status, SystemTime::now());
        }
        let body = json!({ "status": status });
        let body = Patch::Merge(Bytes::from(body.to_string()));
        let target = self.target().subresource("status");
        self.ctx.api.patch(&target, body, &WriteOptions::default()).await?;
        self.tell_change(&status);
        self.written = status;
        self.written_at = Instant::now();
        Ok(())
    }

    fn tell_change(&self, new: &NodeStatus) {
        let ready = |status: &NodeStatus| {
            status.conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.status.clone())
        };
        if ready(new) == ready(&self.written) {
            return;
        }
        let name = &self.ctx.config.node_name;
        let reason =
            if ready(new).as_deref() == Some("True") { "NodeReady" } else { "NodeNotReady" };
        let about = ObjectReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: name.clone(),
            uid: name.clone(),
            ..Default::default()
        };
        let text = format!("Node {name} status is now: {reason}");
        self.ctx.recorder.normal(&about, reason, text);
    }

    /// Looks at the machine now and then, for as long as the kubelet runs.
    pub async fn run(mut self) {
        let mut not_ready_since = None;
        loop {
            let ready = |c: &skiff_proto::Condition| c.type_ == "Ready" && c.status == "True";
            if self.written.conditions.iter().any(ready) {
                not_ready_since = None;
            } else {
                not_ready_since.get_or_insert_with(Instant::now);
            }
            tokio::time::sleep(pause(not_ready_since.map(|since| since.elapsed()))).await;
            match self.report(false).await {
                Ok(()) => {}
                Err(status) if status.is_not_found() => self.register().await,
                Err(status) => {
                    tracing::warn!("node status not written, trying again: {status}");
                    tokio::time::sleep(LAST_RETRY).await;
                }
            }
        }
    }
}

/// Until the next look at a node that has been not ready for this long.
fn pause(not_ready: Option<Duration>) -> Duration {
    not_ready.map_or(LOOK, |since| (since / 4).clamp(LOOK_NOT_READY, LOOK_NOT_READY_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_become_rare_the_longer_nothing_changes() {
        let after = |seconds| pause(Some(Duration::from_secs(seconds)));
        assert_eq!(pause(None), LOOK);
        assert_eq!(after(0), LOOK_NOT_READY);
        assert_eq!(after(8), Duration::from_secs(2));
        assert_eq!(after(3600), LOOK_NOT_READY_MAX);
    }
}

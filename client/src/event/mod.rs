//! Recording Events, best effort: an event that cannot be written is logged, never an error.
//! Repeats of one event raise its count instead of making a new object, similar ones are
//! combined, and one object cannot flood the cluster with events (`correlate`).

mod correlate;
mod recent;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use skiff_proto::model::{Event, EventSource};
use skiff_proto::{Object, ObjectMeta, ObjectReference, Status, Timestamp, resource};
use tokio::sync::mpsc;

use crate::api::{Api, Patch, Target, WriteOptions};
use correlate::{Correlator, Outcome};

/// Events waiting to be written; what comes above is dropped and counted in the log.
const QUEUE_EVENTS: usize = 1024;

#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Event>,
    component: Arc<str>,
    host: Arc<str>,
}

impl Recorder {
    /// `component` is who speaks: `kubelet`, `default-scheduler`, `deployment-controller`.
    pub fn new(api: Arc<dyn Api>, component: &str, host: &str) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_EVENTS);
        tokio::spawn(write(api, receiver));
        Self { sender, component: component.into(), host: host.into() }
    }

    pub fn normal(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, "Normal", reason, message.into());
    }

    pub fn warning(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, "Warning", reason, message.into());
    }

    fn record(&self, about: &ObjectReference, type_: &str, reason: &str, message: String) {
        let at = SystemTime::now();
        let now = Timestamp::seconds(at);
        // Events about cluster-scoped objects live in `default`, as upstream does it.
        let namespace = if about.namespace.is_empty() { "default" } else { &about.namespace };
        let event = Event {
            metadata: ObjectMeta {
                namespace: namespace.into(),
                name: format!("{}.{:x}", about.name, nanoseconds(at)),
                ..Default::default()
            },
            involved_object: about.clone(),
            reason: reason.into(),
            message,
            source: EventSource {
                component: self.component.to_string(),
                host: self.host.to_string(),
            },
            first_timestamp: Some(now),
            last_timestamp: Some(now),
            count: 1,
            type_: type_.into(),
            reporting_component: self.component.to_string(),
            reporting_instance: self.host.to_string(),
            ..Default::default()
        };
        if self.sender.try_send(event).is_err() {
            tracing::debug!(about = about.name, reason, "event dropped: queue full");
        }
    }
}

/// Tells events about one object apart, as upstream names them.
fn nanoseconds(at: SystemTime) -> u128 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// A reference to an object for events about it.
pub fn reference(object: &Object) -> ObjectReference {
    ObjectReference {
        api_version: object.index.api_version.clone(),
        kind: object.index.kind.clone(),
        namespace: object.namespace().into(),
        name: object.name().into(),
        uid: object.uid().into(),
        resource_version: object.resource_version().into(),
        field_path: String::new(),
    }
}

/// Writes what the correlator lets through, one after the other.
async fn write(api: Arc<dyn Api>, mut receiver: mpsc::Receiver<Event>) {
    let mut correlator = Correlator::default();
    while let Some(event) = receiver.recv().await {
        let (event, known, is_raise) = match correlator.observe(event, Instant::now()) {
            Outcome::Drop => continue,
            Outcome::Create(event, known) => (event, known, false),
            Outcome::Raise(event, known) => (event, known, true),
        };
        let result = match is_raise {
            true => raise(&*api, &event).await,
            false => create(&*api, &event).await,
        };
        match result {
            Ok(()) => correlator.written(known, &event),
            Err(status) => {
                tracing::debug!(about = event.involved_object.name, "event not written: {status}");
            }
        }
    }
}

/// Tells that an event happened again. One that has expired meanwhile is made anew.
async fn raise(api: &dyn Api, event: &Event) -> Result<(), Status> {
    let patch = serde_json::json!({
        "count": event.count, "lastTimestamp": event.last_timestamp, "message": event.message,
    });
    let target = Target::one(&resource::EVENTS, &event.metadata.namespace, &event.metadata.name);
    let patch = Patch::Merge(Bytes::from(patch.to_string()));
    match api.patch(&target, patch, &WriteOptions::default()).await {
        Err(status) if status.is_not_found() => create(api, event).await,
        other => other.map(drop),
    }
}

async fn create(api: &dyn Api, event: &Event) -> Result<(), Status> {
    let mut json = serde_json::to_value(event).map_err(Status::internal)?;
    json["apiVersion"] = "v1".into();
    json["kind"] = "Event".into();
    let target = Target::all(&resource::EVENTS, &event.metadata.namespace);
    api.create(&target, Bytes::from(json.to_string()), &WriteOptions::default()).await.map(drop)
}

//! containerd's event stream, as changes of pods. It connects again by itself; after every gap comes an
//! event without a pod. An end is also recorded here, whoever caused it.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use containerd_client::events::{TaskExit, TaskOom, TaskStart};
use containerd_client::services::v1 as api;
use containerd_client::types::Envelope;
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::{Status, Streaming};

use super::{Core, sweep};
use crate::ports::{PodRef, RuntimeEvent};

/// A burst of a hundred pods with a few containers each, before anybody looks.
const EVENTS_UNDER_WAY: usize = 1024;
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LAST: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Subscribers {
    list: Mutex<Vec<mpsc::Sender<RuntimeEvent>>>,
}

impl Subscribers {
    pub fn subscribe(&self) -> mpsc::Receiver<RuntimeEvent> {
        let (sender, receiver) = mpsc::channel(EVENTS_UNDER_WAY);
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// The last place is kept for the event that says that some were lost.
    fn tell(&self, event: &RuntimeEvent) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|sender| match sender.capacity() {
            0 => !sender.is_closed(),
            1 => !matches!(
                sender.try_send(RuntimeEvent { pod: None }),
                Err(mpsc::error::TrySendError::Closed(_))
            ),
            _ => {
                !matches!(sender.try_send(event.clone()), Err(mpsc::error::TrySendError::Closed(_)))
            }
        });
    }
}

/// The task that follows; it ends with this.
pub(super) struct Follower(JoinHandle<()>);

impl Follower {
    pub fn start(core: Arc<Core>) -> Follower {
        Follower(tokio::spawn(follow(core)))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn follow(core: Arc<Core>) {
    let mut backoff = BACKOFF_FIRST;
    loop {
        match subscribe(&core).await {
            Ok(stream) => {
                backoff = BACKOFF_FIRST;
                let ended = read(&core, stream).await;
                tracing::warn!(
                    why = ended.message(),
                    "containerd's event stream ended; connecting again"
                );
            }
            Err(status) => {
                tracing::debug!(
                    why = status.message(),
                    "containerd's event stream cannot be opened yet"
                );
            }
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_LAST);
    }
}

/// containerd answers a subscription only with the first event: that it is there at all, another call tells.
async fn subscribe(core: &Arc<Core>) -> Result<Streaming<Envelope>, Status> {
    let filter =
        format!("namespace=={},topic~=\"^/tasks/(start|exit|oom)$\"", core.config.namespace);
    let mut events = core.connection.events();
    let request = core.connection.request(api::SubscribeRequest { filters: vec![filter] });
    let subscription = events.subscribe(request);
    tokio::pin!(subscription);
    let mut version = core.connection.version();
    let early = tokio::select! {
        biased;
        stream = &mut subscription => Some(stream?),
        answer = version.version(core.connection.request(())) => { answer?; None }
    };
    core.subscribers.tell(&RuntimeEvent { pod: None });
    tokio::spawn(sweep::run(Arc::downgrade(core)));
    match early {
        Some(stream) => Ok(stream.into_inner()),
        None => Ok(subscription.await?.into_inner()),
    }
}

async fn read(core: &Arc<Core>, mut stream: Streaming<Envelope>) -> Status {
    loop {
        match stream.message().await {
            Ok(Some(envelope)) => handle(core, &envelope).await,
            Ok(None) => return Status::unavailable("closed"),
            Err(status) => return status,
        }
    }
}

async fn handle(core: &Arc<Core>, envelope: &Envelope) {
    let Some((id, ended)) = meaning(envelope) else { return };
    if let Some(pod) = core.pod_of(&id).await {
        core.subscribers.tell(&RuntimeEvent { pod: Some(pod) });
        if ended {
            let core = Arc::downgrade(core);
            tokio::spawn(async move { reap(&core, &id).await });
        }
    }
}

/// Whose, and whether it is an end. The ends of execs are nobody's business here.
fn meaning(envelope: &Envelope) -> Option<(String, bool)> {
    let event = envelope.event.as_ref()?;
    let bytes = event.value.as_slice();
    match event.type_url.rsplit('/').next()? {
        "containerd.events.TaskStart" => Some((TaskStart::decode(bytes).ok()?.container_id, false)),
        "containerd.events.TaskOOM" => Some((TaskOom::decode(bytes).ok()?.container_id, false)),
        "containerd.events.TaskExit" => {
            let exit = TaskExit::decode(bytes).ok()?;
            (exit.id == exit.container_id).then_some((exit.container_id, true))
        }
        _ => None,
    }
}

pub(super) async fn reap(core: &Weak<Core>, id: &str) {
    let Some(core) = core.upgrade() else { return };
    if let Err(status) = core.reap(id).await {
        tracing::warn!(container = id, why = status.message(), "the end was not recorded yet");
    }
}

impl Core {
    pub(super) fn remember(&self, id: &str, pod: PodRef) {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), pod);
    }

    pub(super) fn forget(&self, id: &str) {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.created.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    async fn pod_of(&self, id: &str) -> Option<PodRef> {
        let known = self.pods.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        if known.is_some() {
            return known;
        }
        let (_, record) = self.get_record(id).await.ok()??;
        self.remember(id, record.pod());
        Some(record.pod())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_read_is_told_to_look_at_everything() {
        let subscribers = Subscribers::default();
        let mut receiver = subscribers.subscribe();
        let pod = PodRef { namespace: "n".into(), name: "p".into(), uid: "u".into() };
        for _ in 0..EVENTS_UNDER_WAY * 2 {
            subscribers.tell(&RuntimeEvent { pod: Some(pod.clone()) });
        }
        let mut got = Vec::new();
        while let Ok(event) = receiver.try_recv() {
            got.push(event.pod.is_some());
        }
        assert_eq!(got.len(), EVENTS_UNDER_WAY);
        assert!(got[..EVENTS_UNDER_WAY - 1].iter().all(|pod| *pod));
        assert!(!got[EVENTS_UNDER_WAY - 1], "the last says that some were lost");
        drop(receiver);
        subscribers.tell(&RuntimeEvent { pod: None });
        assert!(subscribers.list.lock().expect("not poisoned").is_empty());
    }
}

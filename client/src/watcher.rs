//! Follows one collection through disconnects and expiry: list once, then watch, and list
//! again only when the server says that history is gone.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use skiff_kit::backoff::Backoff;
use skiff_proto::{Object, Status};

use crate::api::{Api, ListOptions, Target, WatchEvent, WatchOptions, WatchStream};

/// What the follower learns.
#[derive(Debug, Clone)]
pub enum Step {
    /// The whole collection, replacing what was known.
    Listed(Vec<Arc<Object>>),
    Event(WatchEvent),
}

/// A follower of one collection. `next` never ends and never fails: it retries with backoff.
pub struct Watcher {
    api: Arc<dyn Api>,
    target: Target,
    selection: ListOptions,
    resource_version: Option<String>,
    stream: Option<WatchStream>,
    backoff: Backoff,
}

impl Watcher {
    /// Of `selection` the label and field selectors are used.
    pub fn new(api: Arc<dyn Api>, target: Target, selection: ListOptions) -> Self {
        let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(10));
        Self { api, target, selection, resource_version: None, stream: None, backoff }
    }

    /// Cancel-safe between steps.
    pub async fn next(&mut self) -> Step {
        loop {
            match self.step().await {
                Ok(Some(step)) => {
                    self.backoff.reset();
                    return step;
                }
                Ok(None) => self.stream = None,
                Err(status) => self.fail(status).await,
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Step>, Status> {
        let Some(version) = self.resource_version.clone() else {
            let list = self.api.list(&self.target, &self.selection).await?;
            self.resource_version = Some(list.resource_version);
            return Ok(Some(Step::Listed(list.items)));
        };
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let options = WatchOptions {
                    labels: self.selection.labels.clone(),
                    fields: self.selection.fields.clone(),
                    resource_version: version,
                    allow_bookmarks: true,
                };
                self.stream.insert(self.api.watch(&self.target, &options).await?)
            }
        };
        let Some(event) = stream.next().await.transpose()? else {
            return Ok(None);
        };
        self.resource_version = Some(match &event {
            WatchEvent::Added(o) | WatchEvent::Modified(o) | WatchEvent::Deleted(o) => {
                o.resource_version().to_owned()
            }
            WatchEvent::Bookmark { resource_version } => resource_version.clone(),
        });
        Ok(Some(Step::Event(event)))
    }

    async fn fail(&mut self, status: Status) {
        self.stream = None;
        if status.is_expired() {
            // History is gone; what happened meanwhile shows in a new list.
            self.resource_version = None;
            return;
        }
        let wait = self.backoff.next();
        tracing::warn!(resource = %self.target.resource, ?wait, "watch failed, trying again: {status}");
        tokio::time::sleep(wait).await;
    }
}

//! The state as an `Api`.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use skiff_client::api::*;
use skiff_proto::{Object, Status};

use super::state::selects;
use super::{FakeApi, served};

fn refused() -> Status {
    Status::internal("not served by this test")
}

impl FakeApi {
    fn write<T>(&self, write: impl FnOnce(&mut super::State) -> T) -> T {
        let result = write(&mut self.state.lock().expect("not poisoned"));
        self.changed.notify_waiters();
        result
    }

    fn read<T>(&self, read: impl FnOnce(&super::State) -> T) -> T {
        read(&self.state.lock().expect("not poisoned"))
    }
}

/// One watcher: where it is in the history.
struct Cursor {
    api: Arc<FakeApi>,
    at: usize,
    target: Target,
    options: ListOptions,
}

impl Cursor {
    async fn next(mut self) -> Option<(Result<WatchEvent>, Self)> {
        loop {
            let api = self.api.clone();
            let changed = api.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let next = api.read(|state| state.history.get(self.at).cloned());
            let Some((plural, event)) = next else {
                changed.await;
                continue;
            };
            self.at += 1;
            let (WatchEvent::Added(o) | WatchEvent::Modified(o) | WatchEvent::Deleted(o)) = &event
            else {
                continue;
            };
            if plural == self.target.resource.plural && selects(&self.target, &self.options, o) {
                if !self.api.lag.is_zero() {
                    tokio::time::sleep(self.api.lag).await;
                }
                return Some((Ok(event), self));
            }
        }
    }
}

#[async_trait]
impl Api for FakeApi {
    async fn version(&self) -> Result<VersionInfo> {
        Err(refused())
    }

    async fn discover(&self) -> Result<Vec<ResourceInfo>> {
        let info = |(resource, kind, namespaced): (_, &str, bool)| ResourceInfo {
            resource,
            kind: kind.into(),
            singular: kind.to_lowercase(),
            short_names: vec![],
            categories: vec![],
            namespaced,
            verbs: ["create", "delete", "deletecollection", "get", "list", "update", "watch"]
                .map(String::from)
                .to_vec(),
            subresources: vec![],
        };
        Ok(served().into_iter().map(info).collect())
    }

    async fn get(&self, target: &Target) -> Result<Arc<Object>> {
        self.read(|state| state.get(target))
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> Result<List> {
        let (items, version) =
            self.read(|state| (state.select(target, options), state.version.to_string()));
        Ok(List { items, resource_version: version, ..List::default() })
    }

    async fn watch(&self, target: &Target, options: &WatchOptions) -> Result<WatchStream> {
        let from: u64 = options.resource_version.parse().expect("a listed version");
        let version = |event: &WatchEvent| match event {
            WatchEvent::Added(o) | WatchEvent::Modified(o) | WatchEvent::Deleted(o) => {
                o.resource_version().parse().unwrap_or(0)
            }
            WatchEvent::Bookmark { .. } => 0,
        };
        let at =
            self.read(|state| state.history.iter().filter(|(_, e)| version(e) <= from).count());
        let selection = ListOptions {
            fields: options.fields.clone(),
            labels: options.labels.clone(),
            ..ListOptions::default()
        };
        let api = self.this.upgrade().expect("alive while it is called");
        let cursor = Cursor { api, at, target: target.clone(), options: selection };
        Ok(futures_util::stream::unfold(cursor, Cursor::next).boxed())
    }

    async fn create(&self, target: &Target, json: Bytes, _: &WriteOptions) -> Result<Arc<Object>> {
        let value = serde_json::from_slice(&json).expect("JSON");
        self.write(|state| state.create(target, value))
    }

    async fn update(&self, target: &Target, json: Bytes, _: &WriteOptions) -> Result<Arc<Object>> {
        let value = serde_json::from_slice(&json).expect("JSON");
        self.write(|state| state.update(target, value))
    }

    async fn patch(&self, _: &Target, _: Patch, _: &WriteOptions) -> Result<Arc<Object>> {
        Err(refused())
    }

    async fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<Deleted> {
        self.write(|state| state.delete(target, options))
    }

    async fn delete_collection(
        &self,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<Vec<Arc<Object>>> {
        let all = self.read(|state| state.select(target, list));
        for object in &all {
            let target = Target::of(&target.resource, object);
            let _ = self.write(|state| state.delete(&target, options));
        }
        Ok(all)
    }

    async fn logs(&self, _: &Target, _: &LogOptions) -> Result<ByteStream> {
        Err(refused())
    }

    async fn exec(
        &self,
        _: &Target,
        _: &ExecOptions,
        _: ExecInputStream,
    ) -> Result<ExecOutputStream> {
        Err(refused())
    }
}

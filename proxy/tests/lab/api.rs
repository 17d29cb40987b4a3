//! An API server of two collections, in memory: list, and watch from any revision with nothing lost.

#![allow(clippy::result_large_err)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use skiff_client::*;
use skiff_proto::{Object, Status};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

type Sender = mpsc::UnboundedSender<Result<WatchEvent>>;

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<(String, String), Arc<Object>>,
    log: Vec<(u64, String, WatchEvent)>,
    watches: Vec<(String, Sender)>,
}

/// The fake. `hold` keeps a collection's list from answering, as a slow server would.
pub struct FakeApi {
    state: Mutex<State>,
    held: watch::Sender<Option<&'static str>>,
}

impl FakeApi {
    pub fn new() -> Arc<FakeApi> {
        Arc::new(FakeApi { state: Mutex::default(), held: watch::Sender::new(None) })
    }

    pub fn hold(&self, collection: Option<&'static str>) {
        self.held.send_replace(collection);
    }

    pub fn apply(&self, objects: &[Value]) {
        objects.iter().for_each(|object| self.put(object.clone()));
    }

    fn put(&self, mut object: Value) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.revision += 1;
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        let collection =
            if object["kind"] == "Service" { "services" } else { "endpointslices" }.to_owned();
        let object = Arc::new(Object::from_json(Bytes::from(object.to_string())).unwrap());
        let key = (collection.clone(), object.name().to_owned());
        let event = match state.objects.insert(key, object.clone()) {
            Some(_) => WatchEvent::Modified(object),
            None => WatchEvent::Added(object),
        };
        state.tell(collection, event);
    }

    pub fn delete(&self, collection: &str, name: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.revision += 1;
        let object = state.objects.remove(&(collection.to_owned(), name.to_owned())).unwrap();
        let mut value: Value = serde_json::from_slice(&object.json).unwrap();
        value["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        let object = Arc::new(Object::from_json(Bytes::from(value.to_string())).unwrap());
        state.tell(collection.to_owned(), WatchEvent::Deleted(object));
    }
}

impl State {
    fn tell(&mut self, collection: String, event: WatchEvent) {
        self.log.push((self.revision, collection.clone(), event.clone()));
        self.watches
            .retain(|(of, watch)| *of != collection || watch.send(Ok(event.clone())).is_ok());
    }
}

fn not_here<T>() -> Result<T> {
    Err(Status::bad_request("the fake only lists and watches"))
}

#[async_trait]
impl Api for FakeApi {
    async fn version(&self) -> Result<VersionInfo> {
        not_here()
    }

    async fn discover(&self) -> Result<Vec<ResourceInfo>> {
        not_here()
    }

    async fn get(&self, _: &Target) -> Result<Arc<Object>> {
        not_here()
    }

    async fn list(&self, target: &Target, _: &ListOptions) -> Result<List> {
        let plural = target.resource.plural.to_string();
        let mut held = self.held.subscribe();
        let _ = held.wait_for(|held| held.is_none_or(|held| held != plural)).await;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let of = state.objects.iter().filter(|((collection, _), _)| *collection == plural);
        Ok(List {
            items: of.map(|(_, object)| object.clone()).collect(),
            resource_version: state.revision.to_string(),
            ..List::default()
        })
    }

    async fn watch(&self, target: &Target, options: &WatchOptions) -> Result<WatchStream> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let plural = target.resource.plural.to_string();
        let from: u64 = options.resource_version.parse().unwrap();
        let (sender, receiver) = mpsc::unbounded_channel();
        for (revision, collection, event) in &state.log {
            if *revision > from && *collection == plural {
                let _ = sender.send(Ok(event.clone()));
            }
        }
        state.watches.push((plural, sender));
        Ok(Box::pin(UnboundedReceiverStream::new(receiver)))
    }

    async fn create(&self, _: &Target, _: Bytes, _: &WriteOptions) -> Result<Arc<Object>> {
        not_here()
    }

    async fn update(&self, _: &Target, _: Bytes, _: &WriteOptions) -> Result<Arc<Object>> {
        not_here()
    }

    async fn patch(&self, _: &Target, _: Patch, _: &WriteOptions) -> Result<Arc<Object>> {
        not_here()
    }

    async fn delete(&self, _: &Target, _: &DeleteOptions) -> Result<Deleted> {
        not_here()
    }

    async fn delete_collection(
        &self,
        _: &Target,
        _: &ListOptions,
        _: &DeleteOptions,
    ) -> Result<Vec<Arc<Object>>> {
        not_here()
    }

    async fn logs(&self, _: &Target, _: &LogOptions) -> Result<ByteStream> {
        not_here()
    }

    async fn exec(
        &self,
        _: &Target,
        _: &ExecOptions,
        _: ExecInputStream,
    ) -> Result<ExecOutputStream> {
        not_here()
    }
}

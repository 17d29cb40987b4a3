//! The state as an `Api`.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use skiff_proto::{Object, Status};

use super::objects::{Selection, State, object, served};
use super::writes::not_served;
use super::{FakeApi, SERVED, Served};
use crate::api::*;

fn refused(what: &str) -> Status {
    Status::bad_request(format!("the fake API server does not serve {what}"))
}

fn parse(json: &Bytes) -> Result<Value> {
    let parsed = serde_json::from_slice(json);
    parsed.map_err(|error| Status::bad_request(format!("error decoding the request body: {error}")))
}

fn info(served: &Served) -> ResourceInfo {
    let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    ResourceInfo {
        resource: served.resource.clone(),
        kind: served.kind.into(),
        singular: served.kind.to_lowercase(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: served.namespaced,
        verbs: verbs.map(String::from).to_vec(),
        subresources: served.has_status.then(|| "status".to_owned()).into_iter().collect(),
    }
}

impl FakeApi {
    /// A dry run answers as a write does, and changes nothing.
    fn run<T>(&self, dry_run: bool, write: impl FnOnce(&mut State) -> T) -> T {
        if dry_run { write(&mut self.read(State::clone)) } else { self.write(write) }
    }

    fn selection(&self, target: &Target, options: &ListOptions) -> Result<Selection> {
        served(&target.resource)?;
        let (labels, fields) = (options.labels.clone(), options.fields.clone());
        Ok(Selection { target: target.clone(), labels, fields })
    }
}

#[async_trait]
impl Api for FakeApi {
    async fn version(&self) -> Result<VersionInfo> {
        Ok(VersionInfo::default())
    }

    async fn discover(&self) -> Result<Vec<ResourceInfo>> {
        Ok(SERVED.iter().map(info).collect())
    }

    async fn get(&self, target: &Target) -> Result<Arc<Object>> {
        self.admit("get", target)?;
        let served = served(&target.resource)?;
        match target.subresource.as_str() {
            "" => {}
            "status" if served.has_status => {}
            "scale" => return Err(refused("scales")),
            _ => return Err(not_served()),
        }
        self.read(|state| state.value(target)).map(|value| object(&value))
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> Result<List> {
        self.admit("list", target)?;
        self.released(&target.resource).await;
        if options.limit != 0 || !options.continue_token.is_empty() {
            return Err(refused("lists in pages"));
        }
        let selection = self.selection(target, options)?;
        let (items, version) =
            self.read(|state| (state.select(&selection), state.revision.to_string()));
        Ok(List { items, resource_version: version, ..List::default() })
    }

    async fn watch(&self, target: &Target, options: &WatchOptions) -> Result<WatchStream> {
        self.admit("watch", target)?;
        let (labels, fields) = (options.labels.clone(), options.fields.clone());
        self.follow(Selection { target: target.clone(), labels, fields }, options)
    }

    async fn create(
        &self,
        target: &Target,
        json: Bytes,
        options: &WriteOptions,
    ) -> Result<Arc<Object>> {
        self.admit("create", target)?;
        let value = parse(&json)?;
        self.run(options.dry_run, |state| match target.subresource.as_str() {
            "" => state.create(target, value),
            "binding" => state.bind(target, &value),
            "eviction" => {
                let deleted = state.delete(target, &DeleteOptions::default())?;
                let (Deleted::Gone(pod) | Deleted::Terminating(pod)) = deleted;
                Ok(pod)
            }
            _ => Err(not_served()),
        })
    }

    async fn update(
        &self,
        target: &Target,
        json: Bytes,
        options: &WriteOptions,
    ) -> Result<Arc<Object>> {
        self.admit("update", target)?;
        let value = parse(&json)?;
        self.run(options.dry_run, |state| state.update(target, value))
    }

    async fn patch(
        &self,
        target: &Target,
        patch: Patch,
        options: &WriteOptions,
    ) -> Result<Arc<Object>> {
        self.admit("patch", target)?;
        self.run(options.dry_run, |state| state.patch(target, patch))
    }

    async fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<Deleted> {
        self.admit("delete", target)?;
        self.run(options.dry_run, |state| state.delete(target, options))
    }

    async fn delete_collection(
        &self,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<Vec<Arc<Object>>> {
        self.admit("deletecollection", target)?;
        let selection = self.selection(target, list)?;
        self.run(options.dry_run, |state| {
            let mut deleted = Vec::new();
            for object in state.select(&selection) {
                let target = Target::of(&target.resource, &object);
                let (Deleted::Gone(object) | Deleted::Terminating(object)) =
                    state.delete(&target, options)?;
                deleted.push(object);
            }
            Ok(deleted)
        })
    }

    async fn logs(&self, _: &Target, _: &LogOptions) -> Result<ByteStream> {
        Err(refused("logs"))
    }

    async fn exec(
        &self,
        _: &Target,
        _: &ExecOptions,
        _: ExecInputStream,
    ) -> Result<ExecOutputStream> {
        Err(refused("exec"))
    }
}

//! The API as one user has it: every call is authorized first, then goes to the core. No
//! socket and no copy lies between a component in this process and the shared objects.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use skiff_client::{
    Api, ByteStream, DeleteOptions, Deleted, ExecInputStream, ExecOptions, ExecOutputStream, List,
    ListOptions, LogOptions, Patch, ResourceInfo, Result, Target, VersionInfo, WatchOptions,
    WatchStream, WriteOptions,
};
use skiff_proto::resource::{NAMESPACES, PODS};
use skiff_proto::selector::FieldTerm;
use skiff_proto::status::reason;
use skiff_proto::{FieldSelector, Object, Status};

use super::Core;
use super::stored::Place;
use super::update::Face;
use crate::authn::User;
use crate::authz::{self, Attributes};
use crate::registry::{self, Kind};

/// Deletes of one collection that are under way at once.
const PARALLEL_DELETES: usize = 8;

/// The core in one user's hands.
#[derive(Clone)]
pub struct Caller {
    core: Arc<Core>,
    user: Arc<User>,
}

impl Caller {
    pub fn new(core: Arc<Core>, user: Arc<User>) -> Self {
        Self { core, user }
    }

    pub fn user(&self) -> &User {
        &self.user
    }

    /// Finds the kind and asks the authorizer.
    fn admit(&self, verb: &str, target: &Target) -> Result<&'static Kind> {
        let attributes = Attributes {
            verb,
            resource: &target.resource,
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &target.name,
        };
        authz::check(&*self.core.config().authorizer, &self.user, &attributes)?;
        self.core.kind(&target.resource)
    }

    fn admit_one<'a>(&self, verb: &str, target: &'a Target) -> Result<Place<'a>> {
        let kind = self.admit(verb, target)?;
        if target.name.is_empty() {
            return Err(Status::bad_request("a name is required"));
        }
        if kind.namespaced && target.namespace.is_empty() {
            return Err(Status::bad_request("a namespace is required"));
        }
        let namespace = if kind.namespaced { target.namespace.as_str() } else { "" };
        Ok(Place { kind, namespace, name: &target.name })
    }

    fn face(&self, kind: &Kind, subresource: &str) -> Result<Face> {
        let served = subresource.is_empty() || kind.subresources.contains(&subresource);
        match subresource {
            "finalize" if kind.resource == NAMESPACES => Ok(Face::Finalize),
            "" => Ok(Face::Main),
            "status" if served => Ok(Face::Status),
            _ => Err(no_subresource()),
        }
    }
}

fn no_subresource() -> Status {
    Status::new(reason::NOT_FOUND, "the server could not find the requested resource")
}

/// The namespace of a request, which cluster-scoped kinds do not have.
fn scope<'a>(kind: &Kind, target: &'a Target) -> &'a str {
    if kind.namespaced { &target.namespace } else { "" }
}

/// A collection's selection; a name in the target narrows it.
fn with_name(fields: &FieldSelector, name: &str) -> FieldSelector {
    let mut fields = fields.clone();
    if !name.is_empty() {
        fields.terms.push(FieldTerm {
            path: "metadata.name".into(),
            value: name.into(),
            negated: false,
        });
    }
    fields
}

#[async_trait]
impl Api for Caller {
    async fn version(&self) -> Result<VersionInfo> {
        Ok(self.core.config().version.clone())
    }

    async fn discover(&self) -> Result<Vec<ResourceInfo>> {
        Ok(registry::kinds().iter().map(|kind| info(kind)).collect())
    }

    async fn get(&self, target: &Target) -> Result<Arc<Object>> {
        let place = self.admit_one("get", target)?;
        let served = place.kind.subresources.contains(&target.subresource.as_str());
        match target.subresource.as_str() {
            "" => {}
            "status" if served => {}
            "scale" if served => return self.core.get_scale(place).await,
            _ => return Err(no_subresource()),
        }
        Ok(self.core.read(place).await?.object.clone())
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> Result<List> {
        let kind = self.admit("list", target)?;
        if target.name.is_empty() {
            return self.core.list(kind, scope(kind, target), options).await;
        }
        let fields = with_name(&options.fields, &target.name);
        let options = ListOptions { fields, ..options.clone() };
        self.core.list(kind, scope(kind, target), &options).await
    }

    async fn watch(&self, target: &Target, options: &WatchOptions) -> Result<WatchStream> {
        let kind = self.admit("watch", target)?;
        let fields = with_name(&options.fields, &target.name);
        let options = WatchOptions { fields, ..options.clone() };
        self.core.watch(kind, scope(kind, target), &options).await
    }

    async fn create(
        &self,
        target: &Target,
        json: Bytes,
        options: &WriteOptions,
    ) -> Result<Arc<Object>> {
        if target.subresource.is_empty() {
            let kind = self.admit("create", target)?;
            return self.core.create(kind, scope(kind, target), &json, options).await;
        }
        let place = self.admit_one("create", target)?;
        match target.subresource.as_str() {
            "binding" if place.kind.resource == PODS => self.core.bind(place, &json, options).await,
            "eviction" if place.kind.resource == PODS => {
                self.core.evict(place, &json, options).await
            }
            _ => Err(no_subresource()),
        }
    }

    async fn update(
        &self,
        target: &Target,
        json: Bytes,
        options: &WriteOptions,
    ) -> Result<Arc<Object>> {
        let place = self.admit_one("update", target)?;
        if target.subresource == "scale" && place.kind.subresources.contains(&"scale") {
            return self.core.update_scale(place, &json, options).await;
        }
        let face = self.face(place.kind, &target.subresource)?;
        self.core.update(place, face, &json, options).await
    }

    async fn patch(
        &self,
        target: &Target,
        patch: Patch,
        options: &WriteOptions,
    ) -> Result<Arc<Object>> {
        let place = self.admit_one("patch", target)?;
        if target.subresource == "scale" && place.kind.subresources.contains(&"scale") {
            return self.core.patch_scale(place, &patch, options).await;
        }
        let face = self.face(place.kind, &target.subresource)?;
        self.core.patch(place, face, &patch, options).await
    }

    async fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<Deleted> {
        let place = self.admit_one("delete", target)?;
        self.core.delete(place, options).await
    }

    async fn delete_collection(
        &self,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<Vec<Arc<Object>>> {
        use futures_util::{StreamExt, TryStreamExt};

        let kind = self.admit("deletecollection", target)?;
        let listed = self.core.list(kind, scope(kind, target), list).await?.items;
        let deletes = listed.into_iter().map(|object| async move {
            let place = Place { kind, namespace: object.namespace(), name: object.name() };
            match self.core.delete(place, options).await {
                Ok(Deleted::Gone(object) | Deleted::Terminating(object)) => Ok(Some(object)),
                // Somebody else was faster, which is what was asked for.
                Err(status) if status.is_not_found() => Ok(None),
                Err(status) => Err(status),
            }
        });
        let deleted: Vec<Option<Arc<Object>>> =
            futures_util::stream::iter(deletes).buffered(PARALLEL_DELETES).try_collect().await?;
        Ok(deleted.into_iter().flatten().collect())
    }

    async fn logs(&self, target: &Target, options: &LogOptions) -> Result<ByteStream> {
        let place = self.admit_one("get", &target.clone().subresource("log"))?.name.to_owned();
        self.core.logs(&target.namespace, &place, options).await
    }

    async fn exec(
        &self,
        target: &Target,
        options: &ExecOptions,
        input: ExecInputStream,
    ) -> Result<ExecOutputStream> {
        let place = self.admit_one("create", &target.clone().subresource("exec"))?.name.to_owned();
        self.core.exec(&target.namespace, &place, options, input).await
    }
}

fn info(kind: &Kind) -> ResourceInfo {
    let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    ResourceInfo {
        resource: kind.resource.clone(),
        kind: kind.kind.into(),
        singular: kind.singular.into(),
        short_names: owned(kind.short_names),
        categories: owned(kind.categories),
        namespaced: kind.namespaced,
        verbs: owned(registry::VERBS),
        subresources: owned(kind.subresources),
    }
}

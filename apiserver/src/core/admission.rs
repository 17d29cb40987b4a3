//! What must hold beyond the object itself before it is made: its namespace is there and
//! stays, its service account exists.

use std::sync::Arc;

use serde_json::Value;
use skiff_proto::resource::{NAMESPACES, PODS, SERVICE_ACCOUNTS};
use skiff_proto::status::{Cause, Details};
use skiff_proto::{Status, resource};

use super::Core;
use super::stored::{Place, namespace_guard};
use crate::cache::Entry;
use crate::registry::{Kind, admission};
use crate::storage::Guard;

impl Core {
    /// Refuses what cannot live in the namespace. The guard makes the write fail if the
    /// namespace changes before it: nothing is made in a namespace that is going away.
    pub(super) async fn admit_namespace(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Guard>, Status> {
        if namespace.is_empty() {
            return Ok(None);
        }
        let entry = self.lookup(&NAMESPACES, "", namespace).await?;
        let entry = entry.ok_or_else(|| Status::not_found(&NAMESPACES, namespace))?;
        if entry.object.is_terminating() {
            return Err(terminating(kind, namespace, name));
        }
        Ok(Some(namespace_guard(namespace, entry.revision)))
    }

    /// What a kind needs from other objects.
    pub(super) async fn admit_create(
        &self,
        kind: &'static Kind,
        object: &mut Value,
    ) -> Result<(), Status> {
        if kind.resource == PODS {
            admission::admit_pod(object)?;
            self.admit_service_account(object).await?;
        }
        Ok(())
    }

    /// A pod runs as a service account that exists.
    async fn admit_service_account(&self, pod: &Value) -> Result<(), Status> {
        let namespace = super::meta::text(pod, "namespace").to_owned();
        let account = pod.pointer("/spec/serviceAccountName").and_then(Value::as_str);
        let account = account.unwrap_or("default").to_owned();
        if self.lookup(&SERVICE_ACCOUNTS, &namespace, &account).await?.is_none() {
            let name = super::meta::text(pod, "name");
            let why = format!(
                "error looking up service account {namespace}/{account}: serviceaccount {account:?} not found"
            );
            return Err(Status::forbidden(&resource::PODS, name, &why));
        }
        Ok(())
    }

    /// An object from the cache; only a miss waits for the newest state.
    pub(super) async fn lookup(
        &self,
        resource: &skiff_proto::Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Entry>>, Status> {
        let place = Place { kind: self.kind(resource)?, namespace, name };
        let cache = self.hub.cache(place.kind).await?;
        match cache.get(&place.path()) {
            Some(entry) => Ok(Some(entry)),
            None => {
                self.hub.fresh().await?;
                Ok(cache.get(&place.path()))
            }
        }
    }
}

fn terminating(kind: &Kind, namespace: &str, name: &str) -> Status {
    let why = format!(
        "unable to create new content in namespace {namespace} because it is being terminated"
    );
    let mut status = Status::forbidden(&kind.resource, name, &why);
    let details = status.details.get_or_insert_with(|| Box::new(Details::default()));
    details.causes.push(Cause {
        reason: "NamespaceTerminating".into(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".into(),
    });
    status
}

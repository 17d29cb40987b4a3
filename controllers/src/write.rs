//! Writes to the API with the operation and object kept for the error. Objects are edited
//! as JSON, so that fields unknown to the typed models survive.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use skiff_client::{Api, DeleteOptions, Deleted, FieldValidation, Target, WriteOptions};
use skiff_proto::status::reason;
use skiff_proto::{Object, ObjectKey, Resource, Status};

/// What kept a reconcile from finishing. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("cannot {operation} {resource} {object}")]
    Api {
        operation: &'static str,
        resource: Resource,
        object: String,
        #[source]
        status: Box<Status>,
    },
    #[error("{resource} {object} cannot be read as JSON")]
    Json {
        resource: Resource,
        object: String,
        #[source]
        error: serde_json::Error,
    },
    #[error("selector of {object}")]
    Selector {
        object: ObjectKey,
        #[source]
        error: skiff_proto::selector::SelectorError,
    },
    /// Something else has to happen first. Its event brings the key back; the retry is for
    /// an event that a broken watch has swallowed.
    #[error("waiting for {0}")]
    Waiting(String),
}

pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Api { status, .. } => Some(status),
            _ => None,
        }
    }

    /// Others wrote first, or the cache is behind: worth a retry, not a warning.
    pub fn is_race(&self) -> bool {
        match self {
            Self::Api { status, .. } => {
                status.is_conflict() || status.is_not_found() || status.is_already_exists()
            }
            Self::Waiting(_) => true,
            _ => false,
        }
    }

    /// Creating in a namespace that is going away fails for good.
    pub fn is_namespace_terminating(&self) -> bool {
        self.status().is_some_and(namespace_terminating)
    }
}

fn namespace_terminating(status: &Status) -> bool {
    let cause = status
        .details
        .as_ref()
        .is_some_and(|d| d.causes.iter().any(|c| c.reason == "NamespaceTerminating"));
    cause || status.is(reason::FORBIDDEN) && status.message.contains("is being terminated")
}

/// An error with its sources in one line.
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(source) = next {
            write!(f, ": {source}")?;
            next = source.source();
        }
        Ok(())
    }
}

/// The API as controllers write to it.
#[derive(Clone)]
pub struct Writer {
    pub api: Arc<dyn Api>,
}

impl Writer {
    pub fn new(api: Arc<dyn Api>) -> Self {
        Self { api }
    }

    pub async fn get(&self, target: &Target) -> Result<Arc<Object>> {
        self.api.get(target).await.map_err(|status| failed("get", target, status))
    }

    /// `None` when it is not there.
    pub async fn find(&self, target: &Target) -> Result<Option<Arc<Object>>> {
        match self.api.get(target).await {
            Ok(object) => Ok(Some(object)),
            Err(status) if status.is_not_found() => Ok(None),
            Err(status) => Err(failed("get", target, status)),
        }
    }

    pub async fn create(
        &self,
        resource: &Resource,
        namespace: &str,
        object: &Value,
    ) -> Result<Arc<Object>> {
        let target = Target::all(resource, namespace);
        let json = Bytes::from(object.to_string());
        self.api.create(&target, json, &lenient()).await.map_err(|status| {
            let mut named = target.clone();
            let meta = &object["metadata"];
            let name = meta["name"].as_str().or(meta["generateName"].as_str());
            named.name = name.unwrap_or_default().to_owned();
            failed("create", &named, status)
        })
    }

    /// Edits the object as it was observed; a conflict means that others were faster.
    pub async fn update(
        &self,
        resource: &Resource,
        observed: &Object,
        edit: impl FnOnce(&mut Value),
    ) -> Result<Arc<Object>> {
        self.update_at(Target::of(resource, observed), observed, edit).await
    }

    pub async fn update_status(
        &self,
        resource: &Resource,
        observed: &Object,
        edit: impl FnOnce(&mut Value),
    ) -> Result<Arc<Object>> {
        let target = Target::of(resource, observed).subresource("status");
        self.update_at(target, observed, edit).await
    }

    pub async fn update_at(
        &self,
        target: Target,
        observed: &Object,
        edit: impl FnOnce(&mut Value),
    ) -> Result<Arc<Object>> {
        let mut value: Value = observed.parse().map_err(|error| Failure::Json {
            resource: target.resource.clone(),
            object: observed.key().to_string(),
            error,
        })?;
        edit(&mut value);
        let json = Bytes::from(value.to_string());
        let updated = self.api.update(&target, json, &lenient()).await;
        updated.map_err(|status| failed("update", &target, status))
    }

    /// Deletes exactly this object: one of the same name that came later stays.
    /// `None` when it was gone already.
    pub async fn delete(
        &self,
        target: &Target,
        uid: &str,
        options: DeleteOptions,
    ) -> Result<Option<Deleted>> {
        let options = DeleteOptions { uid: uid.into(), ..options };
        match self.api.delete(target, &options).await {
            Ok(deleted) => Ok(Some(deleted)),
            Err(status) if status.is_not_found() => Ok(None),
            Err(status) => Err(failed("delete", target, status)),
        }
    }
}

/// An object that was stored by a newer server may have fields unknown to this one: that
/// must not keep its other fields from being written.
fn lenient() -> WriteOptions {
    WriteOptions { field_validation: FieldValidation::Ignore, ..WriteOptions::default() }
}

fn failed(operation: &'static str, target: &Target, status: Status) -> Failure {
    let object = ObjectKey::new(&*target.namespace, &*target.name).to_string();
    let resource = target.resource.clone();
    Failure::Api { operation, resource, object, status: Box::new(status) }
}

/// Sets `metadata.<field>.<key>`, making the maps on the way.
pub fn set_meta(object: &mut Value, field: &str, key: &str, value: &str) {
    object["metadata"][field][key] = Value::from(value);
}

/// Drops one finalizer.
pub fn remove_finalizer(object: &mut Value, finalizer: &str) {
    let finalizers = object.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut);
    if let Some(finalizers) = finalizers {
        finalizers.retain(|f| f != finalizer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_name_the_operation_and_the_object() {
        let target = Target::one(&skiff_proto::resource::PODS, "shop", "web-1");
        let status = Status::not_found(&target.resource, "web-1");
        let failure = failed("delete", &target, status);
        assert_eq!(
            Chain(&failure).to_string(),
            r#"cannot delete v1/pods shop/web-1: pods "web-1" not found"#
        );
        assert!(failure.is_race());
    }

    #[test]
    fn a_terminating_namespace_is_recognised() {
        let pods = skiff_proto::resource::PODS;
        let why = "unable to create new content in namespace shop because it is being terminated";
        let status = Status::forbidden(&pods, "web-1", why);
        assert!(failed("create", &Target::all(&pods, "shop"), status).is_namespace_terminating());
    }

    #[test]
    fn metadata_is_edited_in_place() {
        let mut object = json!({"metadata": {"finalizers": ["a", "b"]}});
        set_meta(&mut object, "annotations", "k", "v");
        remove_finalizer(&mut object, "a");
        assert_eq!(object, json!({"metadata": {"finalizers": ["b"], "annotations": {"k": "v"}}}));
    }
}

//! What only pods have: binding to a node, and eviction.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};
use skiff_client::{DeleteOptions, Deleted, Propagation, WriteOptions};
use skiff_proto::{Object, Status, Timestamp};

use super::Core;
use super::service::Claims;
use super::stored::{Next, Place};
use crate::registry::binding::Binding;

impl Core {
    /// `pods/NAME/binding`: the scheduler's decision. Answers with the pod.
    pub(super) async fn bind(
        &self,
        place: Place<'_>,
        json: &[u8],
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let binding = Binding::decode(json, options.field_validation)?;
        let changed = self.change(place, options.dry_run, |seen| {
            let mut pod = seen.value.clone();
            binding.apply(&mut pod, Timestamp::seconds(SystemTime::now()))?;
            Ok(Next::Put(pod, Claims::default()))
        });
        Ok(changed.await?.object)
    }

    /// `pods/NAME/eviction`: a delete that budgets may refuse. Answers with the pod.
    pub(super) async fn evict(
        &self,
        place: Place<'_>,
        json: &[u8],
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let body = decode(json)?;
        let asked = body.get("deleteOptions").cloned().unwrap_or_else(|| json!({}));
        let text = |pointer: &str| {
            asked.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let delete = DeleteOptions {
            grace_period_seconds: asked.get("gracePeriodSeconds").and_then(Value::as_i64),
            propagation: Propagation::Default,
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            dry_run: options.dry_run || asked.get("dryRun") == Some(&json!(["All"])),
        };
        let (Deleted::Gone(pod) | Deleted::Terminating(pod)) = self.delete(place, &delete).await?;
        Ok(pod)
    }
}

fn decode(json: &[u8]) -> Result<Value, Status> {
    let body: Value = serde_json::from_slice(json).map_err(|error| {
        Status::bad_request(format!("error decoding the request body: {error}"))
    })?;
    if body.is_object() {
        Ok(body)
    } else {
        Err(Status::bad_request("the request body must be an object"))
    }
}

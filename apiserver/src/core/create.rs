//! Making objects.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::Value;
use skiff_client::WriteOptions;
use skiff_proto::{Object, Status, Timestamp};

use super::service::{self, Claims, Taken};
use super::stored::Place;
use super::{Core, meta};
use crate::cache::Prepared;
use crate::registry::Kind;
use crate::storage::{Guard, Outcome, Write, commit};

/// Tries with another generated name, another address, or the namespace as it is now.
const MAX_ATTEMPTS: usize = 64;
/// Tries at random before all taken addresses are read.
const BLIND_ATTEMPTS: usize = 3;

impl Core {
    pub(super) async fn create(
        &self,
        kind: &'static Kind,
        namespace: &str,
        json: &[u8],
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let (mut object, warnings) = kind.decode(json, options.field_validation)?;
        super::update::log_warnings(kind, &warnings);
        check_namespace(kind, &mut object, namespace)?;
        let generated = name_object(&mut object);
        complete_metadata(kind, &mut object)?;
        kind.apply_defaults(&mut object);
        kind.strategy.prepare_for_create(&mut object);
        self.admit_create(kind, &mut object).await?;
        validate(kind, &object)?;

        // A Service may have to be tried with other addresses: from what it was without any.
        let pristine = service::is_service(kind).then(|| object.clone());
        for attempt in 0..MAX_ATTEMPTS {
            if attempt > 0 {
                if let Some(pristine) = &pristine {
                    object = pristine.clone();
                }
                if let Some(base) = &generated {
                    meta::set(&mut object, "name", meta::generate_name(base));
                }
            }
            let name = meta::text(&object, "name").to_owned();
            let guard = self.admit_namespace(kind, namespace, &name).await?;
            let claims = match pristine {
                Some(_) => self.claim(kind, &mut object, attempt).await?,
                None => Claims::default(),
            };
            let prepared = Arc::new(Prepared::new(kind, &object).map_err(Status::internal)?);
            let place = Place { kind, namespace, name: &name };
            if options.dry_run {
                return self.dry_create(place, &prepared).await;
            }
            match self.try_create(place, prepared, guard, &claims).await? {
                Some(created) => return Ok(created),
                None if generated.is_some() => {}
                // The namespace moved, or an address was taken: see how things are now.
                None => drop(self.hub.fresh().await?),
            }
        }
        Err(Status::unavailable(format!(
            "{} could not be created: too many others were faster, try again",
            kind.resource.group_resource()
        )))
    }

    async fn claim(
        &self,
        kind: &Kind,
        object: &mut Value,
        attempt: usize,
    ) -> Result<Claims, Status> {
        let taken = if attempt < BLIND_ATTEMPTS { Taken::new() } else { self.taken().await? };
        let assigned = self.addresses().assign(object, None, &taken);
        assigned.map_err(|refusal| refusal.status(kind, meta::text(object, "name")))
    }

    /// `None`: something was in the way that another try may pass.
    async fn try_create(
        &self,
        place: Place<'_>,
        object: Arc<Prepared>,
        namespace: Option<Guard>,
        claims: &Claims,
    ) -> Result<Option<Arc<Object>>, Status> {
        let cache = self.hub.cache(place.kind).await?;
        let guarded = usize::from(namespace.is_some());
        let write = Write {
            key: Bytes::from([cache.prefix.as_str(), &place.path()].concat()),
            expected: 0,
            object: Some(object),
            lease: self.lease(place.kind).await?,
            guards: namespace.into_iter().chain(claims.guards()).collect(),
            beside: claims.beside(),
        };
        match commit(&*self.kv, &self.hub, write).await? {
            Outcome::Done { entry, .. } => Ok(entry.map(|e| e.object.clone())),
            Outcome::Lost { object: Some(_), .. } => {
                Err(Status::already_exists(&place.kind.resource, place.name))
            }
            Outcome::Lost { object: None, guards } => {
                claims.lost(place.kind, place.name, guards.get(guarded..).unwrap_or_default())?;
                Ok(None)
            }
        }
    }

    async fn dry_create(
        &self,
        place: Place<'_>,
        prepared: &Prepared,
    ) -> Result<Arc<Object>, Status> {
        match self.read(place).await {
            Ok(_) => Err(Status::already_exists(&place.kind.resource, place.name)),
            Err(status) if status.is_not_found() => Ok(prepared.object()),
            Err(status) => Err(status),
        }
    }
}

/// The request's namespace counts; the object may repeat it.
pub fn check_namespace(kind: &Kind, object: &mut Value, namespace: &str) -> Result<(), Status> {
    if !kind.namespaced {
        meta::remove(object, "namespace");
        return Ok(());
    }
    if namespace.is_empty() {
        return Err(Status::bad_request("an empty namespace may not be set during creation"));
    }
    match meta::text(object, "namespace") {
        "" => meta::set(object, "namespace", namespace),
        given if given == namespace => {}
        _ => {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

/// Gives a name to an object that asks for one; returns the base for further tries.
fn name_object(object: &mut Value) -> Option<String> {
    if !meta::text(object, "name").is_empty() {
        return None;
    }
    let base = meta::text(object, "generateName").to_owned();
    if base.is_empty() {
        return None;
    }
    meta::set(object, "name", meta::generate_name(&base));
    Some(base)
}

/// The metadata that only the server sets.
fn complete_metadata(kind: &Kind, object: &mut Value) -> Result<(), Status> {
    let metadata = meta::of_mut(object);
    if metadata.get("resourceVersion").and_then(Value::as_str).is_some_and(|v| !v.is_empty()) {
        return Err(Status::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    for key in [
        "resourceVersion",
        "generation",
        "selfLink",
        "managedFields",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        metadata.remove(key);
    }
    // From this thread's generator: asking the kernel for each would cost a system call.
    let uid = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
    metadata.insert("uid".into(), Value::String(uid.to_string()));
    let now = Timestamp::seconds(SystemTime::now());
    metadata.insert("creationTimestamp".into(), Value::String(now.to_string()));
    if kind.strategy.tracks_generation() {
        metadata.insert("generation".into(), Value::from(1));
    }
    Ok(())
}

fn validate(kind: &Kind, object: &Value) -> Result<(), Status> {
    let errors = kind.strategy.validate_create(object);
    if errors.is_empty() { Ok(()) } else { Err(kind.invalid(meta::text(object, "name"), &errors)) }
}

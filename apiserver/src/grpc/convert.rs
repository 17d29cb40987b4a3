//! Between the wire's messages and the API's own types, in both directions where both are needed.

use std::borrow::Cow;

use skiff_client::{
    DeleteOptions, FieldValidation, LogOptions, Patch, Propagation, ResourceInfo, Target,
    WatchEvent,
};
use skiff_proto::grpc::api;
use skiff_proto::selector::SelectorError;
use skiff_proto::{FieldSelector, Resource, Selector, Status, WireObject};

use crate::registry;

/// The resource as the registry knows it; one that it does not know keeps its name for the error.
pub fn resource(wire: Option<api::Resource>) -> Result<Resource, Status> {
    let wire = wire.ok_or_else(|| Status::bad_request("a resource is required"))?;
    if let Some(kind) = registry::find(&wire.group, &wire.version, &wire.resource) {
        return Ok(kind.resource.clone());
    }
    Ok(Resource {
        group: Cow::Owned(wire.group),
        version: Cow::Owned(wire.version),
        plural: Cow::Owned(wire.resource),
    })
}

pub fn target(
    wire: Option<api::Resource>,
    namespace: String,
    name: String,
    subresource: String,
) -> Result<Target, Status> {
    Ok(Target { resource: resource(wire)?, namespace, name, subresource })
}

pub fn selectors(labels: &str, fields: &str) -> Result<(Selector, FieldSelector), Status> {
    let broken = |error: SelectorError| Status::bad_request(error.to_string());
    Ok((Selector::parse(labels).map_err(broken)?, FieldSelector::parse(fields).map_err(broken)?))
}

pub fn event(event: WatchEvent) -> api::WatchEvent {
    use api::watch_event::Type;
    let (kind, object) = match event {
        WatchEvent::Added(object) => (Type::Added, WireObject(object)),
        WatchEvent::Modified(object) => (Type::Modified, WireObject(object)),
        WatchEvent::Deleted(object) => (Type::Deleted, WireObject(object)),
        WatchEvent::Bookmark { resource_version } => {
            (Type::Bookmark, WireObject::version(resource_version))
        }
    };
    api::WatchEvent { r#type: kind.into(), object: Some(object) }
}

pub fn validation(wire: i32) -> FieldValidation {
    match api::FieldValidation::try_from(wire) {
        Ok(api::FieldValidation::Warn) => FieldValidation::Warn,
        Ok(api::FieldValidation::Ignore) => FieldValidation::Ignore,
        _ => FieldValidation::Strict,
    }
}

pub fn patch(kind: i32, patch: bytes::Bytes) -> Result<Patch, Status> {
    use api::patch_request::Type;
    match Type::try_from(kind) {
        Ok(Type::Json) => Ok(Patch::Json(patch)),
        Ok(Type::Merge) => Ok(Patch::Merge(patch)),
        Ok(Type::Strategic) => Ok(Patch::Strategic(patch)),
        _ => Err(Status::new(
            ("UnsupportedMediaType", 415),
            "the patch type must be JSON, MERGE or STRATEGIC",
        )),
    }
}

pub fn delete_options(wire: Option<api::DeleteOptions>) -> DeleteOptions {
    let wire = wire.unwrap_or_default();
    let propagation = match wire.propagation() {
        api::Propagation::Default => Propagation::Default,
        api::Propagation::Background => Propagation::Background,
        api::Propagation::Foreground => Propagation::Foreground,
        api::Propagation::Orphan => Propagation::Orphan,
    };
    DeleteOptions {
        grace_period_seconds: wire.grace_period_seconds,
        propagation,
        uid: wire.uid,
        resource_version: wire.resource_version,
        dry_run: wire.dry_run,
    }
}

pub fn log_options(container: String, wire: Option<api::LogOptions>) -> LogOptions {
    let wire = wire.unwrap_or_default();
    LogOptions {
        container,
        follow: wire.follow,
        previous: wire.previous,
        timestamps: wire.timestamps,
        tail_lines: wire.tail_lines,
        since_seconds: wire.since_seconds,
        since_time: wire.since_time,
        limit_bytes: wire.limit_bytes,
    }
}

pub fn resource_info(info: ResourceInfo) -> api::ResourceInfo {
    api::ResourceInfo {
        resource: Some(api::Resource {
            group: info.resource.group.into_owned(),
            version: info.resource.version.into_owned(),
            resource: info.resource.plural.into_owned(),
        }),
        kind: info.kind,
        singular: info.singular,
        short_names: info.short_names,
        categories: info.categories,
        namespaced: info.namespaced,
        verbs: info.verbs,
        subresources: info.subresources,
    }
}

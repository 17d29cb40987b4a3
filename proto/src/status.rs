//! `metav1.Status`: how Kubernetes says that a request failed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::resource::Resource;

/// A failed request. `code` is the HTTP code that upstream gives the `reason`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    pub api_version: String,
    pub kind: String,
    pub metadata: serde_json::Map<String, serde_json::Value>,
    pub status: String,
    pub message: String,
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<Details>>,
    pub code: u16,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource's plural, as upstream fills it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: i32,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            api_version: "v1".into(),
            kind: "Status".into(),
            metadata: serde_json::Map::new(),
            status: "Failure".into(),
            message: String::new(),
            reason: String::new(),
            details: None,
            code: 500,
        }
    }
}

/// Reasons of upstream's `metav1.StatusReason`, with the HTTP code each goes with.
pub mod reason {
    pub const BAD_REQUEST: (&str, u16) = ("BadRequest", 400);
    pub const UNAUTHORIZED: (&str, u16) = ("Unauthorized", 401);
    pub const FORBIDDEN: (&str, u16) = ("Forbidden", 403);
    pub const NOT_FOUND: (&str, u16) = ("NotFound", 404);
    pub const METHOD_NOT_ALLOWED: (&str, u16) = ("MethodNotAllowed", 405);
    pub const ALREADY_EXISTS: (&str, u16) = ("AlreadyExists", 409);
    pub const CONFLICT: (&str, u16) = ("Conflict", 409);
    pub const EXPIRED: (&str, u16) = ("Expired", 410);
    pub const INVALID: (&str, u16) = ("Invalid", 422);
    pub const TOO_MANY_REQUESTS: (&str, u16) = ("TooManyRequests", 429);
    pub const INTERNAL_ERROR: (&str, u16) = ("InternalError", 500);
    pub const SERVICE_UNAVAILABLE: (&str, u16) = ("ServiceUnavailable", 503);
    pub const TIMEOUT: (&str, u16) = ("Timeout", 504);
}

impl Status {
    pub fn new((reason, code): (&str, u16), message: impl Into<String>) -> Self {
        Self { reason: reason.into(), code, message: message.into(), ..Self::default() }
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        self.details = Some(Box::new(Details {
            name: name.into(),
            group: resource.group.to_string(),
            kind: resource.plural.to_string(),
            ..Details::default()
        }));
        self
    }

    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} not found", resource.group_resource());
        Self::new(reason::NOT_FOUND, message).about(resource, name)
    }

    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", resource.group_resource());
        Self::new(reason::ALREADY_EXISTS, message).about(resource, name)
    }

    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: {why}",
            resource.group_resource()
        );
        Self::new(reason::CONFLICT, message).about(resource, name)
    }

    /// The conflict of a stale resourceVersion, in upstream's words.
    pub fn modified(resource: &Resource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    pub fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is forbidden: {why}", resource.group_resource());
        Self::new(reason::FORBIDDEN, message).about(resource, name)
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(reason::BAD_REQUEST, message)
    }

    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(reason::EXPIRED, message)
    }

    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(reason::INTERNAL_ERROR, format!("Internal error occurred: {message}"))
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(reason::SERVICE_UNAVAILABLE, message)
    }

    pub fn is(&self, (reason, _): (&str, u16)) -> bool {
        self.reason == reason
    }

    pub fn is_not_found(&self) -> bool {
        self.is(reason::NOT_FOUND)
    }

    pub fn is_already_exists(&self) -> bool {
        self.is(reason::ALREADY_EXISTS)
    }

    pub fn is_conflict(&self) -> bool {
        self.is(reason::CONFLICT)
    }

    pub fn is_expired(&self) -> bool {
        self.is(reason::EXPIRED) || self.code == 410
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

/// The trailer that carries the Status as JSON beside a gRPC status.
pub const STATUS_TRAILER: &str = "skiff-status-bin";

impl From<Status> for tonic::Status {
    fn from(status: Status) -> Self {
        use tonic::Code;
        let code = match (status.code, status.reason.as_str()) {
            (400 | 422, _) => Code::InvalidArgument,
            (401, _) => Code::Unauthenticated,
            (403, _) => Code::PermissionDenied,
            (404, _) => Code::NotFound,
            (405, _) => Code::Unimplemented,
            (409, "AlreadyExists") => Code::AlreadyExists,
            (409, _) => Code::Aborted,
            (410, _) => Code::OutOfRange,
            (429, _) => Code::ResourceExhausted,
            (503, _) => Code::Unavailable,
            (504, _) => Code::DeadlineExceeded,
            _ => Code::Internal,
        };
        let mut metadata = tonic::metadata::MetadataMap::new();
        if let Ok(json) = serde_json::to_vec(&status) {
            metadata.insert_bin(STATUS_TRAILER, tonic::metadata::MetadataValue::from_bytes(&json));
        }
        tonic::Status::with_metadata(code, status.message, metadata)
    }
}

impl From<tonic::Status> for Status {
    fn from(wire: tonic::Status) -> Self {
        let sent = wire.metadata().get_bin(STATUS_TRAILER).and_then(|value| value.to_bytes().ok());
        if let Some(status) = sent.and_then(|json| serde_json::from_slice(&json).ok()) {
            return status;
        }
        // No trailer: the transport failed, or the server is not ours.
        let kind = match wire.code() {
            tonic::Code::Unauthenticated => reason::UNAUTHORIZED,
            tonic::Code::PermissionDenied => reason::FORBIDDEN,
            tonic::Code::NotFound => reason::NOT_FOUND,
            tonic::Code::InvalidArgument => reason::BAD_REQUEST,
            tonic::Code::Unavailable | tonic::Code::Cancelled | tonic::Code::Unknown => {
                reason::SERVICE_UNAVAILABLE
            }
            tonic::Code::DeadlineExceeded => reason::TIMEOUT,
            _ => reason::INTERNAL_ERROR,
        };
        Status::new(kind, wire.message())
    }
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

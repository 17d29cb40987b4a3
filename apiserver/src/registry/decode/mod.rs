//! Client JSON to an object, in one pass over the text and led by the field table: unknown
//! and repeated fields and wrong types are told in upstream's words; nulls and zero values
//! that mean "absent" are not kept.

mod reader;
mod scalar;
mod walk;

use std::borrow::Cow;

use serde_json::{Map, Value};
use skiff_client::FieldValidation;
use skiff_proto::Status;

use super::Kind;
use super::field_table::FieldTable;
pub use scalar::canonical_quantity;
use walk::Decoder;

/// Upstream's limit on a request body.
pub const MAX_BYTES: usize = 3 * 1024 * 1024;

/// Reads an object of `kind`. See `Kind::decode`.
pub(super) fn decode(
    kind: &Kind,
    json: &[u8],
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let identity =
        Identity { group: &kind.resource.group, version: &kind.resource.version, kind: kind.kind };
    decode_as(identity, kind.fields, json, validation)
}

/// What a document is expected to be.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
}

/// Reads a document that is no stored kind of its own, such as a `Scale` or a `Binding`.
pub fn decode_as(
    identity: Identity<'_>,
    table: &'static FieldTable,
    json: &[u8],
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    if json.len() > MAX_BYTES {
        let message = format!("the request body is over the limit of {MAX_BYTES} bytes");
        return Err(Status::new(("RequestEntityTooLarge", 413), message));
    }
    let text = match std::str::from_utf8(json) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(json),
    };
    let mut decoder = Decoder::new(&text, validation != FieldValidation::Ignore);
    let mut object = decoder.document(table).map_err(|syntax| {
        unrecognized(
            &identity,
            &format!("couldn't get version/kind; json parse error: {syntax}"),
            json,
        )
    })?;
    check_identity(&identity, &mut object)?;
    if let Some(wrong) = decoder.wrong {
        return Err(cannot_be_handled(&identity, &wrong));
    }
    let found = decoder.strict.unwrap_or_default();
    if validation == FieldValidation::Strict && !found.is_empty() {
        let message = format!("strict decoding error: {}", found.join(", "));
        return Err(cannot_be_handled(&identity, &message));
    }
    Ok((Value::Object(object), found))
}

fn cannot_be_handled(identity: &Identity<'_>, why: &str) -> Status {
    let Identity { version, kind, .. } = identity;
    Status::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
    ))
}

/// A document that is no JSON or no object; upstream shows how it begins.
fn unrecognized(identity: &Identity<'_>, why: &str, json: &[u8]) -> Status {
    const SHOWN: usize = 30;
    let summary = if json.is_empty() {
        "<empty>".to_owned()
    } else if json.first() == Some(&b'{') {
        let dots = if json.len() > SHOWN { " ..." } else { "" };
        String::from_utf8_lossy(&json[..json.len().min(SHOWN)]).into_owned() + dots
    } else {
        let dots = if json.len() > SHOWN { " ..." } else { "" };
        let hex = json.iter().take(SHOWN).map(|b| format!("{b:02x}")).collect::<String>();
        hex + dots
    };
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {why} ({summary})",
        identity.kind
    ))
}

/// Fills in an absent `apiVersion` and `kind`; others than expected are refused.
fn check_identity(identity: &Identity<'_>, object: &mut Map<String, Value>) -> Result<(), Status> {
    let expected = group_version(identity.group, identity.version);
    let given = |object: &Map<String, Value>, key: &str| {
        object.get(key).and_then(Value::as_str).map(str::to_owned)
    };
    let api_version = given(object, "apiVersion").unwrap_or_else(|| expected.clone());
    let kind = given(object, "kind").unwrap_or_else(|| identity.kind.to_owned());
    if api_version == expected && kind == identity.kind {
        object.insert("apiVersion".to_owned(), Value::String(api_version));
        object.insert("kind".to_owned(), Value::String(kind));
        return Ok(());
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let known = super::kinds()
        .iter()
        .any(|k| k.kind == kind && k.resource.group == group && k.resource.version == version);
    let why = if known {
        format!(
            "converting (v1.{kind}) to ({}.{}): unknown conversion",
            internal_package(identity.group),
            identity.kind
        )
    } else {
        format!("no kind {kind:?} is registered for version {api_version:?}")
    };
    Err(Status::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {}: {why}",
        identity.kind
    )))
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// The package of upstream's internal types, which its conversion errors name.
fn internal_package(group: &str) -> &str {
    match group {
        "" => "core",
        group => group.split('.').next().unwrap_or(group),
    }
}

#[cfg(test)]
mod tests;

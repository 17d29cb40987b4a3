//! Client JSON to an object, in one pass over the text and led by the field table: unknown
//! and repeated fields and wrong types are told in upstream's words; nulls and zero values
//! that mean "absent" are not kept.

mod reader;
mod scalar;

use std::borrow::Cow;

use serde_json::{Map, Value};
use skiff_client::FieldValidation;
use skiff_proto::Status;

use super::Kind;
use super::field_table::{Field, FieldTable, Presence, Scalar, Shape};
use super::path::Path;
use reader::{Next, Reader, Syntax};
pub use scalar::canonical_quantity;

/// Upstream's limit on a request body.
pub const MAX_BYTES: usize = 3 * 1024 * 1024;

/// Strict errors beyond this many are dropped, as upstream does.
const MAX_STRICT_ERRORS: usize = 100;

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
    let mut decoder = Decoder {
        reader: Reader::new(&text),
        strict: (validation != FieldValidation::Ignore).then(Vec::new),
        wrong: None,
    };
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

struct Decoder<'a> {
    reader: Reader<'a>,
    /// Unknown and repeated fields; `None`: nobody asks.
    strict: Option<Vec<String>>,
    /// The first value of a wrong type. Reading goes on, since broken syntax counts first.
    wrong: Option<String>,
}

/// What a type error tells of a place besides its path.
#[derive(Clone, Copy)]
struct Owner {
    table: &'static FieldTable,
    field: &'static Field,
}

impl Decoder<'_> {
    fn document(&mut self, table: &'static FieldTable) -> Result<Map<String, Value>, Syntax> {
        let next = self.reader.peek()?;
        let object = if next == Next::Object {
            self.object(table, &Path::ROOT)?
        } else {
            self.reader.skip()?;
            return Err(format!(
                "json: cannot unmarshal {} into Go value of type v1.{}",
                next.name(),
                table.name
            ));
        };
        self.reader.end()?;
        Ok(object)
    }

    fn strict_error(&mut self, error: impl FnOnce() -> String) {
        if let Some(found) = &mut self.strict
            && found.len() < MAX_STRICT_ERRORS
        {
            let error = error();
            if !found.contains(&error) {
                found.push(error);
            }
        }
    }

    fn wrong_type(&mut self, value: &str, owner: Owner, type_text: &str, path: &Path<'_>) {
        self.wrong.get_or_insert_with(|| {
            format!(
                "json: cannot unmarshal {value} into Go struct field {}.{} of type {type_text}",
                owner.table.name,
                path.without_indices(),
            )
        });
    }

    fn object(
        &mut self,
        table: &'static FieldTable,
        path: &Path<'_>,
    ) -> Result<Map<String, Value>, Syntax> {
        self.reader.enter()?;
        let mut object = Map::new();
        // One bit a field read; tables are shorter than that.
        let mut seen = 0u64;
        let mut first = true;
        while let Some(key) = self.reader.key(first)? {
            first = false;
            let Some(at) = table.fields.iter().position(|f| f.name == key) else {
                self.strict_error(|| format!("unknown field \"{}\"", path.field(&key)));
                self.reader.skip()?;
                continue;
            };
            let field = &table.fields[at];
            let here = path.field(field.name);
            if seen & (1 << at) != 0 {
                self.strict_error(|| format!("duplicate field \"{here}\""));
            }
            seen |= 1 << at;
            match self.field(Owner { table, field }, &here)? {
                Some(value) => drop(object.insert(field.name.to_owned(), value)),
                None => drop(object.remove(field.name)),
            }
        }
        Ok(object)
    }

    fn field(&mut self, owner: Owner, path: &Path<'_>) -> Result<Option<Value>, Syntax> {
        let next = self.reader.peek()?;
        if next == Next::Null {
            self.reader.literal()?;
            return Ok(None);
        }
        let keep_empty = owner.field.presence != Presence::Value;
        match (owner.field.shape, next) {
            (Shape::One(scalar), _) => {
                let value = self.scalar(scalar, next, owner, path)?;
                Ok(value.filter(|value| keep_empty || !is_zero(value)))
            }
            (Shape::Object(table), Next::Object) => {
                Ok(Some(Value::Object(self.object(table, path)?)))
            }
            (Shape::Objects(table), Next::Array) => {
                let list = self.list(path, |decoder, next, path| match next {
                    Next::Null => {
                        decoder.reader.literal()?;
                        Ok(Some(Value::Object(Map::new())))
                    }
                    Next::Object => Ok(Some(Value::Object(decoder.object(table, path)?))),
                    next => {
                        let type_text = format!("v1.{}", table.name);
                        decoder.wrong_type(next.name(), owner, &type_text, path);
                        decoder.reader.skip()?;
                        Ok(None)
                    }
                })?;
                Ok((keep_empty || !list.is_empty()).then_some(Value::Array(list)))
            }
            (Shape::Scalars(scalar), Next::Array) => {
                let list = self
                    .list(path, |decoder, next, path| decoder.scalar(scalar, next, owner, path))?;
                Ok((keep_empty || !list.is_empty()).then_some(Value::Array(list)))
            }
            (Shape::Map(scalar), Next::Object) => {
                let map = self.map(scalar, owner, path)?;
                Ok((keep_empty || !map.is_empty()).then_some(Value::Object(map)))
            }
            (_, next) => {
                self.wrong_type(next.name(), owner, &owner.field.type_text(), path);
                self.reader.skip()?;
                Ok(None)
            }
        }
    }

    fn list(
        &mut self,
        path: &Path<'_>,
        mut element: impl FnMut(&mut Self, Next, &Path<'_>) -> Result<Option<Value>, Syntax>,
    ) -> Result<Vec<Value>, Syntax> {
        self.reader.enter()?;
        let mut list = Vec::new();
        let mut first = true;
        while self.reader.element(first)? {
            first = false;
            let next = self.reader.peek()?;
            list.extend(element(self, next, &path.index(list.len()))?);
        }
        Ok(list)
    }

    fn map(
        &mut self,
        scalar: Scalar,
        owner: Owner,
        path: &Path<'_>,
    ) -> Result<Map<String, Value>, Syntax> {
        self.reader.enter()?;
        let mut map = Map::new();
        let mut first = true;
        while let Some(key) = self.reader.key(first)? {
            first = false;
            let next = self.reader.peek()?;
            // Type errors inside a map tell the field that holds the map.
            let value = self.scalar(scalar, next, owner, path)?;
            if map.contains_key(key.as_ref()) {
                self.strict_error(|| format!("duplicate field \"{}\"", path.field(&key)));
            }
            if let Some(value) = value {
                map.insert(key.into_owned(), value);
            }
        }
        Ok(map)
    }

    /// A scalar, `None` if it has the wrong type. A null in a list or map is the zero value.
    fn scalar(
        &mut self,
        scalar: Scalar,
        next: Next,
        owner: Owner,
        path: &Path<'_>,
    ) -> Result<Option<Value>, Syntax> {
        match (scalar, next) {
            (Scalar::Any, _) => return self.reader.any().map(Some),
            (_, Next::Null) => {
                self.reader.literal()?;
                return Ok(zero(scalar));
            }
            (Scalar::String, Next::String) | (Scalar::IntOrString, Next::String) => {
                return Ok(Some(Value::String(self.reader.string()?.into_owned())));
            }
            (Scalar::Bool, Next::Bool) => {
                return Ok(self.reader.literal()?.map(Value::Bool));
            }
            (Scalar::Int32 | Scalar::Int64 | Scalar::IntOrString, Next::Number) => {
                return self.integer(scalar, owner, path);
            }
            (Scalar::Quantity, Next::String) => {
                let text = self.reader.string()?;
                return Ok(self.rewritten(canonical_quantity(&text)));
            }
            (Scalar::Quantity, Next::Number) => {
                let text = self.reader.number()?;
                return Ok(self.rewritten(canonical_quantity(text)));
            }
            (Scalar::Time, Next::String) => {
                let text = self.reader.string()?;
                return Ok(self.rewritten(scalar::canonical_time(&text)));
            }
            (Scalar::MicroTime, Next::String) => {
                let text = self.reader.string()?;
                return Ok(self.rewritten(scalar::canonical_micro_time(&text)));
            }
            (Scalar::Bytes, Next::String) => {
                let text = self.reader.string()?;
                let checked = scalar::check_base64(&text).map(|()| text.into_owned());
                return Ok(self.rewritten(checked));
            }
            _ => {}
        }
        match scalar {
            // These read themselves upstream, without knowledge of the field.
            Scalar::IntOrString | Scalar::Time | Scalar::MicroTime => {
                self.wrong.get_or_insert_with(|| {
                    format!(
                        "json: cannot unmarshal {} into Go value of type {}",
                        next.name(),
                        scalar.type_text()
                    )
                });
            }
            Scalar::Quantity => drop(self.rewritten(canonical_quantity(""))),
            _ => {
                let type_text = match owner.field.type_name {
                    "" => scalar.type_text().to_owned(),
                    _ if matches!(owner.field.shape, Shape::Map(_)) => {
                        scalar.type_text().to_owned()
                    }
                    name => format!("v1.{name}"),
                };
                self.wrong_type(next.name(), owner, &type_text, path);
            }
        }
        self.reader.skip()?;
        Ok(None)
    }

    fn integer(
        &mut self,
        scalar: Scalar,
        owner: Owner,
        path: &Path<'_>,
    ) -> Result<Option<Value>, Syntax> {
        let text = self.reader.number()?;
        let number = text.parse::<i64>().ok();
        let fits = |n: &i64| scalar == Scalar::Int64 || i32::try_from(*n).is_ok();
        match number.filter(fits) {
            Some(number) => Ok(Some(Value::from(number))),
            None => {
                let value = format!("number {text}");
                self.wrong_type(&value, owner, scalar.type_text(), path);
                Ok(None)
            }
        }
    }

    /// A text that was rewritten, or why it could not be.
    fn rewritten(&mut self, result: Result<String, String>) -> Option<Value> {
        match result {
            Ok(text) => Some(Value::String(text)),
            Err(why) => {
                self.wrong.get_or_insert(why);
                None
            }
        }
    }
}

fn zero(scalar: Scalar) -> Option<Value> {
    match scalar {
        Scalar::String | Scalar::Bytes => Some(Value::String(String::new())),
        Scalar::Quantity => Some(Value::String("0".to_owned())),
        Scalar::Int32 | Scalar::Int64 | Scalar::IntOrString => Some(Value::from(0)),
        Scalar::Bool => Some(Value::Bool(false)),
        Scalar::Time | Scalar::MicroTime | Scalar::Any => None,
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Bool(on) => !on,
        Value::Number(n) => n.as_i64() == Some(0),
        _ => false,
    }
}

#[cfg(test)]
mod tests;

//! The walk over the text: what the table says of a field decides how its value is read.

use serde_json::{Map, Value};

use super::canonical_quantity;
use super::reader::{Next, Reader, Syntax};
use crate::registry::field_table::{Field, FieldTable, Presence, Scalar, Shape};
use crate::registry::path::Path;

/// Strict errors beyond this many are dropped, as upstream does.
const MAX_STRICT_ERRORS: usize = 100;

pub(super) struct Decoder<'a> {
    reader: Reader<'a>,
    /// Unknown and repeated fields; `None`: nobody asks.
    pub(super) strict: Option<Vec<String>>,
    /// The first value of a wrong type. Reading goes on, since broken syntax counts first.
    pub(super) wrong: Option<String>,
}

/// What a type error tells of a place besides its path.
#[derive(Clone, Copy)]
struct Owner {
    table: &'static FieldTable,
    field: &'static Field,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(text: &'a str, strict: bool) -> Self {
        Self { reader: Reader::new(text), strict: strict.then(Vec::new), wrong: None }
    }
}

impl Decoder<'_> {
    pub(super) fn document(
        &mut self,
        table: &'static FieldTable,
    ) -> Result<Map<String, Value>, Syntax> {
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
                return Ok(self.rewritten(super::scalar::canonical_time(&text)));
            }
            (Scalar::MicroTime, Next::String) => {
                let text = self.reader.string()?;
                return Ok(self.rewritten(super::scalar::canonical_micro_time(&text)));
            }
            (Scalar::Bytes, Next::String) => {
                let text = self.reader.string()?;
                let checked = super::scalar::check_base64(&text).map(|()| text.into_owned());
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

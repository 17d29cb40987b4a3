//! The declarative description of a type's fields. One table per type says what each field is
//! called, what it holds, how lists of it merge and what it defaults to; decoding, defaulting,
//! validation and strategic merge all read the same table (OpenAPI and server-side apply will).
//!
//! Tables are `static` and written with the builders below, one line a field:
//!
//! ```ignore
//! pub static CONTAINER_PORT: FieldTable = table("ContainerPort", &[
//!     string("name"),
//!     int32("containerPort").required(),
//!     text("protocol", "Protocol").or("TCP"),
//! ]);
//! ```

/// All fields of one type.
#[derive(Debug)]
pub struct FieldTable {
    /// The type's name in messages: `PodSpec`.
    pub name: &'static str,
    pub fields: &'static [Field],
    /// Whether a default stands anywhere at or below this type.
    pub has_defaults: bool,
}

/// One field of a type.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub name: &'static str,
    pub shape: Shape,
    /// The name of a string type of its own (`Protocol`), as type errors tell it.
    pub type_name: &'static str,
    pub presence: Presence,
    pub default: FieldDefault,
    /// Never changes after creation.
    pub immutable: bool,
    pub list: ListType,
    /// The field that tells the elements of a merged list apart; empty for lists of scalars.
    pub merge_key: &'static str,
    /// Strategic merge: lists merge by `merge_key` instead of being replaced.
    pub merge: bool,
    /// Strategic merge: the patch names the keys to keep (`$retainKeys`).
    pub retain_keys: bool,
}

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    One(Scalar),
    Object(&'static FieldTable),
    Scalars(Scalar),
    Objects(&'static FieldTable),
    Map(Scalar),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    String,
    Int32,
    Int64,
    Bool,
    /// Base64 text.
    Bytes,
    Quantity,
    IntOrString,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    /// Any JSON, kept as it is.
    Any,
}

/// Whether the absence of a field differs from its zero value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Zero (`""`, `0`, `false`, `[]`, `{}` of a map) is the same as absent and is not stored.
    Value,
    /// Zero differs from absent.
    Pointer,
    /// Always written, also when zero.
    Required,
}

/// `x-kubernetes-list-type`, with the keys of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    Atomic,
    Set,
    Map(&'static [&'static str]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldDefault {
    None,
    Text(&'static str),
    Int(i64),
    Bool(bool),
    EmptyObject,
}

/// Describes a type. `has_defaults` is worked out at compile time.
pub const fn table(name: &'static str, fields: &'static [Field]) -> FieldTable {
    let mut has_defaults = false;
    let mut at = 0;
    while at < fields.len() {
        has_defaults |= fields[at].has_defaults();
        at += 1;
    }
    FieldTable { name, fields, has_defaults }
}

const fn field(name: &'static str, shape: Shape) -> Field {
    Field {
        name,
        shape,
        type_name: "",
        presence: Presence::Value,
        default: FieldDefault::None,
        immutable: false,
        list: ListType::Atomic,
        merge_key: "",
        merge: false,
        retain_keys: false,
    }
}

pub const fn string(name: &'static str) -> Field {
    field(name, Shape::One(Scalar::String))
}

/// A string with a type name of its own.
pub const fn text(name: &'static str, type_name: &'static str) -> Field {
    Field { type_name, ..string(name) }
}

pub const fn int32(name: &'static str) -> Field {
    field(name, Shape::One(Scalar::Int32))
}

pub const fn int64(name: &'static str) -> Field {
    field(name, Shape::One(Scalar::Int64))
}

pub const fn boolean(name: &'static str) -> Field {
    field(name, Shape::One(Scalar::Bool))
}

pub const fn quantity(name: &'static str) -> Field {
    field(name, Shape::One(Scalar::Quantity)).pointer()
}

pub const fn int_or_string(name: &'static str) -> Field {
    field(name, Shape::One(Scalar::IntOrString)).pointer()
}

pub const fn time(name: &'static str) -> Field {
    field(name, Shape::One(Scalar::Time))
}

pub const fn micro_time(name: &'static str) -> Field {
    field(name, Shape::One(Scalar::MicroTime))
}

pub const fn any(name: &'static str) -> Field {
    field(name, Shape::One(Scalar::Any)).pointer()
}

pub const fn object(name: &'static str, table: &'static FieldTable) -> Field {
    field(name, Shape::Object(table))
}

pub const fn objects(name: &'static str, table: &'static FieldTable) -> Field {
    field(name, Shape::Objects(table))
}

pub const fn strings(name: &'static str) -> Field {
    field(name, Shape::Scalars(Scalar::String))
}

/// A list of strings with a type name of their own.
pub const fn texts(name: &'static str, type_name: &'static str) -> Field {
    Field { type_name, ..strings(name) }
}

pub const fn int64s(name: &'static str) -> Field {
    field(name, Shape::Scalars(Scalar::Int64))
}

pub const fn string_map(name: &'static str) -> Field {
    field(name, Shape::Map(Scalar::String))
}

pub const fn bytes_map(name: &'static str) -> Field {
    field(name, Shape::Map(Scalar::Bytes))
}

/// `ResourceList`: quantities by resource name.
pub const fn quantities(name: &'static str) -> Field {
    Field { type_name: "ResourceList", ..field(name, Shape::Map(Scalar::Quantity)) }
}

impl Field {
    pub const fn pointer(self) -> Self {
        Self { presence: Presence::Pointer, ..self }
    }

    pub const fn required(self) -> Self {
        Self { presence: Presence::Required, ..self }
    }

    pub const fn or(self, default: &'static str) -> Self {
        Self { default: FieldDefault::Text(default), ..self }
    }

    pub const fn or_int(self, default: i64) -> Self {
        Self { default: FieldDefault::Int(default), ..self }
    }

    pub const fn or_bool(self, default: bool) -> Self {
        Self { default: FieldDefault::Bool(default), ..self }
    }

    pub const fn or_empty(self) -> Self {
        Self { default: FieldDefault::EmptyObject, ..self }
    }

    pub const fn immutable(self) -> Self {
        Self { immutable: true, ..self }
    }

    pub const fn set(self) -> Self {
        Self { list: ListType::Set, ..self }
    }

    /// A list whose elements are told apart by `keys`.
    pub const fn keyed(self, keys: &'static [&'static str]) -> Self {
        Self { list: ListType::Map(keys), ..self }
    }

    /// Strategic merge merges the list by `key` (empty: a list of scalars, as a set).
    pub const fn merge(self, key: &'static str) -> Self {
        Self { merge: true, merge_key: key, ..self }
    }

    pub const fn retain_keys(self) -> Self {
        Self { retain_keys: true, ..self }
    }

    /// Whether a default stands at or below this field.
    pub const fn has_defaults(&self) -> bool {
        let below = match self.shape {
            Shape::Object(table) | Shape::Objects(table) => table.has_defaults,
            _ => false,
        };
        below || !matches!(self.default, FieldDefault::None)
    }

    /// The type as type errors tell it: `int32`, `[]v1.Container`, `map[string]string`.
    pub fn type_text(&self) -> String {
        let scalar = |scalar: Scalar| match (self.type_name, scalar) {
            ("", scalar) => scalar.type_text().to_owned(),
            (name, _) => format!("v1.{name}"),
        };
        match self.shape {
            Shape::One(one) => scalar(one),
            Shape::Object(table) => format!("v1.{}", table.name),
            Shape::Objects(table) => format!("[]v1.{}", table.name),
            Shape::Scalars(one) => format!("[]{}", scalar(one)),
            Shape::Map(_) if !self.type_name.is_empty() => format!("v1.{}", self.type_name),
            Shape::Map(one) => format!("map[string]{}", one.type_text()),
        }
    }
}

impl Scalar {
    pub fn type_text(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int32 | Self::IntOrString => "int32",
            Self::Int64 => "int64",
            Self::Bool => "bool",
            Self::Bytes => "[]uint8",
            Self::Quantity => "resource.Quantity",
            Self::Time | Self::MicroTime => "string",
            Self::Any => "interface {}",
        }
    }
}

impl FieldTable {
    pub fn get(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|f| f.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static INNER: FieldTable = table("Inner", &[string("a"), int32("b").or_int(1)]);
    static OUTER: FieldTable = table("Outer", &[objects("inners", &INNER), strings("names")]);
    static PLAIN: FieldTable = table("Plain", &[string_map("labels")]);

    #[test]
    fn defaults_are_known_from_above() {
        assert!(INNER.has_defaults && OUTER.has_defaults && !PLAIN.has_defaults);
    }

    #[test]
    fn tells_types_as_upstream_does() {
        for (field, expected) in [
            (int32("x"), "int32"),
            (text("x", "Protocol"), "v1.Protocol"),
            (texts("x", "Capability"), "[]v1.Capability"),
            (objects("x", &INNER), "[]v1.Inner"),
            (object("x", &INNER), "v1.Inner"),
            (string_map("x"), "map[string]string"),
            (bytes_map("x"), "map[string][]uint8"),
            (quantities("x"), "v1.ResourceList"),
        ] {
            assert_eq!(field.type_text(), expected);
        }
    }
}

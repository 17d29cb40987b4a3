//! Defaulting: what the field tables say, then what depends on other fields.

pub(super) mod pod;
pub(super) mod service;

use serde_json::{Map, Value};

use super::field_table::{Field, FieldDefault, FieldTable, Shape};

/// Fills in the defaults of `table` at and below `object`.
pub(super) fn apply(table: &FieldTable, object: &mut Map<String, Value>) {
    if !table.has_defaults {
        return;
    }
    for field in table.fields.iter().filter(|field| field.has_defaults()) {
        match object.get_mut(field.name) {
            Some(value) => descend(field, value),
            None => {
                if let Some(mut value) = value_of(field.default) {
                    descend(field, &mut value);
                    object.insert(field.name.to_owned(), value);
                }
            }
        }
    }
}

fn descend(field: &Field, value: &mut Value) {
    match (field.shape, value) {
        (Shape::Object(table), Value::Object(object)) => apply(table, object),
        (Shape::Objects(table), Value::Array(list)) if table.has_defaults => {
            list.iter_mut().filter_map(Value::as_object_mut).for_each(|o| apply(table, o));
        }
        _ => {}
    }
}

fn value_of(default: FieldDefault) -> Option<Value> {
    Some(match default {
        FieldDefault::None => return None,
        FieldDefault::Text(text) => Value::String(text.to_owned()),
        FieldDefault::Int(number) => Value::from(number),
        FieldDefault::Bool(on) => Value::Bool(on),
        FieldDefault::EmptyObject => Value::Object(Map::new()),
    })
}

/// Sets a text where there is none.
pub(super) fn text_or(object: &mut Map<String, Value>, key: &str, default: &str) {
    let absent = object.get(key).and_then(Value::as_str).is_none_or(str::is_empty);
    if absent {
        object.insert(key.to_owned(), Value::String(default.to_owned()));
    }
}

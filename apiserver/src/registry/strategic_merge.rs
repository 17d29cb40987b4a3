//! Strategic merge patch: a JSON merge patch that knows, from the field tables, which lists
//! merge by key. The directives are upstream's: `$patch`, `$retainKeys`,
//! `$setElementOrder/FIELD` and `$deleteFromPrimitiveList/FIELD`.

mod order;

use serde_json::{Map, Value};

use super::field_table::{Field, FieldTable, Shape};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";

/// A patch that cannot be read, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatchError {
    #[error("invalid JSON document: a strategic merge patch must be an object")]
    NoObject,
    #[error("unknown patch type [{directive}] in map[{element}]")]
    BadDirective { directive: String, element: String },
    #[error("merging lists cannot yet be specified in the patch")]
    MergeDirective,
    #[error("map: {element} does not contain declared merge key: {key}")]
    NoMergeKey { element: String, key: String },
    #[error("invalid patch format of {directive}: {why}")]
    BadFormat { directive: &'static str, why: String },
}

type Result<T> = std::result::Result<T, PatchError>;

/// Applies `patch` to an object described by `table`.
pub(super) fn apply(table: &'static FieldTable, object: &mut Value, patch: &Value) -> Result<()> {
    let (Some(object), Some(patch)) = (object.as_object_mut(), patch.as_object()) else {
        return Err(PatchError::NoObject);
    };
    merge_object(object, patch, Some(table))
}

/// Merges `patch` into `object`. Without a table (a map of labels, say) nothing but nulls and
/// directives is special.
fn merge_object(
    object: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    table: Option<&'static FieldTable>,
) -> Result<()> {
    if let Some(directive) = patch.get(PATCH) {
        return replace_object(object, patch, directive);
    }
    if let Some(kept) = patch.get(RETAIN_KEYS) {
        retain_keys(object, patch, kept)?;
    }
    for (key, value) in patch {
        let field = |name: &str| table.and_then(|t| t.get(name));
        if key == RETAIN_KEYS {
            continue;
        }
        if let Some(name) = key.strip_prefix(DELETE_FROM_LIST) {
            delete_from_list(object, name, value)?;
        } else if let Some(name) = key.strip_prefix(SET_ORDER) {
            order::merge_in_order(object, name, patch.get(name), value, field(name))?;
        } else if !patch.contains_key(&format!("{SET_ORDER}{key}")) || !value.is_array() {
            merge_key(object, key, value, field(key))?;
        }
    }
    Ok(())
}

/// `$patch: replace` takes the patch as it is, `$patch: delete` leaves nothing.
fn replace_object(
    object: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    directive: &Value,
) -> Result<()> {
    match directive.as_str() {
        Some("replace") => {
            *object = patch.clone();
            object.remove(PATCH);
            Ok(())
        }
        Some("delete") => {
            object.clear();
            Ok(())
        }
        _ => Err(bad_directive(directive, patch)),
    }
}

fn bad_directive(directive: &Value, element: &Map<String, Value>) -> PatchError {
    let directive = directive.as_str().map_or_else(|| directive.to_string(), str::to_owned);
    PatchError::BadDirective { directive, element: Value::Object(element.clone()).to_string() }
}

/// Drops what the patch does not want to keep; every key it sets must be among those kept.
fn retain_keys(
    object: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    kept: &Value,
) -> Result<()> {
    let bad = |why: &str| PatchError::BadFormat { directive: RETAIN_KEYS, why: why.to_owned() };
    let kept = kept.as_array().ok_or_else(|| bad("it must be a list of keys"))?;
    let keeps = |key: &str| kept.iter().any(|k| k.as_str() == Some(key));
    let sets = |key: &str, value: &Value| !key.starts_with('$') && !value.is_null() && !keeps(key);
    if let Some((key, _)) = patch.iter().find(|(key, value)| sets(key, value)) {
        return Err(bad(&format!("it must contain every key of the patch, and lacks {key:?}")));
    }
    object.retain(|key, _| keeps(key));
    Ok(())
}

fn delete_from_list(object: &mut Map<String, Value>, name: &str, gone: &Value) -> Result<()> {
    let gone = gone.as_array().ok_or_else(|| PatchError::BadFormat {
        directive: "$deleteFromPrimitiveList",
        why: "it must be a list".to_owned(),
    })?;
    if let Some(list) = object.get_mut(name).and_then(Value::as_array_mut) {
        list.retain(|element| !gone.contains(element));
    }
    Ok(())
}

fn merge_key(
    object: &mut Map<String, Value>,
    key: &str,
    patch: &Value,
    field: Option<&'static Field>,
) -> Result<()> {
    match (object.get_mut(key), patch) {
        (_, Value::Null) => drop(object.remove(key)),
        (Some(Value::Object(now)), Value::Object(patch)) => {
            merge_object(now, patch, field.and_then(table_of))?;
        }
        (Some(Value::Array(now)), Value::Array(patch)) => merge_list(now, patch, field)?,
        (_, patch) => match without_directives(patch) {
            Some(value) => drop(object.insert(key.to_owned(), value)),
            None => drop(object.remove(key)),
        },
    }
    Ok(())
}

fn table_of(field: &'static Field) -> Option<&'static FieldTable> {
    match field.shape {
        Shape::Object(table) | Shape::Objects(table) => Some(table),
        _ => None,
    }
}

fn merge_list(now: &mut Vec<Value>, patch: &[Value], field: Option<&'static Field>) -> Result<()> {
    let Some(field) = field.filter(|f| f.merge) else {
        *now = patch.iter().filter_map(without_directives).collect();
        return Ok(());
    };
    match field.shape {
        Shape::Objects(table) => merge_objects(now, patch, field.merge_key, table),
        _ => {
            // A list of scalars merges as a set.
            for element in patch {
                if !now.contains(element) {
                    now.push(element.clone());
                }
            }
            Ok(())
        }
    }
}

fn merge_objects(
    now: &mut Vec<Value>,
    patch: &[Value],
    key: &str,
    table: &'static FieldTable,
) -> Result<()> {
    let mut wanted = Vec::new();
    let mut replace = false;
    for element in patch {
        let Some(element) = element.as_object() else { continue };
        match element.get(PATCH) {
            None => wanted.push(element),
            Some(Value::String(directive)) if directive == "delete" => {
                let gone = key_of(element, key)?;
                now.retain(|e| e.get(key) != Some(gone));
            }
            Some(Value::String(directive)) if directive == "replace" => replace = true,
            Some(Value::String(directive)) if directive == "merge" => {
                return Err(PatchError::MergeDirective);
            }
            Some(directive) => return Err(bad_directive(directive, element)),
        }
    }
    if replace {
        now.clear();
        now.extend(wanted.into_iter().filter_map(|e| without_directives(&e.clone().into())));
        return Ok(());
    }
    for element in wanted {
        let value = key_of(element, key)?;
        match now.iter_mut().find(|e| e.get(key) == Some(value)).and_then(Value::as_object_mut) {
            Some(existing) => merge_object(existing, element, Some(table))?,
            None => now.extend(without_directives(&element.clone().into())),
        }
    }
    Ok(())
}

fn key_of<'a>(element: &'a Map<String, Value>, key: &str) -> Result<&'a Value> {
    element.get(key).ok_or_else(|| PatchError::NoMergeKey {
        element: Value::Object(element.clone()).to_string(),
        key: key.to_owned(),
    })
}

/// A value that is new to the object: without directives and nulls; `None` if it is marked as
/// deleted.
fn without_directives(value: &Value) -> Option<Value> {
    match value {
        Value::Object(object) => {
            if object.get(PATCH).and_then(Value::as_str) == Some("delete") {
                return None;
            }
            let kept = object
                .iter()
                .filter(|(key, value)| !is_directive(key) && !value.is_null())
                .filter_map(|(key, value)| Some((key.clone(), without_directives(value)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(list) => {
            // A list whose element is only `$patch: replace` is that list without the element.
            let kept = list.iter().filter(|element| {
                element.as_object().is_none_or(|o| o.len() != 1 || !o.contains_key(PATCH))
            });
            Some(Value::Array(kept.filter_map(without_directives).collect()))
        }
        other => Some(other.clone()),
    }
}

fn is_directive(key: &str) -> bool {
    key == PATCH
        || key == RETAIN_KEYS
        || key.starts_with(SET_ORDER)
        || key.starts_with(DELETE_FROM_LIST)
}

#[cfg(test)]
mod tests;

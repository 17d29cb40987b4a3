//! `$setElementOrder/FIELD`: the patch says in which order its elements stand; elements that
//! only the server has keep their place among them as well as can be.

use serde_json::{Map, Value};

use super::{PatchError, Result, merge_list, without_directives};
use crate::registry::field_table::{Field, Shape};

/// Merges the list `name` and puts it in the order that the patch asks for.
pub(super) fn merge_in_order(
    object: &mut Map<String, Value>,
    name: &str,
    patch: Option<&Value>,
    order: &Value,
    field: Option<&'static Field>,
) -> Result<()> {
    let order = order.as_array().ok_or_else(|| bad("it must be a list"))?;
    let key = match field {
        Some(Field { shape: Shape::Objects(_), merge_key, .. }) => *merge_key,
        _ => "",
    };
    let patch = patch.and_then(Value::as_array);
    if let Some(patch) = patch {
        check(patch, order, key)?;
    }
    let before = object.get(name).and_then(Value::as_array).cloned();
    let merged = match (&before, patch) {
        (None, None) => return Ok(()),
        (Some(before), None) => before.clone(),
        (None, Some(patch)) => patch.iter().filter_map(without_directives).collect(),
        (Some(before), Some(patch)) => {
            let mut merged = before.clone();
            merge_list(&mut merged, patch, field)?;
            merged
        }
    };
    let before = before.unwrap_or_default();
    object.insert(name.to_owned(), Value::Array(sorted(merged, order, &before, key)));
    Ok(())
}

fn bad(why: &str) -> PatchError {
    PatchError::BadFormat { directive: "$setElementOrder", why: why.to_owned() }
}

/// Every element that the patch sets must stand in the order, in the same sequence.
fn check(patch: &[Value], order: &[Value], key: &str) -> Result<()> {
    let mut places = Vec::new();
    for element in patch.iter().filter(|e| e.get(super::PATCH).is_none()) {
        let place = place(order, element, key)
            .ok_or_else(|| bad(&format!("the order lacks the patch's element {element}")))?;
        places.push(place);
    }
    if places.is_sorted() {
        Ok(())
    } else {
        Err(bad("the elements of the patch stand in another order"))
    }
}

/// Where `element` stands in `list`; elements are told apart by `key`, scalars by themselves.
fn place(list: &[Value], element: &Value, key: &str) -> Option<usize> {
    list.iter().position(|other| match key {
        "" => other == element,
        key => element.get(key).is_some() && other.get(key) == element.get(key),
    })
}

/// The patch's elements in its order, with those that only the server has put in before the
/// first one that follows them in the old list.
fn sorted(merged: Vec<Value>, order: &[Value], before: &[Value], key: &str) -> Vec<Value> {
    let (mut wanted, mut server): (Vec<_>, Vec<_>) =
        merged.into_iter().partition(|element| place(order, element, key).is_some());
    wanted.sort_by_key(|element| place(order, element, key));
    server.sort_by_key(|element| place(before, element, key));
    let mut result = Vec::with_capacity(wanted.len() + server.len());
    let mut server = server.into_iter().peekable();
    for element in wanted {
        let here = place(before, &element, key);
        while let Some(own) = server.peek() {
            let own_place = place(before, own, key);
            match (own_place, here) {
                (Some(own), Some(here)) if own < here => result.extend(server.next()),
                _ => break,
            }
        }
        result.push(element);
    }
    result.extend(server);
    result
}

//! Reading and writing `metadata` of an object's JSON.

use rand::Rng;
use serde_json::{Map, Value};

/// The metadata, empty if it is not there.
pub fn of(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata")?.as_object()
}

/// The metadata, made if it is not there.
pub fn of_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.get("metadata").is_some_and(Value::is_object) {
        object["metadata"] = Value::Object(Map::new());
    }
    match &mut object["metadata"] {
        Value::Object(metadata) => metadata,
        _ => unreachable!("it was just made"),
    }
}

pub fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    of(object).and_then(|m| m.get(key)).and_then(Value::as_str).unwrap_or("")
}

pub fn number(object: &Value, key: &str) -> Option<i64> {
    of(object)?.get(key)?.as_i64()
}

pub fn has(object: &Value, key: &str) -> bool {
    of(object).and_then(|m| m.get(key)).is_some_and(|v| !v.is_null())
}

pub fn set(object: &mut Value, key: &str, value: impl Into<Value>) {
    of_mut(object).insert(key.into(), value.into());
}

pub fn remove(object: &mut Value, key: &str) -> Option<Value> {
    of_mut(object).remove(key)
}

/// Makes `key` in `new` what it is in `old`.
pub fn keep(new: &mut Value, old: &Value, key: &str) {
    match of(old).and_then(|m| m.get(key)) {
        Some(value) => set(new, key, value.clone()),
        None => drop(remove(new, key)),
    }
}

pub fn finalizers(object: &Value) -> Vec<&str> {
    let list = of(object).and_then(|m| m.get("finalizers")).and_then(Value::as_array);
    list.map(|l| l.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

/// What a namespace waits for beside its finalizers.
pub fn spec_finalizers(object: &Value) -> bool {
    let list = object.pointer("/spec/finalizers").and_then(Value::as_array);
    list.is_some_and(|l| !l.is_empty())
}

/// Upstream's alphabet for generated names: no vowels, so no words, and nothing that looks alike.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const RANDOM_CHARS: usize = 5;
/// A generated name is cut so that it fits into a label value.
const MAX_GENERATED_CHARS: usize = 63;

/// `generateName` and five random characters.
pub fn generate_name(base: &str) -> String {
    let keep = MAX_GENERATED_CHARS - RANDOM_CHARS;
    let cut = base.char_indices().nth(keep).map_or(base.len(), |(at, _)| at);
    let mut name = base[..cut].to_owned();
    let mut random = rand::rng();
    name.extend(
        (0..RANDOM_CHARS).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])),
    );
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit_a_label() {
        let name = generate_name("web-");
        assert_eq!(name.len(), 9);
        assert!(name[4..].bytes().all(|b| ALPHABET.contains(&b)), "{name}");
        assert_eq!(generate_name(&"x".repeat(100)).len(), 63);
    }

    #[test]
    fn keeps_and_drops() {
        let old = serde_json::json!({"metadata": {"uid": "u"}});
        let mut new = serde_json::json!({"metadata": {"uid": "other", "generation": 3}});
        keep(&mut new, &old, "uid");
        keep(&mut new, &old, "generation");
        assert_eq!(new, old);
    }
}

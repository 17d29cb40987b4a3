//! Which ReplicaSet has a Deployment's template, and the name of a new one. Pure.

use serde_json::Value;

/// The label that keeps the pods of a Deployment's ReplicaSets apart.
pub const HASH_LABEL: &str = "pod-template-hash";

/// Whether two templates are the same but for the hash label, nulls, and maps that are
/// empty rather than absent.
pub fn equal_but_hash(a: &Value, b: &Value) -> bool {
    normal(a) == normal(b)
}

fn normal(template: &Value) -> Value {
    let mut template = without_nulls(template);
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove(HASH_LABEL);
        }
        metadata.retain(|_, value| value.as_object().is_none_or(|map| !map.is_empty()));
        if metadata.is_empty() {
            template.as_object_mut().map(|map| map.remove("metadata"));
        }
    }
    template
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| (k.clone(), without_nulls(v)))
            .collect(),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// FNV-1a of the template with its keys in order, and of the collision count, in the
/// letters that upstream allows in generated names (no vowels, hence no words).
pub fn hash(template: &Value, collision_count: Option<i32>) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hash = Fnv(0x811c_9dc5);
    hash.value(&normal(template));
    if let Some(count) = collision_count {
        hash.bytes(&count.to_le_bytes());
    }
    let digits = hash.0.to_string();
    digits.bytes().map(|c| char::from(LETTERS[usize::from(c) % LETTERS.len()])).collect()
}

struct Fnv(u32);

impl Fnv {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }

    /// Keys are sorted here, since a map may also keep them as they came.
    fn value(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                let mut keys: Vec<&String> = map.keys().collect();
                keys.sort_unstable();
                self.bytes(b"{");
                for key in keys {
                    self.bytes(key.as_bytes());
                    self.bytes(b":");
                    self.value(&map[key]);
                    self.bytes(b",");
                }
                self.bytes(b"}");
            }
            Value::Array(items) => {
                self.bytes(b"[");
                for item in items {
                    self.value(item);
                    self.bytes(b",");
                }
                self.bytes(b"]");
            }
            plain => self.bytes(plain.to_string().as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_hash_label_nulls_and_empty_maps_do_not_count() {
        let wanted = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "emptyDir": {}}]}});
        let mut made = wanted.clone();
        made["metadata"]["labels"][HASH_LABEL] = "abc".into();
        made["metadata"]["creationTimestamp"] = Value::Null;
        made["metadata"]["annotations"] = json!({});
        assert!(equal_but_hash(&wanted, &made));
        assert_eq!(hash(&wanted, None), hash(&made, None));
        made["spec"]["containers"][0]["image"] = "v2".into();
        assert!(!equal_but_hash(&wanted, &made));
        let mut no_dir = wanted.clone();
        no_dir["spec"]["containers"][0] = json!({"name": "c"});
        assert!(!equal_but_hash(&wanted, &no_dir), "an empty map below spec means something");
    }

    #[test]
    fn hashes_are_stable_and_safe_and_differ_by_collision_count() {
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}});
        // Pinned: ReplicaSets made by an older binary must be found by a newer one.
        assert_eq!(hash(&template, None), "6968cc8d8f");
        assert_ne!(hash(&template, None), hash(&template, Some(1)));
        let text = hash(&template, Some(2));
        assert!(
            text.len() <= 10 && text.bytes().all(|c| b"bcdfghjklmnpqrstvwxz2456789".contains(&c)),
            "{text}"
        );
    }
}

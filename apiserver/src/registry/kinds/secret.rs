//! Secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::registry::Kind;
use crate::registry::strategy::Rules;
use crate::registry::tables::config::SECRET;
use crate::registry::validation::config;

pub static SECRET_KIND: Kind = Kind {
    resource: skiff_proto::resource::SECRETS,
    kind: "Secret",
    singular: "secret",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    fields: &SECRET,
    defaults,
    strategy: &RULES,
    selectable: &["type"],
};

static RULES: Rules =
    Rules { validate: config::secret, validate_change: config::secret_change, ..Rules::NAMESPACED };

/// `stringData` is for writing only: it becomes part of `data`.
fn defaults(secret: &mut Value) {
    let Some(secret) = secret.as_object_mut() else { return };
    let Some(Value::Object(texts)) = secret.remove("stringData") else { return };
    let data = secret.entry("data").or_insert_with(|| json!({}));
    for (key, text) in texts {
        data[key] = json!(STANDARD.encode(text.as_str().unwrap_or("")));
    }
}

//! `-o`: how objects are printed.

use std::str::FromStr;

use serde_json::Value;

use crate::jsonpath::Template;

/// What `-o` asks for. Without it, verbs print their own lines or tables.
#[derive(Debug, Clone)]
pub enum Format {
    Wide,
    Json,
    Yaml,
    Name,
    JsonPath(Template),
    /// Header and path of each column.
    Columns(Vec<(String, Template)>),
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(template) = text.strip_prefix("jsonpath=") {
            return Ok(Self::JsonPath(Template::parse(template)?));
        }
        if let Some(list) = text.strip_prefix("custom-columns=") {
            let column = |part: &str| {
                let (header, path) =
                    part.split_once(':').ok_or("expected <header>:<json-path-expr>")?;
                let template = Template::parse(&format!("{{{}}}", path.trim_matches(['{', '}'])))?;
                Ok((header.to_owned(), template))
            };
            return list.split(',').map(column).collect::<Result<_, String>>().map(Self::Columns);
        }
        match text {
            "wide" => Ok(Self::Wide),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            "name" => Ok(Self::Name),
            _ => Err(format!(
                "unable to match a printer suitable for the output format {text:?}, allowed formats are: custom-columns,json,jsonpath,name,wide,yaml"
            )),
        }
    }
}

/// Indented by four spaces, as kubectl prints JSON.
pub fn json(value: &Value) -> anyhow::Result<String> {
    use serde::Serialize;
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))?;
    bytes.push(b'\n');
    Ok(String::from_utf8(bytes)?)
}

pub fn yaml(value: &Value) -> anyhow::Result<String> {
    let mut text = serde_saphyr::to_string(value)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// One object, or a List of them.
pub fn as_list(mut objects: Vec<Value>, single: bool) -> Value {
    if single && objects.len() == 1 {
        return objects.remove(0);
    }
    serde_json::json!({"apiVersion": "v1", "items": objects, "kind": "List", "metadata": {"resourceVersion": ""}})
}

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
    // Long lines stay whole, so that they can be searched.
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    let mut text = serde_saphyr::to_string_with_options(value, options)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Whoever reads this YAML, by the rules of 1.1 or 1.2, finds texts where texts were.
    #[test]
    fn texts_that_look_like_other_types_are_quoted() {
        for text in [
            "true",
            "123",
            "null",
            "yes",
            "no",
            "on",
            "y",
            "N",
            "~",
            "",
            "1.5",
            "1e3",
            "0644",
            "0x1f",
            "0b1",
            "1_000",
            "12:30",
            "2024-01-02",
            ".inf",
            "- a",
            "a: b",
            "# a",
            "*a",
            " a",
            "@a",
        ] {
            let printed = yaml(&json!({"a": text, "list": [text], text: 1})).expect(text);
            let first = printed.lines().find_map(|l| l.strip_prefix("a: ")).unwrap_or_default();
            assert!(first.starts_with(['"', '\'']), "{printed}");
            let read = crate::manifest::from_yaml(&printed).expect(&printed);
            assert_eq!(read, json!({"a": text, "list": [text], text: 1}), "{printed}");
        }
    }

    #[test]
    fn documents_look_as_kubectl_prints_them() {
        let long = "word ".repeat(30) + "end";
        let object = json!({"conf": "one\ntwo: 2\n  three\n", "empty": {}, "none": [], "list": [{"name": "a", "num": 1}],
            "long": long, "open": "a\nb", "image": "host:80/a:1", "time": "a b"});
        let printed = yaml(&object).expect("prints");
        let expected = format!(
            "conf: |\n  one\n  two: 2\n    three\nempty: {{}}\nimage: host:80/a:1\nlist:\n- name: a\n  num: 1\nlong: {long}\nnone: []\nopen: |-\n  a\n  b\ntime: a b\n"
        );
        assert_eq!(printed, expected);
    }
}

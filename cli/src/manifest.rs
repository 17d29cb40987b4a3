//! Manifests from files, folders and stdin: YAML or JSON, several documents, Lists.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

/// One document, and where it stands, for messages.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    pub source: String,
    pub object: Value,
}

/// A document that could not be read; the others go on.
pub type Parsed = Result<Document, anyhow::Error>;

/// Reads `-f` arguments: a file, a folder (its .yaml, .yml and .json files, by name), or `-`.
pub fn read(paths: &[String], recursive: bool) -> anyhow::Result<Vec<Parsed>> {
    if paths.is_empty() {
        anyhow::bail!("must specify -f: a file, a folder, or - for stdin");
    }
    let mut documents = Vec::new();
    for path in paths {
        if path == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("read stdin")?;
            documents.extend(parse("STDIN", &text));
            continue;
        }
        let path = Path::new(path);
        if !path.exists() {
            anyhow::bail!("the path {:?} does not exist", path.display());
        }
        for file in files(path, recursive)? {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("read {}", file.display()))?;
            documents.extend(parse(&file.display().to_string(), &text));
        }
    }
    if documents.is_empty() {
        anyhow::bail!("no objects passed to apply");
    }
    Ok(documents)
}

fn files(path: &Path, recursive: bool) -> anyhow::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let entries =
        std::fs::read_dir(path).with_context(|| format!("read folder {}", path.display()))?;
    for entry in entries {
        let path = entry?.path();
        let manifest = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if path.is_dir() && recursive {
            found.extend(files(&path, true)?);
        } else if path.is_file() && manifest {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Splits a text into documents and reads each by itself, so that one broken document is one
/// error.
pub fn parse(source: &str, text: &str) -> Vec<Parsed> {
    let mut documents = Vec::new();
    for (number, body) in split(text).into_iter().enumerate() {
        if body.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            continue;
        }
        match from_yaml(&body) {
            Ok(Value::Null) => {}
            Ok(object) => documents.extend(flatten(source, number, object)),
            Err(error) => documents.push(Err(anyhow::anyhow!(
                "error parsing {source}: document {}: {error}",
                number + 1
            ))),
        }
    }
    documents
}

/// Reads YAML as kubectl does, by the rules of YAML 1.1: `yes` and `on` are booleans, `0644` is
/// an octal number.
pub fn from_yaml(text: &str) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_str_with_options(text, options)
}

fn split(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        let is_separator = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.trim().is_empty() || rest.starts_with(" #"));
        if is_separator {
            documents.push(String::new());
        } else if let Some(last) = documents.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    documents
}

fn flatten(source: &str, number: usize, object: Value) -> Vec<Parsed> {
    let fault =
        |what: &str| anyhow::anyhow!("error validating {source}: document {}: {what}", number + 1);
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    if !object.is_object() {
        return vec![Err(fault("is not an object"))];
    }
    if text("kind").is_empty() {
        return vec![Err(fault("kind not set"))];
    }
    if text("apiVersion").is_empty() {
        return vec![Err(fault("apiVersion not set"))];
    }
    if text("kind") == "List" {
        let items = object.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        return items.into_iter().flat_map(|item| flatten(source, number, item)).collect();
    }
    vec![Ok(Document { source: source.to_owned(), object })]
}

/// A text at a path of keys, or nothing.
pub fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    path.iter()
        .try_fold(object, |value, key| value.get(key))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_broken_document_leaves_the_others() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\nkind: [broken\n---\n# only a comment\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n";
        let parsed = parse("x.yaml", text);
        assert_eq!(parsed.len(), 3);
        assert!(parsed[0].is_ok() && parsed[2].is_ok());
        let error = parsed[1].as_ref().expect_err("broken").to_string();
        assert!(error.starts_with("error parsing x.yaml: document 2:"), "{error}");
    }

    #[test]
    fn lists_are_taken_apart_and_json_is_yaml() {
        let text = r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod"},{"apiVersion":"v1","kind":"Service"}]}"#;
        let kinds: Vec<_> = parse("-", text)
            .into_iter()
            .map(|d| d.expect("reads").object["kind"].clone())
            .collect();
        assert_eq!(kinds, ["Pod", "Service"]);
    }

    #[test]
    fn scalars_mean_what_they_mean_to_kubectl() {
        for (text, value) in [
            ("0644", json!(420)),
            ("0o644", json!(420)),
            ("0x1F", json!(31)),
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("n", json!(false)),
            ("\"yes\"", json!("yes")),
            ("'0644'", json!("0644")),
            ("~", json!(null)),
            ("1.5", json!(1.5)),
            ("1_000", json!(1000)),
            ("08", json!(8.0)),
            ("12:30:45", json!("12:30:45")),
            ("2024-01-02", json!("2024-01-02")),
            ("1.2.3", json!("1.2.3")),
            ("100m", json!("100m")),
        ] {
            let read = from_yaml(&format!("a: {text}")).expect(text);
            assert_eq!(read["a"], value, "{text}");
        }
        let keys = from_yaml("{1: a, true: b}").expect("reads");
        assert_eq!(keys, json!({"1": "a", "true": "b"}));
    }

    #[test]
    fn anchors_and_block_texts() {
        let text =
            "a: &x {k: v}\nb: *x\nc: {<<: *x, l: w}\nd: |\n  one\n  two\ne: >-\n  one\n  two\n";
        let read = from_yaml(text).expect("reads");
        let expected = json!({"a": {"k": "v"}, "b": {"k": "v"}, "c": {"k": "v", "l": "w"},
            "d": "one\ntwo\n", "e": "one two"});
        assert_eq!(read, expected);
    }

    #[test]
    fn a_document_without_kind_is_named() {
        let error = parse("x.yaml", "apiVersion: v1\n").remove(0).expect_err("no kind").to_string();
        assert_eq!(error, "error validating x.yaml: document 1: kind not set");
    }
}

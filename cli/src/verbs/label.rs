//! `label` and `annotate`: `KEY=VALUE` sets, `KEY-` removes.

use bytes::Bytes;
use clap::Args;
use serde_json::{Map, Value, json};
use skiff_client::{Patch, WriteOptions};

use super::Selection;
use crate::connect::{Session, explain};
use crate::out::outln;
use crate::resources::singular_name;

#[derive(Debug, Args)]
pub struct Label {
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
pub struct Annotate {
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
struct Change {
    /// TYPE NAME..., or TYPE/NAME ..., then KEY=VALUE or KEY-
    #[arg(required = true, allow_hyphen_values = false)]
    words: Vec<String>,
    /// Allow to change what is set already
    #[arg(long)]
    overwrite: bool,
    /// All objects of the type
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    selection: Selection,
}

impl Label {
    pub async fn run(self, session: &Session) -> anyhow::Result<i32> {
        self.change.run(session, "labels", "labeled", "unlabeled").await
    }
}

impl Annotate {
    pub async fn run(self, session: &Session) -> anyhow::Result<i32> {
        self.change.run(session, "annotations", "annotated", "annotated").await
    }
}

impl Change {
    async fn run(
        self,
        session: &Session,
        field: &str,
        set: &str,
        removed: &str,
    ) -> anyhow::Result<i32> {
        let (resources, changes) = split(&self.words);
        if changes.is_empty() {
            anyhow::bail!("at least one {} update is required", field.trim_end_matches('s'));
        }
        for asked in session.catalog.asked(&resources)? {
            if asked.names.is_empty() && !self.all && self.selection.is_empty() {
                anyhow::bail!(
                    "one or more resources must be specified as <resource> <name> or <resource>/<name>"
                );
            }
            for object in session.fetch(&asked, &self.selection).await? {
                let tree: Value = object.parse()?;
                let fields = self.fields(&tree["metadata"][field], &changes)?;
                let patch = json!({"metadata": {field: fields}}).to_string();
                let target = skiff_client::Target::of(&asked.info.resource, &object);
                let options = WriteOptions::default();
                let patch = Patch::Merge(Bytes::from(patch));
                let patched = session.api.patch(&target, patch, &options).await.map_err(explain)?;
                let what = match patched.resource_version() == object.resource_version() {
                    true => format!("not {set}"),
                    false if fields.values().all(Value::is_null) => removed.to_owned(),
                    false => set.to_owned(),
                };
                outln!("{} {what}", singular_name(&asked.info, object.name()));
            }
        }
        Ok(0)
    }

    fn fields(&self, now: &Value, changes: &[String]) -> anyhow::Result<Map<String, Value>> {
        let mut fields = Map::new();
        for change in changes {
            match change.split_once('=') {
                None => {
                    fields.insert(change.trim_end_matches('-').to_owned(), Value::Null);
                }
                Some((key, value)) => {
                    let before = now[key].as_str().filter(|before| *before != value);
                    if let Some(before) = before.filter(|_| !self.overwrite) {
                        anyhow::bail!(
                            "'{key}' already has a value ({before}), and --overwrite is false"
                        );
                    }
                    fields.insert(key.to_owned(), value.into());
                }
            }
        }
        Ok(fields)
    }
}

/// Resources come first, changes after them.
fn split(words: &[String]) -> (Vec<String>, Vec<String>) {
    words.iter().cloned().partition(|word| !word.contains('=') && !word.ends_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_then_changes() {
        let words: Vec<String> = ["pod", "web", "a=b", "c-"].map(str::to_owned).to_vec();
        let (resources, changes) = split(&words);
        assert_eq!(resources, ["pod", "web"]);
        assert_eq!(changes, ["a=b", "c-"]);
    }
}

//! `set image`.

use bytes::Bytes;
use clap::Subcommand;
use serde_json::{Value, json};
use skiff_client::{Patch, WriteOptions};

use super::Selection;
use crate::connect::{Session, explain};
use crate::out::outln;
use crate::resources::singular_name;

#[derive(Debug, Subcommand)]
pub enum Set {
    /// Change images: set image deployment/web web=web:2 sidecar=proxy:3
    Image {
        /// TYPE/NAME, then CONTAINER=IMAGE; `*` means every container
        #[arg(required = true)]
        words: Vec<String>,
    },
}

impl Set {
    pub async fn run(self, session: &Session) -> anyhow::Result<i32> {
        let Self::Image { words } = self;
        let (images, resources): (Vec<_>, Vec<_>) =
            words.into_iter().partition(|w| w.contains('='));
        if images.is_empty() {
            anyhow::bail!("at least one image update is required");
        }
        for asked in session.catalog.asked(&resources)? {
            for object in session.fetch(&asked, &Selection::default()).await? {
                let tree: Value = object.parse()?;
                let patch = patch(&tree, &images)?;
                let target = session.target(&asked.info, object.name());
                let body = Patch::Strategic(Bytes::from(patch.to_string()));
                session
                    .api
                    .patch(&target, body, &WriteOptions::default())
                    .await
                    .map_err(explain)?;
                outln!("{} image updated", singular_name(&asked.info, object.name()));
            }
        }
        Ok(0)
    }
}

fn patch(object: &Value, images: &[String]) -> anyhow::Result<Value> {
    let in_template = object["spec"].get("template").is_some();
    let spec = if in_template { &object["spec"]["template"]["spec"] } else { &object["spec"] };
    let names = |field: &str| -> Vec<String> {
        spec[field]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|c| c["name"].as_str().map(str::to_owned))
            .collect()
    };
    let mut patched = serde_json::Map::new();
    for pair in images {
        let (wanted, image) = pair.split_once('=').unwrap_or((pair, ""));
        let mut found = false;
        for field in ["containers", "initContainers"] {
            for name in names(field).into_iter().filter(|name| wanted == "*" || name == wanted) {
                let list = patched.entry(field).or_insert_with(|| json!([]));
                if let Some(list) = list.as_array_mut() {
                    list.push(json!({"name": name, "image": image}));
                }
                found = true;
            }
        }
        if !found {
            anyhow::bail!("unable to find container named {wanted:?}");
        }
    }
    let spec = Value::Object(patched);
    Ok(if in_template {
        json!({"spec": {"template": {"spec": spec}}})
    } else {
        json!({"spec": spec})
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_containers_by_name() {
        let object =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}}});
        assert_eq!(
            patch(&object, &["b=x:2".into()]).expect("found"),
            json!({"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "x:2"}]}}}})
        );
        let missing = patch(&object, &["c=x".into()]).expect_err("missing").to_string();
        assert_eq!(missing, "unable to find container named \"c\"");
    }
}

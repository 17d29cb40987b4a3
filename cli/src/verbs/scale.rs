//! `scale`: through the scale subresource, so that it works for every kind that has one.

use bytes::Bytes;
use clap::Args;
use serde_json::json;
use skiff_client::{Patch, WriteOptions};

use super::Selection;
use crate::connect::{Session, explain};
use crate::out::outln;
use crate::resources::singular_name;

#[derive(Debug, Args)]
pub struct Scale {
    /// TYPE NAME..., or TYPE/NAME ...
    #[arg(required = true)]
    resources: Vec<String>,
    /// How many
    #[arg(long)]
    replicas: i32,
    /// Only if there are this many now
    #[arg(long)]
    current_replicas: Option<i32>,
    #[command(flatten)]
    selection: Selection,
}

impl Scale {
    pub async fn run(self, session: &Session) -> anyhow::Result<i32> {
        for asked in session.catalog.asked(&self.resources)? {
            if !asked.info.subresources.iter().any(|s| s == "scale") {
                anyhow::bail!(
                    "the server could not find the requested resource: {} cannot be scaled",
                    asked.info.resource.plural
                );
            }
            for object in session.fetch(&asked, &self.selection).await? {
                if let Some(expected) = self.current_replicas {
                    let tree: serde_json::Value = object.parse()?;
                    let now = tree["spec"]["replicas"].as_i64().unwrap_or(1);
                    if now != i64::from(expected) {
                        anyhow::bail!("Expected replicas to be {expected}, was {now}");
                    }
                }
                let target = session.target(&asked.info, object.name()).subresource("scale");
                let patch = json!({"spec": {"replicas": self.replicas}}).to_string();
                let patch = Patch::Merge(Bytes::from(patch));
                session
                    .api
                    .patch(&target, patch, &WriteOptions::default())
                    .await
                    .map_err(explain)?;
                outln!("{} scaled", singular_name(&asked.info, object.name()));
            }
        }
        Ok(0)
    }
}

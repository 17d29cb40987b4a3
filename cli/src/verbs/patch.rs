//! `patch`.

use bytes::Bytes;
use clap::Args;
use skiff_client::{Patch, WriteOptions};

use super::Selection;
use crate::connect::{Session, explain};
use crate::out::outln;
use crate::resources::singular_name;

#[derive(Debug, Args)]
pub struct PatchArgs {
    /// TYPE NAME, or TYPE/NAME
    #[arg(required = true)]
    resources: Vec<String>,
    /// The patch, as JSON or YAML
    #[arg(short = 'p', long, conflicts_with = "patch_file")]
    patch: Option<String>,
    /// A file with the patch
    #[arg(long)]
    patch_file: Option<String>,
    /// strategic, merge or json
    #[arg(long = "type", default_value = "strategic")]
    kind: String,
    /// status or scale
    #[arg(long)]
    subresource: Option<String>,
}

impl PatchArgs {
    pub async fn run(self, session: &Session) -> anyhow::Result<i32> {
        let text = match (&self.patch, &self.patch_file) {
            (Some(text), _) => text.clone(),
            (None, Some(path)) => std::fs::read_to_string(path)?,
            (None, None) => anyhow::bail!(
                "must specify --patch or --patch-file containing the contents of the patch"
            ),
        };
        let tree: serde_json::Value = crate::manifest::from_yaml(&text)
            .map_err(|e| anyhow::anyhow!("unable to parse {text:?}: {e}"))?;
        let body = Bytes::from(tree.to_string());
        let patch = match self.kind.as_str() {
            "strategic" => Patch::Strategic(body),
            "merge" => Patch::Merge(body),
            "json" => Patch::Json(body),
            other => anyhow::bail!("--type must be one of [json merge strategic], not {other:?}"),
        };
        for asked in session.catalog.asked(&self.resources)? {
            for object in session.fetch(&asked, &Selection::default()).await? {
                let target = session
                    .target(&asked.info, object.name())
                    .subresource(self.subresource.as_deref().unwrap_or_default());
                let patched = session
                    .api
                    .patch(&target, patch.clone(), &WriteOptions::default())
                    .await
                    .map_err(explain)?;
                let same = patched.resource_version() == object.resource_version();
                let suffix = if same { " (no change)" } else { "" };
                outln!("{} patched{suffix}", singular_name(&asked.info, object.name()));
            }
        }
        Ok(0)
    }
}

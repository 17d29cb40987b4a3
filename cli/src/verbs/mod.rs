//! The verbs: flags in, calls to the API, text out.

pub mod apply;
pub mod create;
pub mod delete;
pub mod describe;
pub mod discover;
pub mod exec;
pub mod get;
pub mod label;
pub mod logs;
pub mod patch;
pub mod rollout;
pub mod scale;
pub mod set;
pub mod wait;

use std::sync::Arc;

use clap::Args;
use futures_util::future::BoxFuture;
use serde_json::Value;
use skiff_client::{ListOptions, ResourceInfo, Target};
use skiff_proto::{FieldSelector, Object, Selector};

use crate::connect::{Session, connect, explain};
use crate::resources::Asked;
use crate::{Global, Verb};

/// Runs a verb; the result is the process's exit code.
/// Boxed: see "Build time" in ARCHITECTURE.md.
pub fn run(global: Global, verb: Verb) -> BoxFuture<'static, anyhow::Result<i32>> {
    Box::pin(async move {
        if let Verb::Version(version) = verb {
            return version.run(&global).await;
        }
        let session = connect(&global).await?;
        match verb {
            Verb::Get(verb) => verb.run(&session).await,
            Verb::Describe(verb) => verb.run(&session).await,
            Verb::Apply(verb) => verb.run(&session, global.namespace.as_deref()).await,
            Verb::Create(verb) => verb.run(&session, global.namespace.as_deref()).await,
            Verb::Delete(verb) => verb.run(&session, global.namespace.as_deref()).await,
            Verb::Logs(verb) => verb.run(&session).await,
            Verb::Exec(verb) => verb.run(&session).await,
            Verb::Scale(verb) => verb.run(&session).await,
            Verb::Rollout(verb) => verb.run(&session).await,
            Verb::Set(verb) => verb.run(&session).await,
            Verb::Patch(verb) => verb.run(&session).await,
            Verb::Label(verb) => verb.run(&session).await,
            Verb::Annotate(verb) => verb.run(&session).await,
            Verb::Wait(verb) => verb.run(&session).await,
            Verb::ApiResources(verb) => verb.run(&session),
            Verb::Version(_) => Ok(0),
        }
    })
}

/// Which objects of a kind are meant.
#[derive(Debug, Clone, Default, Args)]
pub struct Selection {
    /// Label selector: app=web,tier!=cache,env in (a,b)
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Field selector: metadata.name=web
    #[arg(long)]
    pub field_selector: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

impl Selection {
    pub fn options(&self) -> anyhow::Result<ListOptions> {
        Ok(ListOptions {
            labels: Selector::parse(self.selector.as_deref().unwrap_or_default())?,
            fields: FieldSelector::parse(self.field_selector.as_deref().unwrap_or_default())?,
            ..Default::default()
        })
    }

    pub fn is_empty(&self) -> bool {
        self.selector.is_none() && self.field_selector.is_none()
    }
}

impl Session {
    /// The namespace of a request for this kind.
    pub fn namespace_of(&self, info: &ResourceInfo, all: bool) -> &str {
        if info.namespaced && !all { &self.namespace } else { "" }
    }

    pub fn target(&self, info: &ResourceInfo, name: &str) -> Target {
        Target::one(&info.resource, self.namespace_of(info, false), name)
    }

    /// The named objects, or those that are selected, in name order.
    pub async fn fetch(
        &self,
        asked: &Asked,
        selection: &Selection,
    ) -> anyhow::Result<Vec<Arc<Object>>> {
        if asked.names.is_empty() {
            let target = Target::all(
                &asked.info.resource,
                self.namespace_of(&asked.info, selection.all_namespaces),
            );
            return self.list_all(&target, selection.options()?).await;
        }
        if !selection.is_empty() {
            anyhow::bail!("name cannot be provided when a selector is specified");
        }
        if selection.all_namespaces {
            anyhow::bail!("a resource cannot be retrieved by name across all namespaces");
        }
        let mut found = Vec::new();
        for name in &asked.names {
            found.push(self.api.get(&self.target(&asked.info, name)).await.map_err(explain)?);
        }
        Ok(found)
    }

    /// Follows continue tokens to the end.
    pub async fn list_all(
        &self,
        target: &Target,
        mut options: ListOptions,
    ) -> anyhow::Result<Vec<Arc<Object>>> {
        let mut items = Vec::new();
        loop {
            let page = self.api.list(target, &options).await.map_err(explain)?;
            items.extend(page.items);
            if page.continue_token.is_empty() {
                return Ok(items);
            }
            options.continue_token = page.continue_token;
        }
    }
}

/// The object's JSON as a tree, for printing.
pub fn tree(object: &Object) -> anyhow::Result<Value> {
    Ok(object.parse()?)
}

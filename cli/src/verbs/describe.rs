//! `describe`: one object in detail, and what happened to it.

use std::time::SystemTime;

use clap::Args;
use skiff_client::{ListOptions, Target};
use skiff_proto::{FieldSelector, Object, resource};

use super::{Selection, tree};
use crate::connect::Session;
use crate::describe::{self, Related};
use crate::out::{out, outln};

#[derive(Debug, Args)]
pub struct Describe {
    /// TYPE [NAME...], or TYPE/NAME ...
    #[arg(required = true)]
    resources: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// Leave out events
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    show_events: bool,
}

impl Describe {
    pub async fn run(self, session: &Session) -> anyhow::Result<i32> {
        let mut first = true;
        for asked in session.catalog.asked(&self.resources)? {
            for object in session.fetch(&asked, &self.selection).await? {
                if !first {
                    outln!("\n");
                }
                first = false;
                let related = self.related(session, &object).await?;
                out!("{}", describe::describe(&tree(&object)?, &related, SystemTime::now()));
            }
        }
        Ok(0)
    }

    async fn related(&self, session: &Session, object: &Object) -> anyhow::Result<Related> {
        let mut related = Related::default();
        if self.show_events {
            related.events = Some(events(session, object).await?);
        }
        match object.index.kind.as_str() {
            "Service" => {
                let name = object.name();
                let labels =
                    skiff_proto::Selector::parse(&format!("kubernetes.io/service-name={name}"))?;
                let options = ListOptions { labels, ..Default::default() };
                related.slices =
                    trees(session, &resource::ENDPOINT_SLICES, object.namespace(), options).await?;
            }
            "Node" => {
                let fields = FieldSelector::equal("spec.nodeName", object.name());
                let options = ListOptions { fields, ..Default::default() };
                related.pods = trees(session, &resource::PODS, "", options).await?;
            }
            "Deployment" => {
                let all = trees(
                    session,
                    &resource::REPLICA_SETS,
                    object.namespace(),
                    ListOptions::default(),
                )
                .await?;
                let owned = |rs: &serde_json::Value| {
                    let owners = rs["metadata"]["ownerReferences"].as_array();
                    owners.into_iter().flatten().any(|o| o["uid"] == object.uid())
                };
                related.replica_sets = all.into_iter().filter(owned).collect();
            }
            _ => {}
        }
        Ok(related)
    }
}

async fn trees(
    session: &Session,
    resource: &skiff_proto::Resource,
    namespace: &str,
    options: ListOptions,
) -> anyhow::Result<Vec<serde_json::Value>> {
    session
        .list_all(&Target::all(resource, namespace), options)
        .await?
        .iter()
        .map(|o| tree(o))
        .collect()
}

/// By uid, so that events about an earlier object of this name stay out.
async fn events(session: &Session, object: &Object) -> anyhow::Result<Vec<serde_json::Value>> {
    let namespace = if object.namespace().is_empty() { "default" } else { object.namespace() };
    let mut fields = FieldSelector::equal("involvedObject.name", object.name());
    fields.terms.extend(FieldSelector::equal("involvedObject.uid", object.uid()).terms);
    trees(session, &resource::EVENTS, namespace, ListOptions { fields, ..Default::default() }).await
}

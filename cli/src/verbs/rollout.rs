//! `rollout status | history | undo | restart | pause | resume` of deployments.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use clap::{Args, Subcommand};
use futures_util::StreamExt;
use serde_json::{Value, json};
use skiff_client::{ListOptions, Patch, Target, WatchEvent, WatchOptions, WriteOptions};
use skiff_proto::model::{Deployment, ReplicaSet};
use skiff_proto::{FieldSelector, Timestamp, resource};

use super::logs::seconds;
use crate::connect::{Session, explain};
use crate::out::outln;
use crate::resources::singular_name;
use crate::table;

const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";
const TEMPLATE_HASH: &str = "pod-template-hash";

#[derive(Debug, Subcommand)]
pub enum Rollout {
    /// Wait until the rollout is done
    Status {
        #[command(flatten)]
        what: What,
        /// How long at most; 0: for ever
        #[arg(long, default_value = "0s")]
        timeout: String,
        #[arg(short = 'w', long, default_value_t = true, action = clap::ArgAction::Set)]
        watch: bool,
    },
    /// Show earlier revisions
    History {
        #[command(flatten)]
        what: What,
    },
    /// Go back to an earlier revision
    Undo {
        #[command(flatten)]
        what: What,
        /// 0: the last one
        #[arg(long, default_value_t = 0)]
        to_revision: i64,
    },
    /// Replace all pods, one after the other
    Restart {
        #[command(flatten)]
        what: What,
    },
    /// Hold back changes
    Pause {
        #[command(flatten)]
        what: What,
    },
    /// Let changes go on
    Resume {
        #[command(flatten)]
        what: What,
    },
}

#[derive(Debug, Args)]
pub struct What {
    /// deployment NAME, or deployment/NAME
    #[arg(required = true)]
    resources: Vec<String>,
}

impl Rollout {
    pub async fn run(self, session: &Session) -> anyhow::Result<i32> {
        match self {
            Self::Status { what, timeout, watch } => {
                let name = what.deployment(session)?;
                let following = status(session, &name, watch);
                match seconds(&timeout)? {
                    0 => following.await?,
                    limit => {
                        let limit = Duration::from_secs(limit.unsigned_abs());
                        tokio::time::timeout(limit, following).await.map_err(|_| {
                            anyhow::anyhow!("timed out waiting for the condition")
                        })??;
                    }
                }
            }
            Self::History { what } => history(session, &what.deployment(session)?).await?,
            Self::Undo { what, to_revision } => {
                undo(session, &what.deployment(session)?, to_revision).await?
            }
            Self::Restart { what } => {
                let now = Timestamp::seconds(SystemTime::now()).to_string();
                let patch = json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}}}});
                let refused = "can't restart paused deployment (run rollout resume first)";
                let name = what.deployment(session)?;
                refuse(session, &name, true, refused).await?;
                change(session, &name, patch, "restarted").await?;
            }
            Self::Pause { what } => {
                let name = what.deployment(session)?;
                refuse(session, &name, true, "is already paused").await?;
                change(session, &name, json!({"spec": {"paused": true}}), "paused").await?;
            }
            Self::Resume { what } => {
                let name = what.deployment(session)?;
                refuse(session, &name, false, "is not paused").await?;
                change(session, &name, json!({"spec": {"paused": null}}), "resumed").await?;
            }
        }
        Ok(0)
    }
}

impl What {
    fn deployment(&self, session: &Session) -> anyhow::Result<String> {
        let asked = session.catalog.asked(&self.resources)?;
        match asked.as_slice() {
            [one] if one.info.kind == "Deployment" && one.names.len() == 1 => {
                Ok(one.names[0].clone())
            }
            [one] if one.info.kind == "Deployment" => {
                anyhow::bail!("required resource not specified: name one deployment")
            }
            [one, ..] => {
                anyhow::bail!("no status viewer has been implemented for {}", one.info.kind)
            }
            [] => anyhow::bail!("required resource not specified"),
        }
    }
}

/// An error when the deployment is paused, or when it is not.
async fn refuse(session: &Session, name: &str, paused: bool, why: &str) -> anyhow::Result<()> {
    let info = session.catalog.find("deployments")?;
    let object = session.api.get(&session.target(info, name)).await.map_err(explain)?;
    let deployment: Deployment = object.parse()?;
    if deployment.spec.paused == paused {
        anyhow::bail!("{} {name:?} {why}", info.resource.group_resource());
    }
    Ok(())
}

async fn change(session: &Session, name: &str, patch: Value, what: &str) -> anyhow::Result<()> {
    let info = session.catalog.find("deployments")?;
    let patch = Patch::Merge(Bytes::from(patch.to_string()));
    session
        .api
        .patch(&session.target(info, name), patch, &WriteOptions::default())
        .await
        .map_err(explain)?;
    outln!("{} {what}", singular_name(info, name));
    Ok(())
}

/// What `rollout status` says about a deployment, and whether it is done. Upstream's
/// `DeploymentStatusViewer`.
fn progress(deployment: &Deployment) -> anyhow::Result<(String, bool)> {
    let (name, spec, status) = (&deployment.metadata.name, &deployment.spec, &deployment.status);
    if deployment.metadata.generation > status.observed_generation {
        return Ok(("Waiting for deployment spec update to be observed...".into(), false));
    }
    let progressing = status.conditions.iter().find(|c| c.type_ == "Progressing");
    if progressing.is_some_and(|c| c.reason == "ProgressDeadlineExceeded") {
        anyhow::bail!("deployment {name:?} exceeded its progress deadline");
    }
    let replicas = spec.replicas.unwrap_or(1);
    let waiting = |what: String| {
        Ok((format!("Waiting for deployment {name:?} rollout to finish: {what}..."), false))
    };
    if status.updated_replicas < replicas {
        return waiting(format!(
            "{} out of {replicas} new replicas have been updated",
            status.updated_replicas
        ));
    }
    if status.replicas > status.updated_replicas {
        return waiting(format!(
            "{} old replicas are pending termination",
            status.replicas - status.updated_replicas
        ));
    }
    if status.available_replicas < status.updated_replicas {
        return waiting(format!(
            "{} of {} updated replicas are available",
            status.available_replicas, status.updated_replicas
        ));
    }
    Ok((format!("deployment {name:?} successfully rolled out"), true))
}

async fn status(session: &Session, name: &str, watch: bool) -> anyhow::Result<()> {
    let info = session.catalog.find("deployments")?;
    let target = session.target(info, name);
    let mut said = String::new();
    let mut say = |text: String| {
        if text != said {
            outln!("{text}");
            said = text;
        }
    };
    loop {
        let object = session.api.get(&target).await.map_err(explain)?;
        let (text, done) = progress(&object.parse()?)?;
        say(text);
        if done || !watch {
            return Ok(());
        }
        let options = WatchOptions {
            fields: FieldSelector::equal("metadata.name", name),
            resource_version: object.resource_version().into(),
            ..Default::default()
        };
        let place = Target::all(&target.resource, &target.namespace);
        let mut events = session.api.watch(&place, &options).await.map_err(explain)?;
        while let Some(Ok(event)) = events.next().await {
            match event {
                WatchEvent::Added(o) | WatchEvent::Modified(o) => {
                    let (text, done) = progress(&o.parse()?)?;
                    say(text);
                    if done {
                        return Ok(());
                    }
                }
                WatchEvent::Deleted(_) => anyhow::bail!("object has been deleted"),
                WatchEvent::Bookmark { .. } => {}
            }
        }
    }
}

/// The deployment's own ReplicaSets with their revisions, oldest first.
async fn revisions(
    session: &Session,
    name: &str,
) -> anyhow::Result<(Deployment, Vec<(i64, ReplicaSet)>)> {
    let info = session.catalog.find("deployments")?;
    let object = session.api.get(&session.target(info, name)).await.map_err(explain)?;
    let place = Target::all(&resource::REPLICA_SETS, &session.namespace);
    let all = session.list_all(&place, ListOptions::default()).await?;
    let owned = all
        .iter()
        .filter(|rs| rs.index.metadata.owner_references.iter().any(|o| o.uid == object.uid()));
    let mut revisions = Vec::new();
    for rs in owned {
        let rs: ReplicaSet = rs.parse()?;
        let revision =
            rs.metadata.annotations.get(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0);
        revisions.push((revision, rs));
    }
    revisions.sort_by_key(|(revision, _)| *revision);
    Ok((object.parse()?, revisions))
}

async fn history(session: &Session, name: &str) -> anyhow::Result<()> {
    let (_, revisions) = revisions(session, name).await?;
    let info = session.catalog.find("deployments")?;
    let cause = |rs: &ReplicaSet| {
        rs.metadata.annotations.get(CHANGE_CAUSE).cloned().unwrap_or_else(|| "<none>".into())
    };
    let rows: Vec<_> = revisions.iter().map(|(n, rs)| vec![n.to_string(), cause(rs)]).collect();
    outln!("{} ", singular_name(info, name));
    outln!("{}", table::layout(&["REVISION", "CHANGE-CAUSE"], &rows, true));
    Ok(())
}

async fn undo(session: &Session, name: &str, to: i64) -> anyhow::Result<()> {
    let (deployment, revisions) = revisions(session, name).await?;
    if deployment.spec.paused {
        anyhow::bail!(
            "you cannot rollback a paused deployment; resume it first with 'skiff rollout resume' and try again"
        );
    }
    let wanted = match to {
        0 => revisions.len().checked_sub(2).and_then(|n| revisions.get(n)),
        to => revisions.iter().find(|(revision, _)| *revision == to),
    };
    let Some((_, rs)) = wanted else {
        match to {
            0 => anyhow::bail!("no rollout history found for deployment {name:?}"),
            to => anyhow::bail!("unable to find specified revision {to} in history"),
        }
    };
    let mut template = rs.spec.template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(TEMPLATE_HASH);
    }
    let info = session.catalog.find("deployments")?;
    if template == deployment.spec.template {
        outln!(
            "{} skipped rollback (current template already matches revision)",
            singular_name(info, name)
        );
        return Ok(());
    }
    // A JSON patch replaces the template as a whole: fields added since then go.
    let patch = json!([{"op": "replace", "path": "/spec/template", "value": template}]);
    let patch = Patch::Json(Bytes::from(patch.to_string()));
    session
        .api
        .patch(&session.target(info, name), patch, &WriteOptions::default())
        .await
        .map_err(explain)?;
    outln!("{} rolled back", singular_name(info, name));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(status: Value) -> Deployment {
        let object = json!({"metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 3}, "status": status});
        serde_json::from_value(object).expect("a deployment")
    }

    #[test]
    fn progress_in_upstream_words() {
        for (status, text, done) in [
            (
                json!({"observedGeneration": 1}),
                "Waiting for deployment spec update to be observed...",
                false,
            ),
            (
                json!({"observedGeneration": 2, "updatedReplicas": 1}),
                "Waiting for deployment \"web\" rollout to finish: 1 out of 3 new replicas have been updated...",
                false,
            ),
            (
                json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 4}),
                "Waiting for deployment \"web\" rollout to finish: 1 old replicas are pending termination...",
                false,
            ),
            (
                json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 2}),
                "Waiting for deployment \"web\" rollout to finish: 2 of 3 updated replicas are available...",
                false,
            ),
            (
                json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 3}),
                "deployment \"web\" successfully rolled out",
                true,
            ),
        ] {
            assert_eq!(
                progress(&deployment(status)).expect("no deadline"),
                (text.to_owned(), done)
            );
        }
        let late = json!({"observedGeneration": 2, "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]});
        assert!(progress(&deployment(late)).is_err());
    }
}

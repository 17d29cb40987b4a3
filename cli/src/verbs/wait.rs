//! `wait --for=condition=Ready`, `--for=delete`, `--for=jsonpath={.status.phase}=Running`.

use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use serde_json::Value;
use skiff_client::{Target, WatchEvent, WatchOptions};
use skiff_proto::FieldSelector;

use super::Selection;
use super::logs::seconds;
use crate::connect::{Session, explain};
use crate::jsonpath::Template;
use crate::out::outln;
use crate::resources::{Asked, singular_name};

#[derive(Debug, Args)]
pub struct Wait {
    /// TYPE NAME..., TYPE/NAME ..., or TYPE with -l or --all
    #[arg(required = true)]
    resources: Vec<String>,
    /// delete, condition=NAME[=VALUE], jsonpath='{PATH}'=VALUE
    #[arg(long = "for")]
    goal: String,
    /// How long at most
    #[arg(long, default_value = "30s")]
    timeout: String,
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    selection: Selection,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Goal {
    Delete,
    Create,
    Condition(String, String),
    JsonPath(Template, Option<String>),
}

impl Goal {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        match text.split_once('=') {
            None if text == "delete" => Ok(Self::Delete),
            None if text == "create" => Ok(Self::Create),
            Some(("condition", rest)) => {
                let (name, value) = rest.split_once('=').unwrap_or((rest, "true"));
                Ok(Self::Condition(name.to_ascii_lowercase(), value.to_ascii_lowercase()))
            }
            Some(("jsonpath", rest)) => {
                let (path, value) = match rest.rsplit_once("}=") {
                    Some((path, value)) => {
                        (format!("{path}}}"), Some(value.trim_matches('"').to_owned()))
                    }
                    None => (rest.to_owned(), None),
                };
                Ok(Self::JsonPath(Template::parse(&path).map_err(anyhow::Error::msg)?, value))
            }
            _ => anyhow::bail!("unrecognized condition: {text:?}"),
        }
    }

    /// Whether an object that exists has reached the goal.
    pub fn reached(&self, object: &Value) -> bool {
        match self {
            Self::Delete => false,
            Self::Create => true,
            Self::Condition(name, value) => {
                let conditions = object["status"]["conditions"].as_array();
                let text = |v: &Value| v.as_str().unwrap_or_default().to_ascii_lowercase();
                // A condition about an older generation says nothing about this one.
                let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
                conditions.into_iter().flatten().any(|c| {
                    let observed = c["observedGeneration"].as_i64().unwrap_or(generation);
                    text(&c["type"]) == *name
                        && text(&c["status"]) == *value
                        && observed >= generation
                })
            }
            Self::JsonPath(template, value) => {
                let found = template.render(object);
                value.as_ref().map_or(!found.is_empty(), |value| found == *value)
            }
        }
    }
}

impl Wait {
    pub async fn run(self, session: &Session) -> anyhow::Result<i32> {
        let goal = Goal::parse(&self.goal)?;
        let limit = Duration::from_secs(seconds(&self.timeout)?.try_into()?);
        let end = tokio::time::Instant::now() + limit;
        let mut waited = false;
        for asked in session.catalog.asked(&self.resources)? {
            for name in self.names(session, &asked, &goal).await? {
                waited = true;
                let reached =
                    tokio::time::timeout_at(end, one(session, &asked, &name, &goal)).await;
                match reached {
                    Ok(done) => {
                        done?;
                        let what = if goal == Goal::Delete { "deleted" } else { "condition met" };
                        outln!("{} {what}", singular_name(&asked.info, &name));
                    }
                    Err(_) => {
                        anyhow::bail!(
                            "timed out waiting for the condition on {}/{name}",
                            asked.info.resource.plural
                        )
                    }
                }
            }
        }
        if !waited && goal != Goal::Delete {
            anyhow::bail!("no matching resources found");
        }
        Ok(0)
    }

    async fn names(
        &self,
        session: &Session,
        asked: &Asked,
        goal: &Goal,
    ) -> anyhow::Result<Vec<String>> {
        if !asked.names.is_empty() {
            return Ok(asked.names.clone());
        }
        if !self.all && self.selection.is_empty() && *goal != Goal::Delete {
            anyhow::bail!("name, -l or --all must be specified");
        }
        let objects = session.fetch(asked, &self.selection).await?;
        Ok(objects.iter().map(|o| o.name().to_owned()).collect())
    }
}

/// Follows one object until it reaches the goal.
async fn one(session: &Session, asked: &Asked, name: &str, goal: &Goal) -> anyhow::Result<()> {
    let target = session.target(&asked.info, name);
    loop {
        let mut from = String::new();
        match session.api.get(&target).await {
            Ok(object) if goal.reached(&object.parse()?) => return Ok(()),
            Ok(object) => from = object.resource_version().to_owned(),
            Err(status) if status.is_not_found() && *goal == Goal::Delete => return Ok(()),
            Err(status) if status.is_not_found() && *goal == Goal::Create => {}
            Err(status) => return Err(explain(status)),
        }
        let options = WatchOptions {
            fields: FieldSelector::equal("metadata.name", name),
            resource_version: from,
            ..Default::default()
        };
        let place = Target::all(&target.resource, &target.namespace);
        let mut events = session.api.watch(&place, &options).await.map_err(explain)?;
        // A watch that breaks begins again with what is there by then.
        while let Some(Ok(event)) = events.next().await {
            match event {
                WatchEvent::Added(o) | WatchEvent::Modified(o) if goal.reached(&o.parse()?) => {
                    return Ok(());
                }
                WatchEvent::Deleted(_) if *goal == Goal::Delete => return Ok(()),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn goals_as_kubectl_reads_them() {
        let pod = json!({"metadata": {"generation": 2}, "status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True"},
            {"type": "Available", "status": "True", "observedGeneration": 1}]}});
        for (goal, reached) in [
            ("condition=Ready", true),
            ("condition=ready=false", false),
            ("condition=Available", false),
            ("jsonpath={.status.phase}=Running", true),
            ("jsonpath={.status.phase}=Failed", false),
            ("jsonpath={.status.podIP}", false),
            ("delete", false),
        ] {
            assert_eq!(Goal::parse(goal).expect(goal).reached(&pod), reached, "{goal}");
        }
        assert!(Goal::parse("ready").is_err());
    }
}

//! `scale`: through the scale subresource, so that it works for every kind that has one.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};
use skiff_client::{Patch, Target, WriteOptions};
use skiff_proto::{Object, Status};

use super::Selection;
use crate::connect::{Session, explain};
use crate::out::outln;
use crate::resources::singular_name;

/// Tries with a precondition while others change the same object; between them kubectl's pause.
const MAX_ATTEMPTS: usize = 300;
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub struct Scale {
    /// TYPE NAME..., or TYPE/NAME ...
    #[arg(required = true)]
    resources: Vec<String>,
    /// How many
    #[arg(long)]
    replicas: i32,
    #[command(flatten)]
    precondition: Precondition,
    #[command(flatten)]
    selection: Selection,
}

/// What must hold for the number to be changed.
#[derive(Debug, Default, Args)]
struct Precondition {
    /// Only if there are this many now
    #[arg(long)]
    current_replicas: Option<i32>,
    /// Only if the object is at this version
    #[arg(long)]
    resource_version: Option<String>,
}

impl Scale {
    pub async fn run(self, session: &Session) -> anyhow::Result<i32> {
        let mut objects = Vec::new();
        for asked in session.catalog.asked(&self.resources)? {
            if !asked.info.subresources.iter().any(|s| s == "scale") {
                anyhow::bail!(
                    "the server could not find the requested resource: {} cannot be scaled",
                    asked.info.resource.plural
                );
            }
            for object in session.fetch(&asked, &self.selection).await? {
                let target = session.target(&asked.info, object.name()).subresource("scale");
                objects.push((target, singular_name(&asked.info, object.name())));
            }
        }
        if self.precondition.resource_version.is_some() && objects.len() > 1 {
            anyhow::bail!("cannot use --resource-version with multiple resources");
        }
        for (target, name) in objects {
            self.scale(session, &target).await?;
            outln!("{name} scaled");
        }
        Ok(0)
    }

    /// With a precondition the scale is read, checked and written as it was read, so that
    /// what was checked still holds; without one a patch says what is wanted.
    async fn scale(&self, session: &Session, target: &Target) -> anyhow::Result<()> {
        let options = WriteOptions::default();
        if self.precondition.is_empty() {
            let patch = json!({"spec": {"replicas": self.replicas}}).to_string();
            let patch = Patch::Merge(Bytes::from(patch));
            session.api.patch(target, patch, &options).await.map_err(explain)?;
            return Ok(());
        }
        let mut last = None;
        for attempt in 0..MAX_ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(RETRY).await;
            }
            let scale = session.api.get(target).await.map_err(explain)?;
            let json = self.precondition.apply(&scale, self.replicas)?;
            match session.api.update(target, json, &options).await {
                Ok(_) => return Ok(()),
                Err(status) if status.is_conflict() => last = Some(status),
                Err(status) => return Err(explain(status)),
            }
        }
        Err(explain(last.unwrap_or_else(|| Status::unavailable("nothing was tried"))))
    }
}

impl Precondition {
    fn is_empty(&self) -> bool {
        self.current_replicas.is_none() && self.resource_version.is_none()
    }

    /// The scale with the wanted number, if the scale read is as it must be.
    fn apply(&self, scale: &Object, replicas: i32) -> anyhow::Result<Bytes> {
        let mut tree: Value = scale.parse()?;
        let now = tree["spec"]["replicas"].as_i64().unwrap_or(0);
        if let Some(expected) = self.current_replicas
            && now != i64::from(expected)
        {
            anyhow::bail!("Expected replicas to be {expected}, was {now}");
        }
        let version = scale.resource_version();
        if let Some(expected) = &self.resource_version
            && version != expected
        {
            anyhow::bail!("Expected resource version to be {expected}, was {version}");
        }
        tree["spec"]["replicas"] = json!(replicas);
        Ok(Bytes::from(tree.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_must_be_as_expected_and_is_written_back_under_its_version() {
        let scale = json!({
            "apiVersion": "autoscaling/v1", "kind": "Scale",
            "metadata": {"name": "web", "namespace": "default", "resourceVersion": "7"},
            "spec": {"replicas": 3}, "status": {"replicas": 3},
        });
        let scale = Object::from_json(Bytes::from(scale.to_string())).expect("an object");
        let check = |precondition: Precondition| {
            precondition.apply(&scale, 5).map_err(|error| error.to_string())
        };
        let replicas =
            |current| Precondition { current_replicas: Some(current), ..Default::default() };
        let version = |version: &str| Precondition {
            resource_version: Some(version.into()),
            ..Default::default()
        };
        assert_eq!(check(replicas(2)), Err("Expected replicas to be 2, was 3".into()));
        assert_eq!(check(version("6")), Err("Expected resource version to be 6, was 7".into()));
        for precondition in [replicas(3), version("7")] {
            let json: Value =
                serde_json::from_slice(&check(precondition).expect("holds")).expect("json");
            assert_eq!(
                (&json["spec"]["replicas"], &json["metadata"]["resourceVersion"]),
                (&json!(5), &json!("7"))
            );
        }
    }
}

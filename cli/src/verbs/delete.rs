//! `delete`: by name, selector or manifest; waits until the objects are gone.

use clap::Args;
use futures_util::StreamExt;
use skiff_client::{
    DeleteOptions, Deleted, Propagation, ResourceInfo, Target, WatchEvent, WatchOptions,
};
use skiff_proto::{FieldSelector, Object};

use super::Selection;
use super::apply::locate;
use crate::connect::{Session, explain};
use crate::manifest;
use crate::out::outln;
use crate::resources::singular_name;

#[derive(Debug, Args)]
pub struct Delete {
    /// TYPE NAME..., TYPE/NAME ..., or TYPE with -l or --all
    resources: Vec<String>,
    /// File, folder, or - for stdin
    #[arg(short = 'f', long = "filename")]
    filename: Vec<String>,
    #[arg(short = 'R', long)]
    recursive: bool,
    #[command(flatten)]
    selection: Selection,
    /// All objects of the type
    #[arg(long)]
    all: bool,
    /// Seconds to let a pod end by itself; negative: what the pod says
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// Remove at once, with a grace period of 0
    #[arg(long)]
    force: bool,
    /// Signal only, the same as --grace-period=1
    #[arg(long)]
    now: bool,
    /// background, foreground or orphan
    #[arg(long, default_value = "background")]
    cascade: String,
    /// Do not fail when an object does not exist
    #[arg(long)]
    ignore_not_found: bool,
    /// Return once the objects are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    wait: bool,
}

struct Doomed {
    info: ResourceInfo,
    target: Target,
}

impl Delete {
    pub async fn run(self, session: &Session, namespace: Option<&str>) -> anyhow::Result<i32> {
        let options = self.options()?;
        let mut failed = false;
        let mut going = Vec::new();
        for doomed in self.doomed(session, namespace).await? {
            match session.api.delete(&doomed.target, &options).await {
                Ok(left) => {
                    let what = if self.force { "force deleted" } else { "deleted" };
                    let (kind, name) = (qualified(&doomed.info), &doomed.target.name);
                    outln!("{kind} {name:?} {what}");
                    if let Deleted::Terminating(object) = left {
                        going.push((doomed, object));
                    }
                }
                Err(status) if status.is_not_found() && self.ignore_not_found => {}
                Err(status) => {
                    eprintln!("{:#}", explain(status));
                    failed = true;
                }
            }
        }
        if self.wait && !self.force {
            for (doomed, object) in going {
                gone(session, &doomed, &object).await?;
            }
        }
        Ok(i32::from(failed))
    }

    fn options(&self) -> anyhow::Result<DeleteOptions> {
        let propagation = match self.cascade.as_str() {
            "background" | "true" => Propagation::Background,
            "foreground" => Propagation::Foreground,
            "orphan" | "false" => Propagation::Orphan,
            other => anyhow::bail!(
                "invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""
            ),
        };
        let grace = match (self.force, self.now, self.grace_period) {
            (true, _, _) => Some(0),
            (_, true, _) => Some(1),
            (_, _, n) if n >= 0 => Some(n),
            _ => None,
        };
        Ok(DeleteOptions { grace_period_seconds: grace, propagation, ..Default::default() })
    }

    async fn doomed(
        &self,
        session: &Session,
        namespace: Option<&str>,
    ) -> anyhow::Result<Vec<Doomed>> {
        let mut doomed = Vec::new();
        if !self.filename.is_empty() {
            for document in manifest::read(&self.filename, self.recursive)? {
                let document = document?;
                let (info, target) = locate(session, &document, namespace)?;
                doomed.push(Doomed { info: info.clone(), target });
            }
            return Ok(doomed);
        }
        for asked in session.catalog.asked(&self.resources)? {
            if asked.names.is_empty() && !self.all && self.selection.is_empty() {
                anyhow::bail!("resource(s) were provided, but no name was specified");
            }
            if asked.names.is_empty() {
                for object in session.fetch(&asked, &self.selection).await? {
                    let target = Target::of(&asked.info.resource, &object);
                    doomed.push(Doomed { info: asked.info.clone(), target });
                }
            }
            for name in &asked.names {
                doomed.push(Doomed {
                    info: asked.info.clone(),
                    target: session.target(&asked.info, name),
                });
            }
        }
        Ok(doomed)
    }
}

/// `pod`, `deployment.apps`.
fn qualified(info: &ResourceInfo) -> String {
    singular_name(info, "").trim_end_matches('/').to_owned()
}

/// Waits for the removal of this very object, not of a later one with its name.
async fn gone(session: &Session, doomed: &Doomed, object: &Object) -> anyhow::Result<()> {
    let options = WatchOptions {
        fields: FieldSelector::equal("metadata.name", object.name()),
        resource_version: object.resource_version().into(),
        ..Default::default()
    };
    let place = Target::all(&doomed.info.resource, object.namespace());
    loop {
        let Ok(mut events) = session.api.watch(&place, &options).await else { return Ok(()) };
        while let Some(Ok(event)) = events.next().await {
            if let WatchEvent::Deleted(last) = event
                && last.uid() == object.uid()
            {
                return Ok(());
            }
        }
        // The watch broke: what is there now decides.
        match session.api.get(&doomed.target).await {
            Ok(now) if now.uid() == object.uid() => {}
            _ => return Ok(()),
        }
    }
}

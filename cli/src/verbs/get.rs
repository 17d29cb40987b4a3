//! `get`: tables, documents, and changes as they happen.

use std::sync::Arc;
use std::time::SystemTime;

use clap::Args;
use futures_util::StreamExt;
use skiff_client::{ResourceInfo, Target, WatchEvent, WatchOptions};
use skiff_proto::{FieldSelector, Object};

use super::{Selection, tree};
use crate::columns::{self, Style};
use crate::connect::{Session, explain};
use crate::out::{self, out, outln};
use crate::output::{self, Format};
use crate::resources::{Asked, singular_name};

#[derive(Debug, Args)]
pub struct Get {
    /// TYPE [NAME...], TYPE/NAME ..., or TYPE,TYPE
    #[arg(required = true)]
    resources: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// json, yaml, wide, name, jsonpath=TEMPLATE, custom-columns=HEADER:PATH,...
    #[arg(short = 'o', long)]
    output: Option<Format>,
    /// After listing, show changes as they happen
    #[arg(short = 'w', long)]
    watch: bool,
    /// Show labels as the last column
    #[arg(long)]
    show_labels: bool,
    /// Leave out the header line
    #[arg(long)]
    no_headers: bool,
    /// Say nothing when a named object does not exist
    #[arg(long)]
    ignore_not_found: bool,
    /// Sort by a JSONPath
    #[arg(long, value_name = "PATH")]
    sort_by: Option<String>,
}

impl Get {
    pub async fn run(self, session: &Session) -> anyhow::Result<i32> {
        let asked = session.catalog.asked(&self.resources)?;
        if self.watch && asked.len() > 1 {
            anyhow::bail!("you may only specify a single resource type with --watch");
        }
        let mut found = Vec::new();
        for one in merged(asked) {
            match session.fetch(&one, &self.selection).await {
                Ok(objects) => found.push((one, objects)),
                Err(error) if self.ignore_not_found && error.to_string().contains("(NotFound)") => {
                }
                Err(error) => return Err(error),
            }
        }
        self.print(session, &found)?;
        if self.watch
            && let Some((asked, objects)) = found.first()
        {
            self.follow(session, asked, objects).await?;
        }
        Ok(0)
    }

    fn style(&self, with_kind: bool) -> Style {
        Style {
            wide: matches!(self.output, Some(Format::Wide)),
            all_namespaces: self.selection.all_namespaces,
            show_labels: self.show_labels,
            no_headers: self.no_headers,
            with_kind,
        }
    }

    fn print(&self, session: &Session, found: &[(Asked, Vec<Arc<Object>>)]) -> anyhow::Result<()> {
        let single = found.len() == 1 && found[0].0.names.len() == 1;
        match &self.output {
            None | Some(Format::Wide) => self.print_tables(session, found),
            Some(Format::Name) => {
                for (asked, objects) in found {
                    for object in objects {
                        outln!("{}", singular_name(&asked.info, object.name()));
                    }
                }
                Ok(())
            }
            Some(format) => {
                let mut trees = Vec::new();
                for object in found.iter().flat_map(|(_, objects)| objects) {
                    trees.push(tree(object)?);
                }
                self.sort(&mut trees)?;
                self.print_documents(format, trees, single)
            }
        }
    }

    fn print_documents(
        &self,
        format: &Format,
        trees: Vec<serde_json::Value>,
        single: bool,
    ) -> anyhow::Result<()> {
        let text = match format {
            Format::Columns(columns) => {
                let header: Vec<_> = columns.iter().map(|(h, _)| h.as_str()).collect();
                let cell = |t: &crate::jsonpath::Template, o| {
                    let text = t.render(o);
                    if text.is_empty() { "<none>".to_owned() } else { text }
                };
                let rows: Vec<_> = trees
                    .iter()
                    .map(|o| columns.iter().map(|(_, t)| cell(t, o)).collect())
                    .collect();
                crate::table::layout(&header, &rows, !self.no_headers)
            }
            Format::Yaml => output::yaml(&output::as_list(trees, single))?,
            Format::JsonPath(template) => template.render(&output::as_list(trees, single)),
            _ => output::json(&output::as_list(trees, single))?,
        };
        out!("{text}");
        Ok(())
    }

    fn print_tables(
        &self,
        session: &Session,
        found: &[(Asked, Vec<Arc<Object>>)],
    ) -> anyhow::Result<()> {
        let filled: Vec<_> = found.iter().filter(|(_, objects)| !objects.is_empty()).collect();
        if filled.is_empty() {
            if !(self.ignore_not_found && found.is_empty()) {
                let everywhere =
                    self.selection.all_namespaces || found.iter().all(|(a, _)| !a.info.namespaced);
                match everywhere {
                    true => eprintln!("No resources found"),
                    false => eprintln!("No resources found in {} namespace.", session.namespace),
                }
            }
            return Ok(());
        }
        for (n, (asked, objects)) in filled.iter().enumerate() {
            if n > 0 {
                outln!();
            }
            let mut trees = objects.iter().map(|o| tree(o)).collect::<anyhow::Result<Vec<_>>>()?;
            self.sort(&mut trees)?;
            let style = self.style(found.len() > 1);
            out!("{}", columns::table(&asked.info, &trees, style, SystemTime::now()));
        }
        Ok(())
    }

    fn sort(&self, trees: &mut [serde_json::Value]) -> anyhow::Result<()> {
        let Some(path) = &self.sort_by else { return Ok(()) };
        let template = crate::jsonpath::Template::parse(path).map_err(anyhow::Error::msg)?;
        // Numbers by value, everything else by text.
        trees.sort_by_cached_key(|object| {
            let text = template.render(object);
            (text.parse::<i64>().unwrap_or(i64::MAX), text)
        });
        Ok(())
    }

    async fn follow(
        &self,
        session: &Session,
        asked: &Asked,
        listed: &[Arc<Object>],
    ) -> anyhow::Result<()> {
        let namespace = session.namespace_of(&asked.info, self.selection.all_namespaces);
        let mut selection = self.selection.options()?;
        if let [name] = asked.names.as_slice() {
            selection.fields = FieldSelector::equal("metadata.name", name);
        }
        let newest = listed.iter().filter_map(|o| o.resource_version().parse::<u64>().ok()).max();
        let options = WatchOptions {
            labels: selection.labels,
            fields: selection.fields,
            resource_version: newest.map(|n| n.to_string()).unwrap_or_default(),
            allow_bookmarks: false,
        };
        let target = Target::all(&asked.info.resource, namespace);
        let mut events = session.api.watch(&target, &options).await.map_err(explain)?;
        while let Some(event) = events.next().await {
            match event.map_err(explain)? {
                WatchEvent::Added(o) | WatchEvent::Modified(o) | WatchEvent::Deleted(o) => {
                    self.print_change(&asked.info, &o)?
                }
                WatchEvent::Bookmark { .. } => {}
            }
        }
        Ok(())
    }

    fn print_change(&self, info: &ResourceInfo, object: &Object) -> anyhow::Result<()> {
        let tree = tree(object)?;
        match &self.output {
            None | Some(Format::Wide) => {
                let style = Style { no_headers: true, ..self.style(false) };
                out!("{}", columns::table(info, &[tree], style, SystemTime::now()));
            }
            Some(Format::Name) => outln!("{}", singular_name(info, object.name())),
            Some(Format::Yaml) => out!("---\n{}", output::yaml(&tree)?),
            Some(format) => self.print_documents(format, vec![tree], true)?,
        }
        out::flush();
        Ok(())
    }
}

/// `pod/a pod/b` is one question about two pods.
fn merged(asked: Vec<Asked>) -> Vec<Asked> {
    let mut merged: Vec<Asked> = Vec::new();
    for one in asked {
        match merged
            .iter_mut()
            .find(|m| m.info == one.info && !m.names.is_empty() && !one.names.is_empty())
        {
            Some(same) => same.names.extend(one.names),
            None => merged.push(one),
        }
    }
    merged
}

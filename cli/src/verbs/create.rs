//! `create -f`, and the short forms `create namespace` and `create configmap`.

use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use skiff_client::Target;

use super::apply::{locate, prefixed, write_options};
use crate::connect::{Session, explain};
use crate::manifest::{self, Document};
use crate::out::{out, outln};
use crate::output::{self, Format};
use crate::resources::singular_name;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Create {
    #[command(subcommand)]
    short: Option<Short>,
    /// File, folder, or - for stdin
    #[arg(short = 'f', long = "filename")]
    filename: Vec<String>,
    /// Folders within folders, too
    #[arg(short = 'R', long)]
    recursive: bool,
    #[command(flatten)]
    common: Common,
    /// strict, warn or ignore
    #[arg(long, default_value = "strict")]
    validate: String,
}

#[derive(Debug, Clone, Args)]
struct Common {
    /// Only say what would be done
    #[arg(long, value_name = "client|server", num_args = 0..=1, default_missing_value = "client")]
    dry_run: Option<String>,
    /// json, yaml or name
    #[arg(short = 'o', long)]
    output: Option<Format>,
}

#[derive(Debug, Subcommand)]
enum Short {
    /// A namespace
    #[command(alias = "ns")]
    Namespace {
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// A config map from literals and files
    #[command(alias = "cm")]
    Configmap {
        name: String,
        /// KEY=VALUE
        #[arg(long)]
        from_literal: Vec<String>,
        /// FILE or KEY=FILE
        #[arg(long)]
        from_file: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// A deployment of one image
    #[command(alias = "deploy")]
    Deployment {
        name: String,
        #[arg(long)]
        image: String,
        #[arg(long, default_value_t = 1)]
        replicas: i32,
        #[command(flatten)]
        common: Common,
    },
}

impl Create {
    pub async fn run(self, session: &Session, namespace: Option<&str>) -> anyhow::Result<i32> {
        let (documents, common) = match self.short {
            Some(short) => {
                let (object, common) = short.object()?;
                (vec![Ok(Document { source: "the command line".into(), object })], common)
            }
            None => (manifest::read(&self.filename, self.recursive)?, self.common),
        };
        let mut failed = false;
        for document in documents {
            let done = match document {
                Ok(document) => one(session, &document, namespace, &common, &self.validate).await,
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                eprintln!("{}", prefixed(&error));
                failed = true;
            }
        }
        Ok(i32::from(failed))
    }
}

async fn one(
    session: &Session,
    document: &Document,
    flag: Option<&str>,
    common: &Common,
    validate: &str,
) -> anyhow::Result<()> {
    let (info, target) = locate(session, document, flag)?;
    let options = write_options(validate, &common.dry_run)?;
    let tree = if common.dry_run.as_deref() == Some("client") {
        document.object.clone()
    } else {
        let place = Target { name: String::new(), ..target };
        let json = Bytes::from(document.object.to_string());
        session.api.create(&place, json, &options).await.map_err(explain)?.parse()?
    };
    let name = manifest::text(&tree, &["metadata", "name"]);
    match &common.output {
        Some(Format::Json) => out!("{}", output::json(&tree)?),
        Some(Format::Yaml) => out!("{}", output::yaml(&tree)?),
        Some(Format::Name) => outln!("{}", singular_name(info, name)),
        _ => {
            let suffix = match common.dry_run.as_deref() {
                Some("server") => " (server dry run)",
                Some(_) => " (dry run)",
                None => "",
            };
            outln!("{} created{suffix}", singular_name(info, name));
        }
    }
    Ok(())
}

impl Short {
    fn object(self) -> anyhow::Result<(Value, Common)> {
        Ok(match self {
            Self::Namespace { name, common } => (
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
                common,
            ),
            Self::Configmap { name, from_literal, from_file, common } => {
                let data = config_data(&from_literal, &from_file)?;
                (
                    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}),
                    common,
                )
            }
            Self::Deployment { name, image, replicas, common } => {
                let labels = json!({"app": name});
                let container = image
                    .rsplit('/')
                    .next()
                    .unwrap_or(&image)
                    .split([':', '@'])
                    .next()
                    .unwrap_or(&image);
                let object = json!({
                    "apiVersion": "apps/v1", "kind": "Deployment",
                    "metadata": {"name": name, "labels": labels},
                    "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
                        "template": {"metadata": {"labels": labels},
                            "spec": {"containers": [{"name": container, "image": image}]}}}
                });
                (object, common)
            }
        })
    }
}

fn config_data(literals: &[String], files: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut data = Map::new();
    for literal in literals {
        let (key, value) = literal.split_once('=').ok_or_else(|| {
            anyhow::anyhow!("invalid literal source {literal:?}, expected key=value")
        })?;
        data.insert(key.to_owned(), value.into());
    }
    for file in files {
        let (key, path) = match file.split_once('=') {
            Some((key, path)) => (key.to_owned(), path),
            None => (file.rsplit('/').next().unwrap_or(file).to_owned(), file.as_str()),
        };
        let text =
            std::fs::read_to_string(path).map_err(|e| anyhow::anyhow!("read {path}: {e}"))?;
        data.insert(key, text.into());
    }
    Ok(data)
}

//! `api-resources` and `version`.

use clap::Args;

use crate::Global;
use crate::connect::{Session, api};
use crate::out::{out, outln};
use crate::table;

#[derive(Debug, Args)]
pub struct ApiResources {
    /// Verbs and categories, too
    #[arg(short = 'o', long, value_parser = ["wide", "name"])]
    output: Option<String>,
    /// Only namespaced, or only others
    #[arg(long)]
    namespaced: Option<bool>,
    #[arg(long)]
    no_headers: bool,
}

impl ApiResources {
    pub fn run(self, session: &Session) -> anyhow::Result<i32> {
        let mut infos: Vec<_> = session.catalog.infos().iter().collect();
        infos.sort_by(|a, b| {
            (&a.resource.group, &a.resource.plural).cmp(&(&b.resource.group, &b.resource.plural))
        });
        infos.retain(|info| self.namespaced.is_none_or(|wanted| info.namespaced == wanted));
        if self.output.as_deref() == Some("name") {
            infos.iter().for_each(|info| outln!("{}", info.resource.group_resource()));
            return Ok(0);
        }
        let mut header = vec!["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"];
        let wide = self.output.is_some();
        if wide {
            header.extend(["VERBS", "CATEGORIES"]);
        }
        let row = |info: &&skiff_client::ResourceInfo| {
            let mut row = vec![
                info.resource.plural.to_string(),
                info.short_names.join(","),
                info.resource.api_version(),
                info.namespaced.to_string(),
                info.kind.clone(),
            ];
            if wide {
                row.extend([info.verbs.join(","), info.categories.join(",")]);
            }
            row
        };
        let rows: Vec<_> = infos.iter().map(row).collect();
        out!("{}", table::layout(&header, &rows, !self.no_headers));
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub struct Version {
    /// Only the client's own
    #[arg(long)]
    client: bool,
}

impl Version {
    pub async fn run(self, global: &Global) -> anyhow::Result<i32> {
        outln!("Client Version: v{}", env!("CARGO_PKG_VERSION"));
        if self.client {
            return Ok(0);
        }
        let (api, _) = api(global).await?;
        let server = api.version().await.map_err(crate::connect::explain)?;
        outln!("Server Version: {}", server.version);
        outln!("Kubernetes API: {}", server.kubernetes_version);
        Ok(0)
    }
}

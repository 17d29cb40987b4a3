//! `apply`: makes objects match manifests, keeping what others set (`merge`).

use bytes::Bytes;
use clap::Args;
use serde_json::Value;
use skiff_client::{FieldValidation, Patch, ResourceInfo, Target, WriteOptions};

use crate::connect::{Session, explain};
use crate::manifest::{self, Document, text};
use crate::merge::{LAST_APPLIED, three_way};
use crate::out::{out, outln};
use crate::output::{self, Format};
use crate::resources::singular_name;

#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    files: Files,
    /// Only say what would be done
    #[arg(long, value_name = "client|server", num_args = 0..=1, default_missing_value = "client")]
    dry_run: Option<String>,
    /// json, yaml or name
    #[arg(short = 'o', long)]
    output: Option<Format>,
    /// Send the object whole and let the server find what is wrong: strict, warn or ignore
    #[arg(long, default_value = "strict")]
    validate: String,
}

/// `-f` and `-R`.
#[derive(Debug, Clone, Args)]
pub struct Files {
    /// File, folder, or - for stdin
    #[arg(short = 'f', long = "filename", required = true)]
    pub filename: Vec<String>,
    /// Folders within folders, too
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

pub fn write_options(validate: &str, dry_run: &Option<String>) -> anyhow::Result<WriteOptions> {
    let field_validation = match validate {
        "strict" | "true" => FieldValidation::Strict,
        "warn" => FieldValidation::Warn,
        "ignore" | "false" => FieldValidation::Ignore,
        other => anyhow::bail!(
            "invalid - validate option {other:?}; must be one of: strict (or true), warn, ignore (or false)"
        ),
    };
    Ok(WriteOptions { dry_run: dry_run.as_deref() == Some("server"), field_validation })
}

/// Where a document belongs; its own namespace must agree with `-n`.
pub fn locate<'a>(
    session: &'a Session,
    document: &Document,
    flag: Option<&str>,
) -> anyhow::Result<(&'a ResourceInfo, Target)> {
    let object = &document.object;
    let (kind, version) = (text(object, &["kind"]), text(object, &["apiVersion"]));
    let info = session.catalog.of_kind(version, kind).map_err(|e| {
        anyhow::anyhow!(
            "resource mapping not found for name: {:?} from {:?}: {e}",
            text(object, &["metadata", "name"]),
            document.source
        )
    })?;
    let own = text(object, &["metadata", "namespace"]);
    if let Some(flag) = flag.filter(|flag| info.namespaced && !own.is_empty() && *flag != own) {
        anyhow::bail!(
            "the namespace from the provided object {own:?} does not match the namespace {flag:?}. You must pass '--namespace={own}' to perform this operation."
        );
    }
    let namespace = match (info.namespaced, own) {
        (false, _) => "",
        (true, "") => &session.namespace,
        (true, own) => own,
    };
    Ok((info, Target::one(&info.resource, namespace, text(object, &["metadata", "name"]))))
}

impl Apply {
    pub async fn run(self, session: &Session, namespace: Option<&str>) -> anyhow::Result<i32> {
        let documents = manifest::read(&self.files.filename, self.files.recursive)?;
        let mut failed = false;
        for document in documents {
            let done = match document {
                Ok(document) => self.one(session, &document, namespace).await,
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                eprintln!("{}", prefixed(&error));
                failed = true;
            }
        }
        Ok(i32::from(failed))
    }

    async fn one(
        &self,
        session: &Session,
        document: &Document,
        flag: Option<&str>,
    ) -> anyhow::Result<()> {
        let (info, target) = locate(session, document, flag)?;
        if target.name.is_empty() {
            anyhow::bail!(
                "error when retrieving current configuration of {:?}: resource name may not be empty",
                document.source
            );
        }
        let options = write_options(&self.validate, &self.dry_run)?;
        let mut wanted = document.object.clone();
        let recorded = record(&mut wanted)?;
        let live = match session.api.get(&target).await {
            Ok(live) => Some(live),
            Err(status) if status.is_not_found() => None,
            Err(status) => return Err(explain(status)),
        };
        if self.dry_run.as_deref() == Some("client") {
            let what = if live.is_some() { "configured" } else { "created" };
            outln!("{} {what} (dry run)", singular_name(info, &target.name));
            return Ok(());
        }
        let (object, what) = match live {
            None => {
                let created = session
                    .api
                    .create(
                        &Target { name: String::new(), ..target.clone() },
                        body(&wanted),
                        &options,
                    )
                    .await;
                (created.map_err(|s| explain_for(document, s))?, "created")
            }
            Some(live) => {
                let last = last_applied(&live.parse()?);
                let patch = patch_body(&last, &document.object, &recorded);
                let patched =
                    session.api.patch(&target, Patch::Strategic(body(&patch)), &options).await;
                let patched = patched.map_err(|s| explain_for(document, s))?;
                let same = is_unchanged(live.parse()?, patched.parse()?);
                (patched, if same { "unchanged" } else { "configured" })
            }
        };
        self.report(info, &object, what)
    }

    fn report(
        &self,
        info: &ResourceInfo,
        object: &skiff_proto::Object,
        what: &str,
    ) -> anyhow::Result<()> {
        match &self.output {
            Some(Format::Json) => out!("{}", output::json(&object.parse()?)?),
            Some(Format::Yaml) => out!("{}", output::yaml(&object.parse()?)?),
            Some(Format::Name) => outln!("{}", singular_name(info, object.name())),
            _ => {
                let suffix = if self.dry_run.is_some() { " (server dry run)" } else { "" };
                outln!("{} {what}{suffix}", singular_name(info, object.name()));
            }
        }
        Ok(())
    }
}

/// Whether two readings differ by no more than what controllers write all the time.
fn is_unchanged(mut before: Value, mut after: Value) -> bool {
    for object in [&mut before, &mut after] {
        object["status"] = Value::Null;
        object["metadata"]["resourceVersion"] = Value::Null;
    }
    before == after
}

/// Notes the manifest in the object itself, for the next apply.
fn record(object: &mut Value) -> anyhow::Result<String> {
    let text = format!("{}\n", serde_json::to_string(&without_record(object))?);
    object["metadata"]["annotations"][LAST_APPLIED] = Value::String(text.clone());
    Ok(text)
}

fn without_record(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(annotations) =
        object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut)
    {
        annotations.remove(LAST_APPLIED);
    }
    object
}

fn last_applied(live: &Value) -> Value {
    let recorded = live["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap_or_default();
    serde_json::from_str(recorded).unwrap_or(Value::Null)
}

fn patch_body(last: &Value, manifest: &Value, recorded: &str) -> Value {
    let mut patch = three_way(last, &without_record(manifest));
    patch["metadata"]["annotations"][LAST_APPLIED] = Value::String(recorded.to_owned());
    patch
}

pub fn body(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

/// The server's failure, with the place the object came from.
pub fn explain_for(document: &Document, status: skiff_proto::Status) -> anyhow::Error {
    if status.reason == "BadRequest" || status.reason == "NotFound" {
        return explain(status).context(format!("error when applying {:?}", document.source));
    }
    explain(status)
}

/// `error: ...`, unless the text says so already.
pub fn prefixed(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let spoken = ["Error from server", "error", "The ", "Error "]
        .iter()
        .any(|start| text.starts_with(start));
    if spoken { text } else { format!("error: {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_record_is_the_manifest_and_not_itself() {
        let mut object =
            json!({"kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
        record(&mut object).expect("records");
        assert_eq!(
            last_applied(&object),
            json!({"kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}})
        );
        record(&mut object).expect("records again");
        assert_eq!(without_record(&last_applied(&object)), last_applied(&object));
    }
}
